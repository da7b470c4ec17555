"""Floor 3: the HTTP/1 connections of every listener: uvicorn's protocol behind our reader (`core.http_request`).

uvicorn is fed one well-framed request at a time, written anew by the reader, and the next only when that one is
answered: so one message gets one answer, whatever uvicorn's own parser would make of the bytes that came.
What is refused gets its status, and the connection ends; what was asked before it has its answer by then.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from brandproxy.core.http_body import Refused
from brandproxy.core.http_request import End, Event, Head, Limits, RequestReader

_BEHIND = 64 * 1024  # bytes of the next requests that are read while one is answered
_UNWANTED = 64 * 1024  # bytes of a body that are still read when its answer is complete
_DRAINED = 512 * 1024  # bytes that may come meanwhile
_PATIENCE = 20.0  # seconds for a head, and between two pieces of a body
_LINGER = 2.0  # seconds a client has to read our last answer while it still sends (RFC 9112 §9.6)


class StrictProtocol(HttpToolsProtocol):
    """The base of the protocols below; `limits` bound what one message may be."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], limits: Limits
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.reader = RequestReader(limits)
        self._chunked = False  # the body being received
        self._last = False  # a message with a body, behind which the client wants the connection closed
        self._unwanted = 0  # bytes that came when the answer was complete
        self._ended = False  # the client sends no more
        self._deaf = False  # nothing more is read
        self.receiving_since = 0.0  # in the event loop's time; 0: no message is half here

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._unwanted += len(data)
            if self._unwanted > _DRAINED:
                self.transport.close()
            return
        self._unset_keepalive_if_required()
        self.reader.feed(data)
        self._advance()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client may close its half and read on; a message that has not ended never will."""
        self._ended = True
        return self.answering() and not self.reader.in_body and not self._deaf

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._advance()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's parser does not take what the reader wrote: a target that is no URL, for instance."""
        self._answer(400)

    def answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def at_rest(self) -> bool:
        """Whether something came, all of it is answered, and more may come."""
        if self.cycle is None or self.answering() or self._deaf or self.transport.is_closing():
            return False
        return not self.reader.in_body and not self.reader.waiting

    def _may_read(self) -> bool:
        """The rest of a message that is being answered, but not the next one."""
        if self._deaf or self.transport.is_closing():
            return False
        return self.reader.in_body or not (self._last or self.answering())

    def _advance(self) -> None:
        """Read on as far as bytes and answers allow."""
        try:
            while self._may_read() and (event := self.reader.next_event()) is not None:
                self._take(event)
        except Refused as refused:
            self._refuse(refused.status)
        owed = self.reader.in_body or (self.reader.waiting > 0 and not self.answering())
        self.receiving_since = (self.receiving_since or self.loop.time()) if owed else 0.0
        if self.transport.is_closing():
            return
        if (self._ended or (self._last and not self.reader.in_body)) and not self.answering():
            self.transport.close()
        elif self.reader.waiting > _BEHIND and not self._deaf:
            self.transport.pause_reading()
        elif not self.flow.read_paused:
            self.transport.resume_reading()

    def _take(self, event: Event) -> None:
        feed = super().data_received
        if isinstance(event, Head):
            self._chunked, self._unwanted = event.length is None, 0
            if event.expects and not self.reader.waiting:  # RFC 9110 §10.1.1
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._last = not event.persistent and event.length != 0
            # uvicorn would close when it has answered; a body still on its way would reset the connection.
            feed((replace(event, minor=1, persistent=True) if self._last else event).wire())
        elif isinstance(event, End):
            if self._chunked:
                feed(b"0\r\n\r\n")
        else:
            feed(b"%x\r\n%b\r\n" % (len(event), event) if self._chunked else event)
            self._unwanted += 0 if self.answering() else len(event)
            if self._unwanted > _UNWANTED:
                self._end()

    def _refuse(self, status: int) -> None:
        """Answer with a status of ours, unless the application has begun to."""
        cycle = self.cycle
        if self.answering():  # it waits for the body that is broken
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self._deaf = True
                self.transport.abort()
                return
        elif self.reader.in_body:  # answered before its body broke
            self._end()
            return
        self._answer(status)

    def _answer(self, status: int) -> None:
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ndate: {formatdate(usegmt=True)}\r\n"
        self.transport.write(f"{head}content-length: 0\r\nconnection: close\r\n\r\n".encode("ascii"))
        self._end()

    def _end(self) -> None:
        """Close, after a client that still sends had time to read: unread bytes would reset the connection."""
        if self._deaf:
            return
        self._deaf = True
        if self._ended or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.flow.resume_reading()
        self.transport.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.close)


def server_protocol(max_body: int) -> type[asyncio.Protocol]:
    """What `uvicorn.Config(http=...)` takes: a protocol that also bounds how long a client may keep it waiting."""
    limits = Limits(head=64 * 1024, target=16 * 1024, body=max_body)

    class ServerProtocol(StrictProtocol):
        def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], **_: Any) -> None:
            super().__init__(config, server_state, app_state, limits)
            self._heard = 0.0  # when bytes came last

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.receiving_since = self.loop.time()
            self._look()

        def data_received(self, data: bytes) -> None:
            self._heard = self.loop.time()
            super().data_received(data)

        def _look(self) -> None:
            if self.transport.is_closing():
                return
            since = self._heard if self.reader.in_body else self.receiving_since
            if self.receiving_since and not self.flow.read_paused and self.loop.time() - since > _PATIENCE:
                self.transport.abort()
            else:
                self.loop.call_later(_PATIENCE / 4, self._look)

    return ServerProtocol
