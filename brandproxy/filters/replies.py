"""SMTP replies, one for each command.

Invariant: a reply answers the command that was under way when it came. A server that sends more than one reply, or
one that nobody waits for, is out of step: what it sends next could be taken for the answer to another recipient or
another message. So the connection is closed (RFC 5321 §4.3.1).
"""

from __future__ import annotations

import asyncio
import re
from typing import cast

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:[ -]([^\r\n]*))?\r?\n")
_MOST = 65536  # bytes of one reply; RFC 5321 §4.5.3.1.5 has 512 for a line


class OutOfStep(ConnectionError):
    """The connection is closed, or the server does not speak SMTP in turn."""


class Replies(asyncio.Protocol):
    """Takes over the connection that `opener` opened. `ask` raises OutOfStep, TimeoutError."""

    def __init__(self, transport: asyncio.BaseTransport, opener: asyncio.BaseProtocol) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._opener = opener
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._waiting: asyncio.Future[tuple[int, tuple[str, ...]]] | None = None
        self._transport.set_protocol(self)

    @property
    def connected(self) -> bool:
        return not self._transport.is_closing()

    async def ask(self, data: bytes, seconds: float) -> tuple[int, tuple[str, ...]]:
        """Send a command, or a message, and wait for its reply: the code, and the lines without it."""
        if not self.connected:
            raise OutOfStep("the connection is closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._buffer.clear()
        self._lines.clear()
        try:
            self._transport.write(data)
            async with asyncio.timeout(seconds):
                code, lines = await self._waiting
            if self._transport.get_write_buffer_size():  # it has not even seen all that it answers
                self.close()
                if code < 400:
                    raise OutOfStep("it agreed before it had heard all")
            return code, lines
        finally:
            self._waiting = None

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            self._break("it speaks out of turn")
            return
        self._buffer += data
        if len(self._buffer) + sum(map(len, self._lines)) > _MOST:
            self._break("its reply has no end")
            return
        while (end := self._buffer.find(b"\n") + 1) > 0:
            line = _LINE.fullmatch(self._buffer[:end])
            if line is None:
                self._break("what it says is no reply")
                return
            self._lines.append(bytes(line[2] or b""))
            more = self._buffer[3:4] == b"-"
            del self._buffer[:end]
            if not more:
                self._complete(int(line[1]))
                return

    def eof_received(self) -> bool:
        self._break("it closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._break("the connection broke")
        self._opener.connection_lost(exc)

    def _complete(self, code: int) -> None:
        """The reply is the answer whatever follows it: a message that was taken must not be sent again."""
        assert self._waiting is not None
        if self._buffer:
            self.close()
        self._waiting.set_result((code, tuple(line.decode("utf-8", "surrogateescape") for line in self._lines)))

    def _break(self, why: str) -> None:
        self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(OutOfStep(why))
