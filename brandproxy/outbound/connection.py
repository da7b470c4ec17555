"""One HTTP/1.1 connection to another server; h11 reads and writes the messages.

Invariant: bytes are the answer to the request that was under way when they came, or they are nothing. A connection
that received a byte more than its answer, or any byte while no request was under way, is closed and never used
again (RFC 9112 §6.3, §9.2). So is one whose message framing two readers could understand differently.

Every wait is bounded by `seconds`, and everything held in memory by the constants below.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import cast

import h11

from brandproxy.errors import FetchFailed

Headers = Sequence[tuple[bytes, bytes]]

_HEAD = 65536  # bytes of a status line with its header section, of a trailer section, of a chunk's header
_INTERIM = 16  # 1xx responses before the final one
_UNREAD = 65536  # bytes received and not yet asked for, above which we stop reading
_CHUNKS, _CHUNK = 4096, 256  # so many chunks of any size, then 256 bytes each on average: each costs 10 µs
_FRAMING = 1 << 20  # bytes a body may take on the wire beyond twice its size
_BREATH = 256  # events after which others have their turn


class Connection(asyncio.Protocol):
    """Carries one request at a time: `send`, then `body` to its end, then `finish`. Raises FetchFailed."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
        self._transport: asyncio.Transport | None = None
        self._received: list[bytes] = []
        self._unread = 0
        self._complete = False  # the server said that it sends no more
        self._ended = False
        self._news = asyncio.Event()
        self._busy = False

    @property
    def closed(self) -> bool:
        return self._ended or self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if not self._busy:  # nobody asked
            self.close()
            return
        self._received.append(data)
        self._unread += len(data)
        if self._unread > _UNREAD and self._transport is not None:
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        self._complete = self._ended = True
        self._news.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._news.set()

    async def send(
        self, method: str, target: bytes, headers: Headers, content: bytes, seconds: float
    ) -> h11.Response:
        """Send a request and wait for the status and headers of its final response. `seconds` bounds both."""
        if self.closed or self._transport is None:
            raise FetchFailed("the connection is closed")
        self._busy = True
        events: list[h11.Event] = [h11.Request(method=method, target=target, headers=list(headers))]
        events += [h11.Data(data=content)] if content else []
        out = b"".join([self._h11.send(event) or b"" for event in (*events, h11.EndOfMessage())])
        self._transport.write(out)
        try:
            async with asyncio.timeout(seconds):
                return await self._final()
        except TimeoutError as error:
            raise FetchFailed(f"no answer within {seconds:g} s") from error

    async def body(self, seconds: float) -> AsyncIterator[bytes]:
        """The content, as it comes. Each piece may take `seconds`."""
        wire, whole, chunks = 0, 0, 0
        for number in itertools.count(1):
            try:
                async with asyncio.timeout(seconds):
                    event, read = await self._next()
            except TimeoutError as error:
                raise FetchFailed(f"nothing more came within {seconds:g} s") from error
            if isinstance(event, h11.EndOfMessage):
                return
            assert isinstance(event, h11.Data)
            wire, whole, chunks = wire + read, whole + len(event.data), chunks + event.chunk_start
            if wire > 2 * whole + _FRAMING or chunks > whole // _CHUNK + _CHUNKS:
                raise FetchFailed("the answer has too much framing for its content")
            yield bytes(event.data)
            if number % _BREATH == 0:
                await asyncio.sleep(0)

    def finish(self) -> bool:
        """End this exchange: True when the connection may carry another one, otherwise it is closed."""
        clean = (
            not self.closed
            and (self._h11.our_state, self._h11.their_state) == (h11.DONE, h11.DONE)
            and not self._received
            and not self._h11.trailing_data[0]
            # An answer that did not wait for the whole request may be followed by another one.
            and self._transport is not None
            and self._transport.get_write_buffer_size() == 0
        )
        if clean:
            self._h11.start_next_cycle()
            self._busy = False
        else:
            self.close()
        return clean

    def close(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.abort()  # there is nothing left to say, and nobody is waited for

    async def _final(self) -> h11.Response:
        for _ in range(_INTERIM + 1):
            event, _read = await self._next()
            if isinstance(event, h11.Response):
                _check_framing(event)
                return event
        raise FetchFailed(f"more than {_INTERIM} interim responses")

    async def _next(self) -> tuple[h11.Event, int]:
        """The next event, and how many bytes were received for it."""
        read = 0
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise FetchFailed(f"the answer is not HTTP/1.1: {error}") from error
            if isinstance(event, h11.Event):
                return event, read
            if event is h11.PAUSED:
                raise FetchFailed("the answer goes on behind its end")
            read += await self._feed()

    async def _feed(self) -> int:
        while not self._received and not self._ended:
            self._news.clear()
            await self._news.wait()
        if not self._received and not self._complete:  # a reset, or TLS cut off (RFC 9112 §9.8; uvloop tells)
            raise FetchFailed("the connection broke")
        data = b"".join(self._received)
        self._received.clear()
        self._unread = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._h11.receive_data(data)  # empty: the end
        return len(data)


def _check_framing(response: h11.Response) -> None:
    """Refuse a response whose length is not certain. h11 has refused conflicting lengths and unknown codings."""
    names = {name for name, _ in response.headers}
    if response.http_version not in (b"1.0", b"1.1"):
        raise FetchFailed("the answer is not HTTP/1.1")
    if b"transfer-encoding" in names and (b"content-length" in names or response.http_version == b"1.0"):
        raise FetchFailed("the answer's length is ambiguous")  # RFC 9112 §6.1, §6.3
