"""A connection that uvicorn's HTTP/1.1 protocol (llhttp) parses, with the bounds uvicorn does not set itself.

Bounded: the head of a request (431), its target (414), its body (413), the time from its first to its last
byte, the time a slow reader may stall an answer; idle time is uvicorn's own keep-alive timer.
The request target must be a path (RFC 9112 §3.2.1): we are nobody's forward proxy.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from brandproxy.edge.connection import Front

MAX_HEAD = 32 * 1024  # bytes: request line and headers
MAX_TARGET = 9_000  # bytes; the longest token is 8,000
MAX_BODY = 64 * 1024  # bytes; only a one-click unsubscribe has a body that is read
_STALL = 30.0  # seconds an answer may wait for its reader

logging.getLogger("uvicorn.error").addFilter(
    lambda entry: entry.getMessage() != "Invalid HTTP request received."  # a hostile client's, not ours to log
)


class Parsed(HttpToolsProtocol):
    """The app finds the accepted SNI name (None without TLS) in `scope["state"]["sni"]`."""

    def __init__(self, front: Front, sni: str | None, peer: str | None) -> None:
        super().__init__(front.config, front.state, {"sni": sni})
        self._front = front
        self._peer = peer
        self._head_bytes = self._body_bytes = 0
        self._in_head = False
        self._receiving_since = front.now
        self._stalled_since = 0.0
        self._refusal = 0
        self._ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._front.connections.add(self)
        super().connection_made(transport)
        if self._peer is not None:
            self.client = (self._peer, 0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.connections.discard(self)
        super().connection_lost(exc)

    def idle(self) -> bool:
        return self._receiving_since == 0.0 and (self.cycle is None or self.cycle.response_complete)

    def overdue(self, now: float) -> bool:
        receiving, stalled = self._receiving_since, self._stalled_since
        return bool((receiving and now - receiving > self._front.patience) or (stalled and now - stalled > _STALL))

    def abort(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._receiving_since:
            self._receiving_since = self._front.now
        self._head_bytes = self._head_bytes + len(data) if self._in_head else len(data)
        self._in_head = True
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD:
            self._refusal = self._refusal or 431
        if self._refusal and not self.transport.is_closing():
            self._refuse(self._refusal)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client may close its half and read on."""
        self._ended = True
        return self.cycle is not None and not self.cycle.response_complete

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ended and not self.pipeline and self.cycle.response_complete:
            self.transport.close()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET:
            self._refusal = 414
            raise ValueError("target too long")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._body_bytes = 0
        if sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD:
            self._refusal = 431
            raise ValueError("head too long")
        if not self.url.startswith(b"/"):
            raise ValueError("not a path")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY:
            self._refusal = 413
            raise ValueError("body too long")
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._receiving_since = 0.0
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
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()  # an answer is on its way; nothing may be written into it
            return
        phrase = HTTPStatus(status).phrase
        head = f"HTTP/1.1 {status} {phrase}\r\n"
        self.transport.write(
            head.encode("ascii") + self._front.date + b"content-length: 0\r\nconnection: close\r\n\r\n"
        )
        self.transport.close()
