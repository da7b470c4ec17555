"""docs/recipes/haraka.md, run: Haraka, our proxy, Haraka again on its other port, and out."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brandproxy.filters import smtp
from tests.conftest import free_port, need_program, npm_packages
from tests.filters.conftest import HTML, LINK, installation, running
from tests.filters.mta import foreground, send, start_sink
from tests.filters.recipes import lines

HERE = Path(__file__).parent
BRANDED = b"https://links.acme.example/c/"
COUNT = 5
LONG = b"<p>" + b"a very long line, " * 200 + b"</p>\r\n"

# What stands around the recipe in an installation: who may send and as whom, and where outbound delivers.
AROUND = """\
exports.hook_ehlo = (next, connection, name) => {
  connection.notes.auth_user = /^(shop|stranger|client)/.test(name) ? name : 'shop-a'
  next()
}
exports.hook_connect_init = (next, connection) => { connection.relaying = true; next() }
exports.hook_get_mx = (next) => next(OK, { priority: 0, exchange: '127.0.0.1', port: %d })
"""


def furnish(home: Path, shipped: Path, ports: dict[str, str], sink: int) -> None:
    """An installation as `haraka -i` makes it, with the recipe's lines."""
    for folder in ("config", "plugins", "queue"):
        (home / folder).mkdir()
    for name in ("config/smtp.ini", "config/plugins", "config/smtp_forward.ini", "plugins/brandproxy.js"):
        (home / name).write_text(lines("haraka.md", name, ports))
    limits = (shipped / "config" / "connection.ini").read_text()
    longer = lines("haraka.md", "config/connection.ini", {})
    limits, found = re.subn(r"^data_line_length=.*\n", longer, limits, flags=re.M)
    assert found == 1
    (home / "config" / "connection.ini").write_text(limits)
    (home / "config" / "outbound.ini").write_text("enable_tls=false\n")
    (home / "config" / "me").write_text("mta.example\n")
    with open(home / "config" / "plugins", "a") as plugins:
        plugins.write("around\n")
    (home / "plugins" / "around.js").write_text(AROUND % sink)


@contextmanager
def haraka(home: Path, proxy: int, back: int, sink: int) -> Iterator[int]:
    shipped, port = npm_packages(HERE / "haraka") / "Haraka", free_port()
    node = need_program("node", "npm")
    furnish(home, shipped, {"0.0.0.0:587": f"127.0.0.1:{port}", "10026": str(back), "8025": str(proxy)}, sink)
    with foreground([node, shipped / "bin" / "haraka", "-c", home], home, port, back, seconds=30):
        yield port


async def test_haraka_there_and_back() -> None:
    proxy, back = free_port(), free_port()
    settings = {"smtp": f"127.0.0.1:{proxy}", "next_hop": f"127.0.0.1:{back}"}
    with tempfile.TemporaryDirectory(prefix="brandproxy-haraka-") as name:
        home = Path(name)
        async with (
            start_sink() as sink,
            installation(home / "data", **settings) as context,
            running(smtp.run, context),
        ):
            with haraka(home, proxy, back, sink.port) as port:
                for number in range(COUNT):
                    await asyncio.to_thread(
                        send, port, "news@acme.example", [f"{number}@example.org"], HTML + LONG
                    )
                received = await sink.until(COUNT, 40)
            assert sorted(mail.recipients[0] for mail in received) == [f"{n}@example.org" for n in range(COUNT)]
            assert all(BRANDED in mail.message and LINK not in mail.message for mail in received)
            assert all(mail.message.endswith(b"</p>\r\n" + LONG) for mail in received)
