"""A connection whose requests need the reader and the application (`http_server`), bounded by the edge's clock.

A proxy in front of us asks for all sorts of things on one connection, so what `Connection` may answer itself goes
back to it, where nothing of another message is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from brandproxy.core.http_request import Limits
from brandproxy.edge.open_connections import Front
from brandproxy.http_server import StrictProtocol
from brandproxy.sockets import plain

AT_ONCE = (b"GET /c/", b"GET /o/", b"GET /a/")  # what begins so may need no parser
_LIMITS = Limits(
    head=32 * 1024,
    target=9_000,  # the longest token is 8,000
    body=64 * 1024,  # only a one-click unsubscribe has a body that is read
)
_STALL = 30.0  # seconds an answer may wait for its reader

# Its warnings are about what a client sent: as many lines as anybody likes to cause.
logging.getLogger("uvicorn.error").addFilter(lambda entry: entry.levelno >= logging.ERROR)


class Parsed(StrictProtocol):
    """The app finds the accepted SNI name (None without TLS) in `scope["state"]["sni"]`. `resume` takes the
    connection back, with what was read."""

    def __init__(self, front: Front, sni: str | None, peer: str | None, resume: Callable[[bytes], None]) -> None:
        super().__init__(front.config, front.state, {"sni": sni}, _LIMITS)
        self._front = front
        self._peer = peer
        self._resume = resume
        self._stalled_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._peer is not None:
            self.client = (self._peer, 0)
        elif self.client is not None:
            self.client = (plain(self.client[0]), self.client[1])

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.leave(self)
        super().connection_lost(exc)

    def idle(self) -> bool:
        return not self.answering()

    def overdue(self, now: float) -> bool:
        receiving, stalled = self.receiving_since, self._stalled_since
        return bool((receiving and now - receiving > self._front.patience) or (stalled and now - stalled > _STALL))

    def hurry(self, now: float) -> bool:
        return False

    def abort(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if data.startswith(AT_ONCE) and self.at_rest() and not self._stalled_since:
            self._give_back(data)
        else:
            super().data_received(data)

    def _give_back(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]  # it holds this object, which holds it
        self._front.leave(self)
        self._resume(data)

    def pause_writing(self) -> None:
        self._stalled_since = self._front.now
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = 0.0
        super().resume_writing()
