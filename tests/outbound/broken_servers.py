"""HTTP servers that break the rules, as a table; every client of ours is shown all of them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
EVIL = b"evil"  # no client may ever take this for (a part of) an answer
GOOD = OK + b"content-length: 4\r\n\r\ngood"
STOLEN = OK + b"cache-control: immutable\r\ncontent-length: 4\r\n\r\n" + EVIL

SLOW = "slow"  # in place of bytes: one byte at a time for ever
FLOOD = "flood"  # the bytes behind it for ever
RESET = "reset"


@dataclass(frozen=True)
class Broken:
    """`script`: what is written behind the head of a request; after it the connection stays open unless `close`.

    `good`: the answer before what is too much is whole and may be believed; otherwise the request has to fail.
    `early`: written as soon as somebody connects. `own`: its own tenant's later requests to this very server may
    get what it sends, since nothing tells the two apart on the wire.
    """

    script: tuple[bytes | str, ...]
    good: bool = False
    close: bool = False
    early: bool = False
    own: bool = False


TABLE = {
    "surplus bytes": Broken((GOOD + b"evil" * 9,), good=True),
    "surplus bytes a little later": Broken((GOOD, b"evil" * 9), good=True),
    "two responses in one write": Broken((GOOD + STOLEN,), good=True),
    "two responses in two writes": Broken((GOOD, STOLEN), good=True, own=True),
    "a hundred responses": Broken((GOOD + STOLEN * 100,), good=True),
    "bytes behind the last chunk": Broken(
        (CHUNKED + b"4\r\ngood\r\n0\r\n\r\n" + STOLEN,), good=True
    ),
    "surplus line ends": Broken((GOOD + b"\r\n\r\n",), good=True),
    "a response before the request": Broken((STOLEN,), early=True, own=True),
    "204 with a body": Broken((b"HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n" + STOLEN,), good=True),
    "304 with a body": Broken((b"HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n" + STOLEN,), good=True),
    "short body": Broken((OK + b"content-length: 100\r\n\r\nevil",), close=True),
    "short chunk": Broken((CHUNKED + b"64\r\nevil",), close=True),
    "no last chunk": Broken((CHUNKED + b"4\r\nevil\r\n",), close=True),
    "nothing": Broken((), close=True),
    "half a head": Broken((b"HTTP/1.1 200 OK\r\ncontent-le",), close=True),
    "reset midway": Broken((OK + b"content-length: 100\r\n\r\nevil", RESET)),
    "reset of a body without length": Broken((OK + b"\r\nevil", RESET)),
    "silence": Broken(()),
    "silence midway": Broken((OK + b"content-length: 100\r\n\r\nevil",)),
    "slow head": Broken((SLOW, b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000)),
    "100 for ever": Broken((FLOOD, b"HTTP/1.1 100 Continue\r\n\r\n")),
    "103 for ever": Broken((FLOOD, b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")),
    "headers for ever": Broken((OK, FLOOD, b"x-a: b\r\n")),
    "one header for ever": Broken((OK + b"x: ", FLOOD, b"y" * 4096)),
    "status line for ever": Broken((b"HTTP/1.1 200 ", FLOOD, b"O" * 4096)),
    "trailers for ever": Broken((CHUNKED + b"4\r\nevil\r\n0\r\n", FLOOD, b"x: y\r\n")),
    "chunk extension for ever": Broken((CHUNKED + b"4;", FLOOD, b"x" * 4096)),
    "chunks of one byte with long extensions": Broken(
        (CHUNKED, FLOOD, b"1;" + b"x" * 4000 + b"\r\ny\r\n")
    ),
    "content for ever": Broken((OK + b"\r\n", FLOOD, b"evil" * 1024)),
    "chunks for ever": Broken((CHUNKED, FLOOD, b"4\r\nevil\r\n" * 1000)),
    "chunks of one byte": Broken((CHUNKED, b"1\r\ne\r\n" * 100_000 + b"0\r\n\r\n")),
    "length and chunks": Broken(
        (OK + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",)
    ),
    "two lengths": Broken((OK + b"content-length: 4\r\ncontent-length: 5\r\n\r\nevil!",)),
    "two lengths in one": Broken((OK + b"content-length: 4, 5\r\n\r\nevil!",)),
    "negative length": Broken((OK + b"content-length: -4\r\n\r\nevil",)),
    "length with a plus": Broken((OK + b"content-length: +4\r\n\r\nevil",)),
    "length in hexadecimal": Broken((OK + b"content-length: 0x4\r\n\r\nevil",)),
    "length beyond measure": Broken((OK + b"content-length: " + b"9" * 40 + b"\r\n\r\nevil",)),
    "unknown coding": Broken((OK + b"transfer-encoding: gzip, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",)),
    "chunked twice": Broken((OK + b"transfer-encoding: chunked, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",)),
    "chunked in HTTP/1.0": Broken(
        (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",), close=True
    ),
    "bad chunk length": Broken((CHUNKED + b"xyz\r\nevil\r\n0\r\n\r\n",)),
    "negative chunk length": Broken((CHUNKED + b"-4\r\nevil\r\n0\r\n\r\n",)),
    "chunk longer than told": Broken((CHUNKED + b"2\r\nevil\r\n0\r\n\r\n",)),
    "HTTP/0.9": Broken((b"evil",), close=True),
    "HTTP/2.0": Broken((b"HTTP/2.0 200 OK\r\ncontent-length: 4\r\n\r\nevil",)),
    "a greeting of SMTP": Broken((b"220 evil ESMTP\r\n",)),
    "a blank before the colon": Broken((OK + b"content-length : 4\r\n\r\nevil",)),
    "a NUL in a header": Broken((OK + b"x: \x00\r\ncontent-length: 4\r\n\r\nevil",)),
    "101 nobody asked for": Broken((b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + STOLEN,)),
}  # fmt: skip


@dataclass
class BrokenServer:
    """Misbehaves as `broken` says; `good`: answers every request well instead."""

    broken: Broken
    port: int = 0
    good: bool = False
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        with suppress(ConnectionError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.broken.early and not self.good:
            await self._misbehave(writer)
        while True:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if self.good:
                writer.write(GOOD)
            elif not self.broken.early:
                await self._misbehave(writer)
                if self.broken.close:
                    return

    async def _misbehave(self, writer: asyncio.StreamWriter) -> None:
        script = iter(self.broken.script)
        for number, step in enumerate(script):
            if isinstance(step, bytes):
                if number:
                    await asyncio.sleep(0.02)
                writer.write(step)
                await writer.drain()
                continue
            if step == RESET:
                await asyncio.sleep(0.05)
                reset = struct.pack("ii", 1, 0)  # no lingering: RST instead of FIN
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                writer.transport.abort()
                return
            endless = next(script)
            assert isinstance(endless, bytes)
            if step == SLOW:
                for at in range(len(endless)):
                    writer.write(endless[at : at + 1])
                    await asyncio.sleep(0.02)
            while True:
                writer.write(endless * (1 + 4096 // len(endless)))
                await writer.drain()


@asynccontextmanager
async def misbehaving(broken: Broken) -> AsyncIterator[BrokenServer]:
    served = BrokenServer(broken)
    server = await asyncio.start_server(served.handle, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for task in served.tasks:
            task.cancel()
        await asyncio.gather(*served.tasks, return_exceptions=True)
        await asyncio.sleep(0.01)
