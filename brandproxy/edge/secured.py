"""TLS of one connection: a protocol to the TCP transport below it, a transport to the protocol above it.

The event loop's own TLS makes a click a third dearer: it sends the session ticket, the answer and the goodbye one
by one, arms two timers, asks OpenSSL again after the last byte, and waits for the client's goodbye. Here a step
is one read, and what it makes leaves in one write. What may wait for an answer that is on its way does; but a
handshake that brought no request yet is answered with the ticket at once (RFC 8446 §4.6.1): a client under Nagle's
algorithm holds its request back until it hears from us, 40 ms otherwise.

What the protocol above writes is encrypted piece by piece, as the client takes it: a client that asks for a large
image and never reads holds about `_HELD` bytes of ours, not the image. The pieces are views, not copies.

Invariants: the protocol above gets the plaintext of whole, authentic records only; what OpenSSL refuses ends the
connection, with its alert; close_notify is sent and not waited for. A handshake counts as a connection and is
bounded by `Front.tick`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

from brandproxy.edge.open_connections import Front
from brandproxy.edge.tls import Book, Refused
from brandproxy.sockets import plain

_RECORD = 16 * 1024  # bytes; a TLS record holds no more (RFC 8446 §5.1): one read leaves nothing of it behind
_HELD = 16 * 1024  # bytes encrypted and not yet taken by the kernel, at which we wait for the client
_HANDSHAKE = 10.0  # seconds


class Secured(asyncio.Protocol, asyncio.Transport):
    """`make(peer)` gives the protocol above when the handshake is done. `peer` as `Connection` has it."""

    __slots__ = (
        "_above", "_below", "_book", "_closing", "_deadline", "_deaf", "_ended", "_front", "_full", "_held",
        "_hello", "_incoming", "_lingers", "_make", "_outgoing", "_peer", "_tls", "_waiting",
    )  # fmt: skip

    def __init__(
        self, front: Front, book: Book, peer: str | None, make: Callable[[str], asyncio.Protocol]
    ) -> None:
        self._front = front
        self._book = book
        self._peer = peer
        self._make = make
        self._above: asyncio.Protocol | None = None  # None: still in the handshake
        self._below: asyncio.Transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._hello = b""
        self._tls: ssl.SSLObject | None = None  # None: the hello is not whole
        self._waiting: deque[memoryview] = deque()  # plaintext for which the client must first take what is sent
        self._held = False  # TLS 1.3: what OpenSSL has to send between answers may wait for the next one
        self._full = False  # the client does not take what is sent
        self._deaf = False  # the protocol above wants nothing to read
        self._ended = self._lingers = False  # the client sends no more; it still reads
        self._closing = False

    # Called by the transport below.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._below = transport
        transport.set_write_buffer_limits(_HELD // 2, 0)
        self._deadline = self._front.now + _HANDSHAKE
        if self._peer is None:
            self._peer = plain((transport.get_extra_info("peername") or ("",))[0])
        if not self._front.admit(self, self._peer):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._waiting.clear()
        self._front.leave(self)
        above, self._above = self._above, None
        if above is not None:
            above.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._closing or self._ended:
            return
        try:
            if self._tls is None:
                self._begin(data)
                if self._tls is None:
                    return
            else:
                self._incoming.write(data)
            if self._above is None:
                self._open(self._tls)
            if not (self._incoming.pending and self._read(self._tls) and self._held):
                self._flush()
        except ssl.SSLWantReadError:
            self._flush()
        except Refused as refused:
            self._outgoing.write(refused.alert)
            self._end()
        except ssl.SSLError:
            self._end()

    def eof_received(self) -> bool:
        """The client's end, told by TCP or by close_notify. It may read on."""
        if not self._ended and self._above is not None:
            self._ended = True
            self._lingers = bool(self._above.eof_received())
        return self._lingers and not self._closing

    def pause_writing(self) -> None:
        self._full = True
        self._below.pause_reading()  # what it sends could make OpenSSL answer (RFC 8446 §4.6.3)
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        self._full = False
        self._send_waiting()
        if self._full:
            return
        if not self._deaf:
            self._below.resume_reading()
        if self._above is not None:
            self._above.resume_writing()

    # Called by `Front` during the handshake.

    def idle(self) -> bool:
        return True

    def overdue(self, now: float) -> bool:
        return now > self._deadline

    def hurry(self, now: float) -> bool:
        return False

    def shutdown(self) -> None:
        self.abort()

    # Called by the protocol above.

    def write(self, data: Any) -> None:
        if not self._closing and data:
            self._waiting.append(memoryview(data))
            self._send_waiting()

    def write_and_close(self, head: bytes, body: bytes) -> None:
        """The last answer and our goodbye; in one write, when the answer is no longer than `_HELD`."""
        if not self._closing:
            self._waiting.append(memoryview(head))
            if body:
                self._waiting.append(memoryview(body))
            self.close()

    def close(self) -> None:
        """Say goodbye behind all that was written."""
        if not self._closing:
            self._closing = True
            self._send_waiting()

    def abort(self) -> None:
        self._closing = True
        self._waiting.clear()
        self._below.abort()

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._above = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._above or self

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls if name == "ssl_object" else self._below.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._deaf = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._deaf = False
        if not self._full:
            self._below.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size() + sum(map(len, self._waiting))

    def _begin(self, data: bytes) -> None:
        self._hello += data
        self._tls = self._book.begin(self._hello, self._incoming, self._outgoing)
        if self._tls is not None:
            self._hello = b""

    def _open(self, tls: ssl.SSLObject) -> None:
        tls.do_handshake()
        self._front.leave(self)
        self._held = tls.version() == "TLSv1.3"
        self._above = self._make(self._peer or "")
        self._above.connection_made(self)

    def _read(self, tls: ssl.SSLObject) -> bool:
        """Give on all plaintext that is there in one piece, then the client's goodbye; whether there was any."""
        chunks, over = [], False
        try:
            while self._incoming.pending:
                chunk = tls.read(_RECORD)
                if not chunk:
                    over = True
                    break
                chunks.append(chunk)
        except ssl.SSLWantReadError:  # a part of a record
            pass
        if chunks and self._above is not None:
            self._above.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if over and not self.eof_received():
            self.close()
        return bool(chunks)

    def _send_waiting(self) -> None:
        """Encrypt and send while the client takes it; say goodbye behind the last piece, when that is wanted."""
        waiting, tls = self._waiting, self._tls
        assert tls is not None
        while waiting and not self._full:
            while waiting and self._outgoing.pending < _HELD:
                piece = waiting[0]
                done = tls.write(piece[:_RECORD])
                if done < len(piece):
                    waiting[0] = piece[done:]
                else:
                    waiting.popleft()
            if waiting or not self._closing:
                self._flush()
        if self._closing and not waiting:
            self._say_goodbye(tls)

    def _say_goodbye(self, tls: ssl.SSLObject) -> None:
        try:
            tls.unwrap()
        except ssl.SSLError:  # as a rule SSLWantReadError: the client's goodbye is not here yet
            pass
        self._flush()
        self._below.close()

    def _end(self) -> None:
        """Send the alert, and no more."""
        self._closing = True
        self._waiting.clear()
        self._flush()
        self._below.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._below.write(data)
