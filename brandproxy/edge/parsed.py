"""A connection that uvicorn's HTTP/1.1 protocol (llhttp) parses, with the bounds uvicorn does not set itself.

Bounded: the head of a request (431), its target (414), its body (413), the time from its first to its last
byte, the time a slow reader may stall an answer; idle time is uvicorn's own keep-alive timer.
The request target must be a path (RFC 9112 §3.2.1): we are nobody's forward proxy.

A proxy in front of us asks for all sorts of things on one connection, so what `Connection` may answer itself goes
back to it, where nothing of another message is left in the parser.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from brandproxy.sockets import plain

if TYPE_CHECKING:
    from brandproxy.edge.connection import Front

AT_ONCE = (b"GET /c/", b"GET /o/", b"GET /a/")  # what begins so may need no parser
MAX_HEAD = 32 * 1024  # bytes: request line and headers
MAX_TARGET = 9_000  # bytes; the longest token is 8,000
MAX_BODY = 64 * 1024  # bytes; only a one-click unsubscribe has a body that is read
MAX_WAITING = 100  # requests behind the one being answered; browsers send none
MAX_MESSAGE = MAX_HEAD + 2 * MAX_BODY  # bytes; with the framing of chunks and what stands behind the last
_FRAMING = (b"content-length", b"transfer-encoding")
_STALL = 30.0  # seconds an answer may wait for its reader

# Its warnings are about what a client sent: as many lines as anybody likes to cause.
logging.getLogger("uvicorn.error").addFilter(lambda entry: entry.levelno >= logging.ERROR)


class Parsed(HttpToolsProtocol):
    """The app finds the accepted SNI name (None without TLS) in `scope["state"]["sni"]`. `resume` takes the
    connection back, with what was read."""

    def __init__(self, front: Front, sni: str | None, peer: str | None, resume: Callable[[bytes], None]) -> None:
        super().__init__(front.config, front.state, {"sni": sni})
        self._front = front
        self._peer = peer
        self._resume = resume
        self._between = False  # messages: the last one is complete, no other has begun
        self._bytes = 0  # of the message being received
        self._in_head = True
        self._receiving_since = front.now
        self._stalled_since = 0.0
        self._refusal = 0
        self._ended = self._deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._front.connections[self] = None
        super().connection_made(transport)
        if self._peer is not None:
            self.client = (self._peer, 0)
        elif self.client is not None:
            self.client = (plain(self.client[0]), self.client[1])

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.leave(self)
        super().connection_lost(exc)

    def idle(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def overdue(self, now: float) -> bool:
        receiving, stalled = self._receiving_since, self._stalled_since
        return bool((receiving and now - receiving > self._front.patience) or (stalled and now - stalled > _STALL))

    def abort(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if data.startswith(AT_ONCE) and self._done():
            self._give_back(data)
            return
        if not self._receiving_since:
            self._receiving_since = self._front.now
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes > (MAX_HEAD if self._in_head else MAX_MESSAGE):
            self._refusal = self._refusal or (431 if self._in_head else 413)
        if self._refusal and not self._deaf and not self.transport.is_closing():
            self._refuse(self._refusal)

    def _done(self) -> bool:
        """Whether all that came is answered, sent and forgotten by the parser, and more may come."""
        return self._between and self.idle() and not self._stalled_since and not self.transport.is_closing()

    def _give_back(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]  # it holds this object, which holds it
        self._front.leave(self)
        self._resume(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client may close its half and read on."""
        self._ended = True
        return self.cycle is not None and not self.cycle.response_complete

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ended and not self.pipeline and self.cycle.response_complete:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET:
            self._refusal = 414
            raise ValueError("target too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # nothing behind a body is a header (RFC 9110 §6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_WAITING:
            raise ValueError("too many at once")
        self._body_bytes = 0
        if sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD:
            self._refusal = 431
            raise ValueError("head too long")
        if not self.url.startswith(b"/"):
            raise ValueError("not a path")
        # llhttp takes what follows an upgrade request's head for another protocol, a body is none (RFC 9112 §6.3).
        if self.parser.should_upgrade() and any(name in _FRAMING for name, _ in self.headers):
            raise ValueError("an upgrade with a body")
        super().on_headers_complete()
        self._in_head = False  # from here on the message has a cycle, and gets an answer

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY:
            self._refusal = 413
            raise ValueError("body too long")
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._receiving_since = 0.0
        self._in_head, self._bytes = True, 0
        self._between = not self.parser.should_upgrade()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or 400)

    def pause_writing(self) -> None:
        self._stalled_since = self._front.now
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = 0.0
        super().resume_writing()

    def _refuse(self, status: int) -> None:
        """End the connection over the message being received; each message before it keeps its one answer."""
        cycle = self.cycle
        if cycle is not None and self._in_head and not cycle.response_complete:
            cycle.keep_alive = False  # closes behind the last answer that is due
            self._deaf = True
            return
        if cycle is not None and not self._in_head:  # the message has a cycle: its body is broken
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                self.transport.close() if cycle.response_complete else self.transport.abort()
                return
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode("ascii")
        self.transport.write(head + self._front.date + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
