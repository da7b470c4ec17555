"""Every way in × every lie: whoever is not acme gets no link of acme and nothing through acme's relay.

The mail servers' own recipes are run in `test_identity_recipes`.
"""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from miltertest import MilterConnection, constants
from starlette.applications import Starlette

from brandproxy import access, web
from brandproxy.context import Context
from brandproxy.errors import BrandproxyError
from brandproxy.filters import http, milter, smtp
from brandproxy.model import HostState, Relay
from tests.conftest import free_port
from tests.filters.conftest import installation, running
from tests.filters.mta import Sink, start_sink
from tests.filters.test_balanced import v1, v2
from tests.filters.test_milter import body_of, tell

ACME, BETA = b"https://links.acme.example/", b"https://links.beta.example/"
TRUTH = (b"", "news@beta.example", "news@beta.example")
LIES = {
    "header": (b"X-Brandproxy-Tenant: acme\r\n", "news@beta.example", "news@beta.example"),
    "headers": (b"x-brandproxy-tenant: acme\r\nX-Brandproxy-Tenant: acme\r\n", *TRUTH[1:]),
    "envelope": (b"", "news@acme.example", "news@beta.example"),
    "author": (b"", "news@beta.example", "news@acme.example"),
    "authors": (b"", "news@beta.example", "news@beta.example, news@acme.example"),
    "bounce": (b"", "", "news@acme.example"),
    "all": (b"X-Brandproxy-Tenant: acme\r\n", "news@acme.example", "news@acme.example"),
}  # fmt: skip


@dataclass
class Stage:
    context: Context
    sink: Sink
    relay: Sink  # acme's own
    ports: dict[str, int]
    trust: ssl.SSLContext

    async def arrived(self, work: Callable[[], object]) -> bytes:
        """What reached the next hop by `work`; nothing reached acme's relay."""
        await asyncio.to_thread(work)
        assert self.relay.connections == 0
        return b"".join(mail.message for mail in self.sink.received)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "mail.pem")
    ports = {name: free_port() for name in ("smtp", "lmtp", "class", "milter", "milter-class")}
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    async with start_sink() as sink, start_sink() as relay:
        mail: dict[str, Any] = {
            "smtp": at["smtp"], "lmtp": at["lmtp"], "milter": at["milter"], "next_hop": f"127.0.0.1:{sink.port}",
            "listeners": {f"smtp:{at['class']}": "beta", f"milter:{at['milter-class']}": "beta"},
            "logins": {"shop-a": "acme", "shop-b": "beta", "*@beta.example": "beta"},
            "peers": {"192.0.2.0/24": "beta"},
            "xclient_networks": ("127.0.0.1",), "certificate": tmp_path / "mail.pem",
        }  # fmt: skip
        async with installation(tmp_path / "data", **mail) as context:
            await context.registry.add_tenant("beta")
            await context.registry.add_host("links.beta.example", "beta")
            await context.registry.set_host_state("links.beta.example", HostState.LIVE, "test")
            onward = Relay("127.0.0.1", relay.port, "none")
            await context.registry.change_tenant("acme", lambda t: replace(t, relay=onward), "tenant.relay")
            await context.directory.load(context.store)
            async with running(smtp.run, context), running(milter.run, context):
                yield Stage(context, sink, relay, ports, trust)


def message(said: tuple[bytes, str, str]) -> bytes:
    return (
        said[0]
        + (
            f"From: {said[2]}\r\nTo: b@example.org\r\nContent-Type: text/html\r\n\r\n"
            '<p><a href="https://acme.example/spring">Spring</a></p>\r\n'
        ).encode()
    )


def say(
    port: int, said: tuple[bytes, str, str], *before: bytes, hello: bytes = b"EHLO x", first: bytes = b""
) -> None:
    """One mail; what is refused is not sent."""
    envelope = (hello, b"MAIL FROM:<%s>" % said[1].encode(), b"RCPT TO:<b@example.org>", b"DATA")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock, sock.makefile("rb") as file:
        sock.sendall(first)
        for command in (b"", *before, *envelope, message(said) + b"."):
            sock.sendall(command + b"\r\n" if command else b"")
            while (line := file.readline())[3:4] == b"-":
                pass
            if line[:1] not in b"23":
                return


def with_key(stage: Stage, key: str, said: tuple[bytes, str, str]) -> None:
    with smtplib.SMTP("localhost", stage.ports["smtp"], timeout=20) as client:
        client.starttls(context=stage.trust)
        client.login("acme", key)
        client.sendmail(said[1], ["b@example.org"], message(said))


async def key_of(stage: Stage, tenant: str | None) -> str:
    return (await access.create_key(stage.context.store, tenant))[1]


def by_smtp(port: str, *before: bytes, **options: Any) -> Callable[..., Awaitable[bytes]]:
    async def way(stage: Stage, said: tuple[bytes, str, str]) -> bytes:
        return await stage.arrived(lambda: say(stage.ports[port], said, *before, **options))

    return way


def by_milter(port: str, login: str = "") -> Callable[..., Awaitable[bytes]]:
    async def way(stage: Stage, said: tuple[bytes, str, str]) -> bytes:
        def ask() -> str:
            with socket.create_connection(("127.0.0.1", stage.ports[port]), timeout=10) as sock:
                server = MilterConnection(sock)
                server.optneg_mta(actions=constants.SMFI_V2_ACTS)
                if login:
                    server.send_macro(constants.SMFIC_MAIL, **{"{auth_authen}": login})
                return body_of(tell(server, message(said), sender=said[1]))

        return (await asyncio.to_thread(ask)).encode()

    return way


async def by_key(stage: Stage, said: tuple[bytes, str, str]) -> bytes:
    key = await key_of(stage, "beta")

    def send() -> None:
        try:
            with_key(stage, key, said)
        except smtplib.SMTPResponseException:
            pass

    return await stage.arrived(send)


async def by_http(stage: Stage, said: tuple[bytes, str, str]) -> bytes:
    app = Starlette(routes=http.routes(stage.context), exception_handlers={BrandproxyError: web.on_error})
    app.state.context = stage.context
    headers = {"Authorization": f"Bearer {await key_of(stage, 'beta')}", "Content-Type": "message/rfc822"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://x", headers=headers
    ) as client:
        named = await client.post("/v1/rewrite", content=message(said), params={"tenant": "acme"})
        assert named.status_code == 404
        return (await client.post("/v1/rewrite", content=message(said))).content


def by_pipe(login: str) -> Callable[..., Awaitable[bytes]]:
    async def way(stage: Stage, said: tuple[bytes, str, str]) -> bytes:
        settings = stage.context.settings
        environment = {
            "BRANDPROXY_DATA": str(settings.data), "PATH": "/usr/bin:/bin",
            "BRANDPROXY_MAIL_LOGINS": '{"shop-a": "acme", "shop-b": "beta", "*@beta.example": "beta"}',
        }  # fmt: skip
        call = [sys.executable, "-m", "brandproxy", "rewrite", f"--login={login}"]
        done = await asyncio.to_thread(
            subprocess.run, call, input=message(said), capture_output=True, env=environment, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return way


STRANGER = b"XCLIENT ADDR=198.51.100.7"
BETAS = {
    "xclient login": by_smtp("smtp", b"EHLO x", b"XCLIENT ADDR=198.51.100.7 LOGIN=shop-b"),
    "xclient login@domain": by_smtp("smtp", b"EHLO x", b"XCLIENT LOGIN=shop-b@beta.example"),
    "xclient network": by_smtp("smtp", b"EHLO x", b"XCLIENT ADDR=192.0.2.7"),
    "lmtp xclient": by_smtp("lmtp", b"LHLO x", b"XCLIENT LOGIN=shop-b", hello=b"LHLO x"),
    "listener": by_smtp("class"),
    "key": by_key,
    "http key": by_http,
    "milter login": by_milter("milter", "shop-b"),
    "milter login@domain": by_milter("milter", "shop-b@beta.example"),
    "milter listener": by_milter("milter-class"),
}
NOBODYS = {
    "no login": by_smtp("smtp"),
    "lmtp no login": by_smtp("lmtp", hello=b"LHLO x"),
    "unlisted login": by_smtp("smtp", b"EHLO x", b"XCLIENT LOGIN=acme"),
    "login like a domain": by_smtp("smtp", b"EHLO x", b"XCLIENT LOGIN=acme.example"),
    "unlisted login at a listener": by_smtp("class", b"EHLO x", b"XCLIENT LOGIN=stranger"),
    "stranger by xclient": by_smtp("smtp", b"EHLO x", STRANGER),
    "milter no login": by_milter("milter"),
    "milter unlisted login": by_milter("milter", "acme"),
    "milter login like a domain": by_milter("milter", "acme.example"),
    "milter login like an address": by_milter("milter", "news@acme.example"),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("way", BETAS)
async def test_who_is_beta_is_never_acme(stage: Stage, way: str, lie: str) -> None:
    assert ACME not in await BETAS[way](stage, LIES[lie])


@pytest.mark.parametrize("way", BETAS)
async def test_who_is_beta_is_beta(stage: Stage, way: str) -> None:
    assert BETA in await BETAS[way](stage, TRUTH)


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("way", NOBODYS)
async def test_who_is_nobody_is_nobody(stage: Stage, way: str, lie: str) -> None:
    found = await NOBODYS[way](stage, LIES[lie])
    assert ACME not in found
    assert BETA not in found
    assert b"X-Brandproxy" not in found


@pytest.mark.parametrize("login", ["shop-b", "shop-b@beta.example", "", "acme.example", "--tenant=acme"])
async def test_the_pipe_asks_who_logged_in(stage: Stage, login: str) -> None:
    found = await by_pipe(login)(stage, LIES["all"])
    assert ACME not in found
    assert b"X-Brandproxy" not in found
    if login.startswith("shop-b"):
        assert BETA in await by_pipe(login)(stage, TRUTH)


async def test_a_relay_carries_its_own_tenants_mail(stage: Stage) -> None:
    said = (b"", "news@acme.example", "news@acme.example")
    await asyncio.to_thread(say, stage.ports["smtp"], said, b"EHLO x", b"XCLIENT LOGIN=shop-a")
    key = await key_of(stage, "acme")
    await asyncio.to_thread(with_key, stage, key, said)
    assert [ACME in mail.message for mail in stage.relay.received] == [True, True]
    assert stage.sink.received == []


@pytest.mark.parametrize(
    ("said", "code"), [(LIES["envelope"], 553), (LIES["author"], 550), (LIES["authors"], 550)]
)
async def test_a_key_that_sends_as_another_is_told_so(
    stage: Stage, said: tuple[bytes, str, str], code: int
) -> None:
    with pytest.raises(smtplib.SMTPResponseException) as error:
        await asyncio.to_thread(with_key, stage, await key_of(stage, "beta"), said)
    assert error.value.smtp_code == code
    assert stage.sink.received == []


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("first", [v1("198.51.100.7"), v2("2001:db8::7"), v1("192.0.2.7")])
async def test_a_balancer_makes_nobody_acme(tmp_path: Path, first: bytes, lie: str) -> None:
    port = free_port()
    async with start_sink() as sink:
        mail: dict[str, Any] = {
            "smtp": f"127.0.0.1:{port}", "next_hop": f"127.0.0.1:{sink.port}", "proxy_networks": ("127.0.0.1",),
            "listeners": {}, "peers": {"192.0.2.0/24": "beta"}, "xclient_networks": ("127.0.0.1",),
        }  # fmt: skip
        async with installation(tmp_path, **mail) as context, running(smtp.run, context):
            await asyncio.to_thread(say, port, LIES[lie], first=first)
        assert not any(ACME in mail.message for mail in sink.received)
        assert len(sink.received) == (1 if b"192.0.2.7" in first else 0)
