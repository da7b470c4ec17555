"""Protocol paths over a socket: wrong order and odd packets by PyPI's miltertest, whole sessions by Debian's."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from miltertest import MilterConnection, constants

from brandproxy.context import Context
from brandproxy.filters import milter
from tests.conftest import need_program
from tests.filters.conftest import HTML, installation, running
from tests.filters.test_milter import BRANDED, CONTINUE, Replies, body_of, converse, envelope, headers, tell


@pytest.fixture
async def context(tmp_path: Path, port: int) -> AsyncIterator[Context]:
    async with installation(tmp_path, milter=f"127.0.0.1:{port}") as context, running(milter.run, context):
        yield context


@pytest.mark.parametrize("cut", [constants.SMFIC_ABORT, constants.SMFIC_QUIT_NC])
@pytest.mark.parametrize("steps", range(5))
async def test_a_message_may_be_dropped_after_any_step(context: Context, port: int, steps: int, cut: str) -> None:
    def work(server: MilterConnection) -> Replies:
        said = (
            lambda: server.send(constants.SMFIC_MAIL, args=["<other@example.net>"]),
            lambda: server._send(constants.SMFIC_RCPT, args=["<c@example.org>"]),
            lambda: headers(server, b"X-Brandproxy-Campaign: other\r\n" + HTML),
            lambda: server.send_get(constants.SMFIC_EOH),
            lambda: server._send(constants.SMFIC_BODY, buf="of another message"),
        )
        for say in said[: steps + 1]:
            say()
        server._send(cut)
        return tell(server)

    replies = await converse(port, work)
    assert BRANDED in body_of(replies)
    assert "of another message" not in body_of(replies)
    assert replies[-1][0] == CONTINUE


async def test_a_body_after_the_end_is_no_part_of_anything(context: Context, port: int) -> None:
    def work(server: MilterConnection) -> object:
        assert BRANDED in body_of(tell(server))
        server._send(constants.SMFIC_BODY, buf="more")
        return server._recv(eof_ok=True)

    assert await converse(port, work) is None


async def test_commands_of_smtp_that_we_do_not_know_do_not_disturb(context: Context, port: int) -> None:
    """Told although we asked not to hear of them: answered, and the message goes on."""

    def work(server: MilterConnection) -> Replies:
        server.sock.sendall(b"\0\0\0\7UXYZZY\0")
        assert server._recv()[0] == CONTINUE
        envelope(server, "news@acme.example")
        server.sock.sendall(b"\0\0\0\7UXYZZY\0")
        assert server._recv()[0] == CONTINUE
        server._send(constants.SMFIC_ABORT)
        return tell(server)

    assert BRANDED in body_of(await converse(port, work))


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_packets_may_arrive_in_any_pieces(context: Context, port: int, size: int) -> None:
    def packet(command: bytes, content: bytes = b"") -> bytes:
        return struct.pack("!I", 1 + len(content)) + command + content

    offer = packet(b"O", struct.pack("!III", 6, 0x1FF, 0x1FFFFF))
    head, _, body = HTML.partition(b"\r\n\r\n")
    fields = b"".join(packet(b"L", b"%s\0%s\0" % tuple(line.split(b":", 1))) for line in head.split(b"\r\n"))
    whole = packet(b"M", b"<news@acme.example>\0") + packet(b"R", b"<b@example.org>\0") + fields
    whole += packet(b"N") + packet(b"B", body[:5]) + packet(b"B", body[5:]) + packet(b"E") + packet(b"Q")

    def run() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(offer + whole), size):
                sock.sendall((offer + whole)[at : at + size])
                time.sleep(0.001)
            with sock.makefile("rb") as file:
                return file.read()

    answer = await asyncio.to_thread(run)
    assert BRANDED.encode() in answer
    assert answer.endswith(packet(b"c"))


async def test_a_server_that_dies_in_mid_message_leaves_nothing_behind(context: Context, port: int) -> None:
    def work(server: MilterConnection) -> None:
        envelope(server, "news@acme.example")
        headers(server, HTML)

    for _ in range(3):
        await converse(port, work)
    assert BRANDED in body_of(await converse(port, tell))


START = """
conn = mt.connect("inet:%d@127.0.0.1")
if conn == nil then error "no connection" end
function wanted(what, reply) if mt.getreply(conn) ~= reply then error(what .. ": " .. mt.getreply(conn)) end end
function whole()
    mt.macro(conn, SMFIC_MAIL, "i", "4ABC")
    mt.mailfrom(conn, "<news@acme.example>")
    wanted("mail", SMFIR_CONTINUE)
    mt.rcptto(conn, "<b@example.org>")
    mt.header(conn, "Content-Type", " text/html")
    mt.eoh(conn)
    wanted("eoh", SMFIR_CONTINUE)
    mt.bodystring(conn, '<a href="https://acme.example/">x</a>\\r\\n')
    mt.eom(conn)
    wanted("eom", SMFIR_CONTINUE)
    if not mt.eom_check(conn, MT_BODYCHANGE) then error "body unchanged" end
end
"""
SESSIONS = {
    "a server that leaves nothing out": """
mt.negotiate(conn, 6, 0, 0x1FF) -- its third argument is the steps, its fourth the actions
mt.conninfo(conn, "localhost", "127.0.0.1")
wanted("connect", SMFIR_CONTINUE)
mt.helo(conn, "client.example")
wanted("helo", SMFIR_CONTINUE)
mt.unknown(conn, "XYZZY")
wanted("unknown", SMFIR_CONTINUE)
mt.mailfrom(conn, "<news@acme.example>")
wanted("mail", SMFIR_CONTINUE)
mt.rcptto(conn, "<b@example.org>")
wanted("rcpt", SMFIR_CONTINUE)
mt.data(conn)
wanted("data", SMFIR_CONTINUE)
mt.header(conn, "Content-Type", "text/html")
wanted("header", SMFIR_CONTINUE)
mt.eoh(conn)
wanted("eoh", SMFIR_CONTINUE)
mt.bodystring(conn, '<a href="https://acme.example/">x</a>\\r\\n')
wanted("body", SMFIR_CONTINUE)
mt.eom(conn)
wanted("eom", SMFIR_CONTINUE)
if not mt.eom_check(conn, MT_BODYCHANGE) then error "body unchanged" end
""",
    "messages and aborts in turn": """
mt.negotiate(conn, nil, nil, nil)
whole()
mt.mailfrom(conn, "<news@acme.example>")
mt.abort(conn)
whole()
mt.mailfrom(conn, "<news@acme.example>")
mt.rcptto(conn, "<b@example.org>")
mt.header(conn, "Content-Type", " text/html")
mt.eoh(conn)
mt.abort(conn)
whole()
""",
    "a message that is nobody's": """
mt.negotiate(conn, nil, nil, nil)
mt.mailfrom(conn, "<a@example.net>")
wanted("mail", SMFIR_CONTINUE)
mt.rcptto(conn, "<b@example.org>")
mt.header(conn, "From", " a@example.net")
mt.eoh(conn)
wanted("eoh", SMFIR_ACCEPT)
""",
    "the null sender, no header, no body": """
mt.negotiate(conn, nil, nil, nil)
mt.mailfrom(conn, "<>")
wanted("mail", SMFIR_CONTINUE)
mt.rcptto(conn, "<b@example.org>")
mt.eoh(conn)
wanted("eoh", SMFIR_ACCEPT)
whole()
""",
}


@pytest.mark.parametrize("name", SESSIONS)
async def test_debians_miltertest_agrees(context: Context, port: int, tmp_path: Path, name: str) -> None:
    program = need_program("miltertest", "miltertest")
    script = tmp_path / "test.lua"
    script.write_text(START % port + SESSIONS[name] + "mt.disconnect(conn)\n")
    done = await asyncio.to_thread(
        subprocess.run, [program, "-s", str(script)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
