"""Whatever the next mail server says: each command gets its own reply or a clean failure, soon; no mail counts as
delivered that nobody took."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trustme

from brandproxy.filters import nexthop
from brandproxy.filters.nexthop import NextHop, NextHopAway, Reply
from brandproxy.model import Relay

TAKEN, NO = b"250 taken\r\n", b"554 no\r\n"
HELLO = {b"greeting": b"220 x\r\n", b"EHLO": b"250 x\r\n", b"MAIL": b"250 ok\r\n", b"RCPT": b"250 ok\r\n",
         b"DATA": b"354 go\r\n", b".": TAKEN, b"RSET": b"250 ok\r\n", b"QUIT": b"221 x\r\n"}  # fmt: skip

ENDLESS, SLOW = b"!endless ", b"!slow "


class Hop:
    """A next hop that says what `replies` has for the greeting, each verb and the final dot."""

    def __init__(self, replies: dict[bytes, bytes], tls: ssl.SSLContext | None = None) -> None:
        self.replies, self.tls = HELLO | replies, tls
        self.heard: list[bytes] = []
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            await self._say(writer, self.replies[b"greeting"])
            while line := await reader.readline():
                self.heard.append(line.rstrip())
                verb = line[:4].upper()
                if verb == b"STAR":
                    writer.write(self.replies[b"STARTTLS"])
                    await writer.drain()
                    assert self.tls is not None
                    await writer.start_tls(self.tls)
                    continue
                await self._say(writer, self.replies.get(verb, b"500 what\r\n"))
                if verb == b"DATA" and b"354" in self.replies[b"DATA"]:
                    await reader.readuntil(b"\r\n.\r\n")
                    await self._say(writer, self.replies[b"."])
        writer.close()

    async def _say(self, writer: asyncio.StreamWriter, reply: bytes) -> None:
        if reply.startswith(ENDLESS):
            while True:
                writer.write(reply.removeprefix(ENDLESS) * 100)
                await writer.drain()
        if reply.startswith(SLOW):
            for at in range(10_000):
                writer.write(reply.removeprefix(SLOW)[at : at + 1] or b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.write(reply)
        await writer.drain()


@asynccontextmanager
async def hopping(
    replies: dict[bytes, bytes], tls: str = "none", server_tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Hop, NextHop]]:
    hop = Hop(replies, server_tls)
    server = await asyncio.start_server(hop.talk, "127.0.0.1", 0)
    hop.port = server.sockets[0].getsockname()[1]
    way = NextHop(Relay("127.0.0.1", hop.port, tls=tls), "us.example")  # type: ignore[arg-type]
    try:
        yield hop, way
    finally:
        way.close()
        server.close()
        for task in hop.tasks:
            task.cancel()
        await asyncio.gather(*hop.tasks, return_exceptions=True)
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_CONNECT", "_COMMAND", "_FINAL"):
        monkeypatch.setattr(nexthop, name, 0.4)


async def send(way: NextHop, message: bytes = b"Subject: x\r\n\r\nhello\r\n") -> Reply:
    """A whole message; the reply that decided."""
    if not await way.ready():
        await way.open()
    for step in (lambda: way.mail("<a@acme.example>", ()), lambda: way.rcpt("<b@beta.example>", ())):
        reply = await step()
        if not reply.positive:
            return reply
    return await way.data(message)


# What the server says instead, and whether the message may be called delivered.
TABLE: dict[str, tuple[dict[bytes, bytes], bool]] = {
    "a surplus agreement to MAIL": ({b"MAIL": b"250 ok\r\n250 taken\r\n", b"RCPT": b"550 no\r\n"}, False),
    "a surplus agreement to RCPT": ({b"RCPT": b"250 ok\r\n354 go\r\n250 taken\r\n"}, False),
    "taken before the data": ({b"DATA": b"354 go\r\n" + TAKEN, b".": NO}, False),
    "taken instead of asked for": ({b"DATA": b"250 taken\r\n"}, False),
    "surplus behind the final reply": ({b".": b"250 taken\r\n250 taken too\r\n"}, True),
    "goodbye behind the final reply": ({b".": b"250 taken\r\n421 bye\r\n"}, True),
    "a flood of agreements": ({b"MAIL": b"250 ok\r\n" * 5000, b".": NO}, False),
    "a greeting with surplus": ({b"greeting": b"220 x\r\n250 ok\r\n250 ok\r\n" + TAKEN, b".": NO}, False),
    "an EHLO with surplus": ({b"EHLO": b"250 x\r\n250 ok\r\n250 ok\r\n354 go\r\n" + TAKEN, b".": NO}, False),
    "a reply of lines without end": ({b"MAIL": ENDLESS + b"250-ok\r\n"}, False),
    "a line without end": ({b"MAIL": ENDLESS + b"250 ok"}, False),
    "an EHLO without end": ({b"EHLO": ENDLESS + b"250-x\r\n"}, False),
    "a greeting without end": ({b"greeting": ENDLESS + b"220-x\r\n"}, False),
    "byte after byte": ({b"RCPT": SLOW + b"250 "}, False),
    "lines without end at the end": ({b".": ENDLESS + b"250-taken\r\n"}, False),
    "no reply": ({b"MAIL": b""}, False),
    "no final reply": ({b".": b""}, False),
    "half a reply": ({b".": b"250 tak"}, False),
    "a reply that goes on": ({b".": b"250-taken\r\n"}, False),
    "no number": ({b".": b"taken\r\n"}, False),
    "a number too long": ({b".": b"2500 taken\r\n"}, False),
    "a number too short": ({b".": b"25 taken\r\n"}, False),
    "a number out of range": ({b".": b"199 taken\r\n"}, False),
    "a number of other digits": ({b".": "２５０ taken\r\n".encode()}, False),
    "more to ask at the end": ({b".": b"354 go\r\n"}, False),
    "HTTP": ({b"greeting": b"HTTP/1.1 400 Bad Request\r\n\r\n"}, False),
    "lines that disagree": ({b".": b"250-taken\r\n554 no\r\n"}, False),
    "several lines": ({b".": b"250-taken\r\n250-really\r\n250 yes\r\n"}, True),
    "bare line feeds": ({b".": b"250-taken\n250 yes\n"}, True),
    "a bare number": ({b".": b"250\r\n"}, True),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
async def test_a_mail_is_delivered_only_when_its_own_reply_says_so(name: str) -> None:
    replies, good = TABLE[name]
    async with hopping(replies) as (_, way):
        start = time.monotonic()
        try:
            taken = (await send(way)).positive
        except NextHopAway:
            taken = False
        assert taken == good
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", TABLE)
async def test_the_next_mail_never_gets_an_older_reply(name: str) -> None:
    replies, _ = TABLE[name]
    async with hopping(replies) as (hop, way):
        with suppress(NextHopAway):
            await send(way)
        await asyncio.sleep(0.05)
        hop.replies = HELLO | {b"RCPT": b"550 5.1.1 the second has nobody here\r\n"}
        if not await way.ready():
            way.close()
            way = NextHop(way.relay, "us.example")
        assert (await send(way)).code == 550
        way.close()


async def test_what_is_said_while_nobody_asked_closes_the_connection() -> None:
    async with hopping({b".": b"250 taken\r\n"}) as (hop, way):
        assert (await send(way)).positive
        assert await way.ready()
        hop.replies[b"RSET"] = b"250 ok\r\n"
        writers = [task for task in hop.tasks if not task.done()]
        assert len(writers) == 1
        hop.replies[b"NOOP"] = b"250 ok\r\n250 for nobody\r\n"
        assert (await way.command("NOOP")).positive
        assert not way.connected
        assert not await way.ready()


async def test_an_agreement_to_a_message_that_was_not_read_is_not_believed() -> None:
    """The server answers at once and reads nothing more: our buffers are still full."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO[b"greeting"])
        for verb in (b"EHLO", b"MAIL", b"RCPT", b"DATA"):
            await reader.readline()
            writer.write(HELLO[verb])
        await reader.readline()
        writer.write(b"250 taken\r\n")
        with suppress(ConnectionError, asyncio.CancelledError):
            await writer.drain()
            await asyncio.sleep(1)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=1024)
    async with server:
        way = NextHop(Relay("127.0.0.1", server.sockets[0].getsockname()[1], tls="none"), "us.example")
        with pytest.raises(NextHopAway):
            await send(way, b"Subject: x\r\n\r\n" + b"line\r\n" * 5_000_000)
        assert not way.connected
    await asyncio.sleep(1.1)


INJECTED: dict[str, Callable[[bytes], bytes]] = {
    "in one write": lambda ready: ready + b"250-x\r\n250-AUTH PLAIN\r\n250 XCLIENT LOGIN\r\n",
    "a line": lambda ready: ready + b"250 evil\r\n",
}


@pytest.mark.parametrize("how", INJECTED)
@pytest.mark.parametrize("tls", ["opportunistic", "required"])
async def test_nothing_said_before_starttls_is_believed_behind_it(how: str, tls: str) -> None:
    """CVE-2011-0411 and its kin: bytes in the clear behind the 220 are not the encrypted server's."""
    ca = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(server_tls)
    replies = {b"EHLO": b"250-x\r\n250 STARTTLS\r\n", b"STARTTLS": INJECTED[how](b"220 go\r\n")}
    async with hopping(replies, tls, server_tls) as (hop, way):
        try:
            await way.open()
        except NextHopAway:
            return  # refusing is right; with "required" nobody vouches for this certificate
        assert tls == "opportunistic"
        assert not way.offers("auth")
        assert not way.offers("xclient")
        hop.replies[b"RCPT"] = b"550 no\r\n"
        assert (await send(way)).code == 550


async def test_tenants_share_no_connection_to_the_same_relay() -> None:
    relay = Relay("127.0.0.1", 25, tls="none")
    way = NextHop(relay, "us.example", owner="acme")
    assert way.belongs("acme", Relay("127.0.0.1", 25, tls="none"))
    assert not way.belongs("beta", relay)
    assert not way.belongs("", relay)
