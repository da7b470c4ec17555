"""Behind a TCP balancer the client is who its PROXY header names, and coming from the balancer gives no right."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme
from miltertest import MilterConnection, constants

from brandproxy import config
from brandproxy.core import proxyprotocol
from brandproxy.errors import BadInput, BadSettings
from brandproxy.filters import milter, smtp
from brandproxy.filters.peers import check
from tests.conftest import free_port
from tests.filters.conftest import HTML, installation, running
from tests.filters.mta import start_sink
from tests.filters.test_milter import body_of, tell

T = TypeVar("T")
BRANDED = b"https://links.acme.example/c/"
STRANGER, OURS = "198.51.100.7", "192.0.2.9"


def v1(source: str) -> bytes:
    return f"PROXY TCP{ip_address(source).version} {source} {source} 50000 25\r\n".encode()


def v2(source: str, command: int = 0x21) -> bytes:
    packed = ip_address(source).packed
    rest = packed * 2 + struct.pack("!HH", 50000, 25) + b"\x04\x00\x03abc"  # with a TLV (§2.2.7)
    family = 0x11 if len(packed) == 4 else 0x21
    return b"\r\n\r\n\x00\r\nQUIT\n" + bytes((command, family)) + struct.pack("!H", len(rest)) + rest


def smtp_talk(port: int, first: bytes, *commands: bytes) -> list[bytes]:
    """Replies to the greeting and each command, in a connection that starts with `first`; b"" when closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock, sock.makefile("rb") as file:
        sock.sendall(first)
        found = []
        try:
            for command in (b"", *commands):
                sock.sendall(command + b"\r\n" if command else b"")
                lines = [file.readline()]
                while lines[-1][3:4] == b"-":
                    lines.append(file.readline())
                found.append(b"".join(lines))
        except OSError:
            found.append(b"")
        return found


MAIL = (b"EHLO x", b"MAIL FROM:<news@acme.example>")
BEHIND: dict[str, Any] = {
    "proxy_networks": ("127.0.0.0/8",),
    "networks": ("127.0.0.0/8", "192.0.2.0/24"),
    "xclient_networks": ("192.0.2.0/24",),
    "peers": {"192.0.2.0/24": "acme"},
    "listeners": {},
}


@pytest.mark.parametrize("header", [v1, v2])
async def test_a_stranger_behind_the_balancer_relays_nothing_and_names_nobody(
    tmp_path: Path, header: Callable[[str], bytes]
) -> None:
    ports = free_port(), free_port()
    async with start_sink() as sink:
        listeners = {"smtp": f"127.0.0.1:{ports[0]}", "lmtp": f"127.0.0.1:{ports[1]}"}
        mail = {**BEHIND, **listeners, "next_hop": f"127.0.0.1:{sink.port}"}
        async with installation(tmp_path, **mail) as context, running(smtp.run, context):
            for port, hello in zip(ports, (b"EHLO x", b"LHLO x"), strict=True):
                for stranger in (STRANGER, "2001:db8::7"):
                    said = await asyncio.to_thread(
                        smtp_talk, port, header(stranger), hello, MAIL[1], b"XCLIENT ADDR=127.0.0.1 LOGIN=acme"
                    )
                    assert [reply[:3] for reply in said] == [b"220", b"250", b"530", b"550"]
                    assert b"XCLIENT" not in said[1]
                    assert b"XFORWARD" not in said[1]
                said = await asyncio.to_thread(smtp_talk, port, header(OURS), hello, MAIL[1])
                assert [reply[:3] for reply in said] == [b"220", b"250", b"250"]
                assert b"XCLIENT" in said[1]
            rest = (*MAIL, b"RCPT TO:<b@example.org>", b"DATA", HTML + b".")
            assert (await asyncio.to_thread(smtp_talk, ports[0], header(OURS), *rest))[-1][:3] == b"250"
    assert BRANDED in sink.received[0].message


@pytest.mark.parametrize(
    "first",
    [
        b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n", v2("127.0.0.1", 0x20),
        v1(STRANGER) + v1("127.0.0.1"), v2(STRANGER) + v2("127.0.0.1"), b"EHLO x\r\n" * 4,
        b"PROXY TCP4 127.0.0.1\r\n", b"PROXY TCP4 ::1 ::1 1 1\r\n", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1 1\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\n",
        b"PROXY " + b"x" * 200 + b"\r\n", b"QUIT\r\n\r\n\r\n\r\n\r\n\r\n",
    ],
)  # fmt: skip
async def test_what_is_no_clients_address_gives_no_right(tmp_path: Path, first: bytes) -> None:
    port = free_port()
    async with start_sink() as sink:
        mail = {**BEHIND, "smtp": f"127.0.0.1:{port}", "next_hop": f"127.0.0.1:{sink.port}"}
        async with installation(tmp_path, **mail) as context, running(smtp.run, context):
            said = await asyncio.to_thread(smtp_talk, port, first, *MAIL, MAIL[1])
            assert not any(reply.startswith(b"250 2.1.0") or b"XCLIENT" in reply for reply in said)
    assert sink.connections == 0


async def test_a_header_from_who_is_no_balancer_is_not_read(tmp_path: Path) -> None:
    port = free_port()
    async with start_sink() as sink:
        mail = {
            **BEHIND, "proxy_networks": ("192.0.2.1",), "networks": ("192.0.2.0/24",), "smtp": f"127.0.0.1:{port}",
            "next_hop": f"127.0.0.1:{sink.port}",
        }  # fmt: skip
        async with installation(tmp_path, **mail) as context, running(smtp.run, context):
            said = await asyncio.to_thread(smtp_talk, port, v1(OURS), *MAIL, b"NOOP")
            assert [reply[:3] for reply in said[1:]] == [b"500", b"250", b"530"]


async def test_implicit_tls_stands_behind_the_header_and_alone(tmp_path: Path) -> None:
    """RFC 8314 §3.3: logging in is offered at once, STARTTLS is not."""
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "mail.pem")

    def talk(port: int, first: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(first)
            with trust.wrap_socket(sock, server_hostname="localhost") as tls:
                assert tls.recv(1000).startswith(b"220")
                tls.sendall(b"EHLO x\r\n")
                return tls.recv(1000)

    for first, networks in ((v2(STRANGER), ("127.0.0.1",)), (b"", ())):
        port = free_port()
        mail = {
            **BEHIND, "smtp": "", "smtps": f"127.0.0.1:{port}", "certificate": tmp_path / "mail.pem",
            "proxy_networks": networks,
        }  # fmt: skip
        async with installation(tmp_path / str(port), **mail) as context, running(smtp.run, context):
            said = await asyncio.to_thread(talk, port, first)
            assert b"AUTH LOGIN PLAIN" in said
            assert b"STARTTLS" not in said


@pytest.mark.parametrize("header", [v1, v2])
async def test_the_milter_answers_its_mail_servers_only(
    tmp_path: Path, port: int, header: Callable[[str], bytes]
) -> None:
    def ask(first: bytes) -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(first)
            server = MilterConnection(sock)
            server.optneg_mta(actions=constants.SMFI_V2_ACTS)
            server.send_macro(constants.SMFIC_MAIL, **{"{auth_authen}": "shop"})
            return body_of(tell(server))

    mail = {
        "milter": f"127.0.0.1:{port}", "logins": {"shop": "acme"}, "listeners": {},
        "proxy_networks": ("127.0.0.1",), "milter_networks": ("192.0.2.0/24",),
    }  # fmt: skip
    async with installation(tmp_path, **mail) as context, running(milter.run, context):
        assert BRANDED.decode() in await asyncio.to_thread(ask, header(OURS))
        for first in (header(STRANGER), b""):
            with pytest.raises((OSError, ValueError, AssertionError, Exception)):
                await asyncio.to_thread(ask, first)


@pytest.mark.parametrize("where", ["0.0.0.0:8025", "[::]:8025", "192.0.2.1:8025", "mail.example:25"])
def test_an_open_listener_beside_trust_in_loopback_does_not_start(where: str) -> None:
    for setting in ("smtp", "smtps", "lmtp"):
        with pytest.raises(BadSettings, match=r"mail\.networks"):
            check(config.Mail.model_validate({setting: where}))
    with pytest.raises(BadSettings, match=r"mail\.networks"):
        check(config.Mail.model_validate({"listeners": {f"smtp:{where}": "*"}}))
    with pytest.raises(BadSettings, match=r"mail\.milter_networks"):
        check(config.Mail.model_validate({"milter": where}))
    check(config.Mail.model_validate({"smtp": where, "networks": ("10.0.0.0/8",)}))
    check(config.Mail.model_validate({"smtp": where, "proxy_networks": ("127.0.0.1",)}))
    check(config.Mail.model_validate({"milter": where, "milter_networks": ("10.0.0.0/8",)}))
    check(config.Mail.model_validate({"smtp": "localhost:25", "lmtp": "unix:/run/x", "milter": "[::1]:8891"}))


@pytest.mark.parametrize(
    "line", [v1(STRANGER)[:-1], v1(STRANGER).replace(b"TCP4", b"TCP6"), b"PROXY\r\n", b"x\r\n"]
)
def test_a_line_that_is_no_version_1_header_is_refused(line: bytes) -> None:
    assert proxyprotocol.line_source(v1("2001:db8::7")) == "2001:db8::7"
    with pytest.raises(BadInput):
        proxyprotocol.line_source(line)
