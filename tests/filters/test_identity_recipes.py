"""The recipes as docs/recipes prints them, run with logins: shop-b never gets links of acme, shop-a does."""

from __future__ import annotations

import asyncio
import base64
import smtplib
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from brandproxy.config import Mail
from brandproxy.context import Context
from brandproxy.filters import milter, smtp
from brandproxy.model import HostState
from tests.conftest import free_port
from tests.filters.conftest import installation, running
from tests.filters.mta import Sink, need_python_for_all, postfix, start_sink
from tests.filters.recipes import RECIPES, lines, settings
from tests.filters.test_haraka import haraka
from tests.filters.test_identity_matrix import ACME, BETA, LIES, TRUTH, message
from tests.filters.test_other_servers import exim, folder
from tests.filters.test_postfix import pipe_script

pytestmark = pytest.mark.timeout(180)

OWN = (b"", "news@acme.example", "news@acme.example")


@contextmanager
def logins() -> Iterator[int]:
    """A server of Dovecot's authentication protocol; the password of all is `secret`. Its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(
                b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t" + b"0" * 32 + b"\nDONE\n"
            )
            for line in self.rfile:
                words = line.decode().rstrip("\n").split("\t")
                if words[0] == "AUTH":
                    resp = next(word for word in words if word.startswith("resp="))
                    _, user, password = base64.b64decode(resp[5:]).decode().split("\0")
                    answer = f"OK\t{words[1]}\tuser={user}" if password == "secret" else f"FAIL\t{words[1]}"
                    self.wfile.write(answer.encode() + b"\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@asynccontextmanager
async def two_tenants(data: Path, mail: dict[str, Any]) -> AsyncIterator[Context]:
    """Tenants acme and beta; `mail` is what the recipe says for brandproxy.toml."""
    async with installation(data, **mail) as context:
        await context.registry.add_tenant("beta")
        await context.registry.add_host("links.beta.example", "beta")
        await context.registry.set_host_state("links.beta.example", HostState.LIVE, "test")
        await context.directory.load(context.store)
        yield context


def submit(
    port: int, login: str, said: tuple[bytes, str, str], number: int, hello: str = "client.example"
) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=60, local_hostname=hello) as client:
        if login:
            client.login(login, "secret")
        client.sendmail(said[1], [f"{number}@example.org"], message(said))


async def check(port: int, sink: Sink, as_hello: bool = False, lies: tuple[str, ...] = tuple(LIES)) -> None:
    """Own mail of both, and every lie by shop-b, by an unlisted login and without one."""
    cases = [("shop-a", OWN, ACME), ("shop-b", TRUTH, BETA)]
    cases += [("shop-b", LIES[lie], b"") for lie in lies]
    cases += [(login, LIES["all"], b"") for login in ("stranger", "")]
    for number, (login, said, _) in enumerate(cases):
        hello = login or "client.example"
        await asyncio.to_thread(submit, port, "" if as_hello else login, said, number, hello)
    received = {
        int(mail.recipients[0].partition("@")[0]): mail.message for mail in await sink.until(len(cases), 90)
    }
    for number, (login, said, wanted) in enumerate(cases):
        assert wanted in received[number], (login, said)
        assert wanted == ACME or ACME not in received[number], (login, said)
        assert login == "shop-b" or wanted or BETA not in received[number], (login, said)
        assert b"X-Brandproxy" not in received[number], (login, said)


def sasl(port: int) -> str:
    return (
        f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:127.0.0.1:{port}\n"
        "smtpd_sasl_security_options = noanonymous\n"
    )


async def test_postfix_milter(tmp_path: Path) -> None:
    port = free_port()
    said = lines("postfix.md", "main.cf", {"inet:127.0.0.1:8891, inet:127.0.0.1:8892": f"inet:127.0.0.1:{port}"})
    mail = settings("postfix.md", 0) | {"milter": f"127.0.0.1:{port}"}
    mail["logins"] |= {"shop-b": "beta"}
    with logins() as accounts:
        async with start_sink() as sink, two_tenants(tmp_path, mail) as context, running(milter.run, context):
            with postfix(sink.port, main=said + sasl(accounts)) as mta:
                await check(mta.port, sink)


async def test_postfix_after_the_queue(tmp_path: Path) -> None:
    ports = {str(port): str(free_port()) for port in (8025, 8101, 8102, 10026)}
    changes = {**ports, "  -o smtpd_milters=inet:127.0.0.1:8892\n": ""}
    with tempfile.TemporaryDirectory(prefix="brandproxy-table-") as name:
        table = Path(name, "brandproxy")
        table.parent.chmod(0o755)
        changes |= {"/etc/postfix/brandproxy": str(table)}
        main = lines("postfix.md", "main.cf", changes, at=1)
        table.write_text(lines("postfix.md", "/etc/postfix/brandproxy", changes))
        subprocess.run(["postmap", f"hash:{table}"], check=True)
        mail = settings("postfix.md", 1, ports)
        mail |= {"smtp": f"127.0.0.1:{ports['8025']}", "next_hop": f"127.0.0.1:{ports['10026']}"}
        with logins() as accounts:
            async with start_sink() as sink, two_tenants(tmp_path, mail) as context, running(smtp.run, context):
                master = lines("postfix.md", "master.cf", changes)
                with postfix(sink.port, main=main + sasl(accounts), master=master) as mta:
                    await check(mta.port, sink)


async def test_postfix_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    need_python_for_all()
    monkeypatch.setenv("BRANDPROXY_MAIL_LOGINS", '{"shop-a": "acme", "shop-b": "beta"}')
    back = free_port()
    with tempfile.TemporaryDirectory(prefix="brandproxy-pipe-") as name, logins() as accounts:
        home = Path(name)
        async with start_sink() as sink, two_tenants(home / "data", settings("postfix.md", 2)):
            script = pipe_script(home, back)
            text = script.read_text().replace("\nshift\n", "\nshift\nexport BRANDPROXY_MAIL_LOGINS=%s\n")
            script.write_text(text.replace("%s", """'{"shop-a": "acme", "shop-b": "beta"}'"""))
            changes = {
                "user=brandproxy": "user=nobody",
                "/usr/local/bin/brandproxy-pipe": f"{script} ${{queue_id}}",
                "pickup unix n - n 60 1 pickup\n  -o content_filter=\n": (
                    f"127.0.0.1:{back} inet n - n - 10 smtpd\n"
                )
                + "  -o content_filter= -o smtpd_sasl_auth_enable=no\n",
            }
            master = lines("postfix.md", "master.cf", changes, at=1)
            main = lines("postfix.md", "main.cf", {}, at=2)
            with postfix(sink.port, main=main + sasl(accounts), master=master) as mta:
                await check(mta.port, sink, lies=("header", "all"))


EXIM_LOGINS = """\
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = yes
  server_condition = ${if eq{$auth3}{secret}}
  server_set_id = $auth2
"""


async def test_exim_transport_filter() -> None:
    import sys

    with folder() as home:
        (home / "logins").write_text("shop-a: 1\nshop-b: 1\n")
        wrapper = home / "rewrite"
        wrapper.write_text(
            f"#!/bin/sh\nexport BRANDPROXY_DATA={home}/data\n"
            """export BRANDPROXY_MAIL_LOGINS='{"shop-a": "acme", "shop-b": "beta"}'\n"""
            f'exec {Path(sys.executable).parent}/brandproxy "$@"\n'
        )
        wrapper.chmod(0o755)
        changes = {"/usr/bin/brandproxy": str(wrapper), "/etc/exim4/brandproxy": f"{home}/logins"}
        text = (RECIPES / "exim.md").read_text()
        line = text[text.index("  transport_filter =") : text.index("  transport_filter_timeout")]
        for old, new in changes.items():
            line = line.replace(old, new)
        async with start_sink() as sink, two_tenants(home / "data", settings("exim.md", 0)):
            with exim(home, home / "data", sink=sink.port, filter=line, more=EXIM_LOGINS) as port:
                await check(port, sink, lies=("header", "all"))


async def test_exim_through_the_proxy() -> None:
    ports = {str(port): str(free_port()) for port in (8025, 8101, 8102, 10026)}
    with folder() as home:
        (home / "logins").write_text(lines("exim.md", "/etc/exim4/brandproxy", ports))
        router = lines("exim.md", "routers, first", ports)
        found = lines("exim.md", "transports", {**ports, "/etc/exim4/brandproxy": f"{home}/logins"}, at=1)
        proxy = found[found.index("  port = ") :].partition("\n")[0].removeprefix("  port = ")
        mail = settings("exim.md", 1, ports)
        mail |= {"smtp": f"127.0.0.1:{ports['8025']}", "next_hop": f"127.0.0.1:{ports['10026']}"}
        async with start_sink() as sink, two_tenants(home / "data", mail) as context, running(smtp.run, context):
            values = {"back": ports["10026"], "proxy": proxy, "whole_router": router, "more": EXIM_LOGINS}
            with exim(home, home / "data", sink=sink.port, **values) as port:
                await check(port, sink)


async def test_haraka(tmp_path: Path) -> None:
    proxy, back = free_port(), free_port()
    mail = settings("haraka.md", 0) | {"smtp": f"127.0.0.1:{proxy}", "next_hop": f"127.0.0.1:{back}"}
    with tempfile.TemporaryDirectory(prefix="brandproxy-haraka-") as name:
        home = Path(name)
        async with start_sink() as sink, two_tenants(home / "data", mail) as context, running(smtp.run, context):
            with haraka(home, proxy, back, sink.port) as port:
                await check(port, sink, as_hello=True)


def test_every_recipe_gives_settings_that_hold_and_trusts_nobody() -> None:
    for page in RECIPES.glob("*.md"):
        for at in range(page.read_text().count("# brandproxy.toml")):
            mail = Mail.model_validate(settings(page.name, at))
            grants = [*mail.logins.values(), *mail.listeners.values(), *mail.peers.values()]
            assert not any("*" in grant.tenants for grant in grants), page
