"""One connection of a recipient. A click, an open, or an image in memory, asked for in one read, is answered here;
all else is parsed.

Most requests are one `GET /c/TOKEN` or `GET /o/TOKEN.gif` each on a connection of its own. `_RECORDED` is stricter
than the parser: HTTP/1, one token, well-formed headers (RFC 9112 §5), nothing behind them. `_headers` then wants
exactly one Host, nothing about a body, no upgrade, no header that matters twice. What does not fit, wellformed or
not, goes to `Parsed`, which may give the connection back; this file refuses nothing and repairs nothing. Both ways
end in `Links`, so there is one decision; an asset is answered here only where the whole object from memory is
the answer (no condition, range or coding asked for).
"""

from __future__ import annotations

import asyncio
import re

from brandproxy.core.tokens import Asset
from brandproxy.directory import Site
from brandproxy.edge.answers import Answer
from brandproxy.edge.app import DISK_PATIENCE, client_address, host_name, visit_of
from brandproxy.edge.open_connections import Front
from brandproxy.edge.parsed import Parsed
from brandproxy.edge.secured import Secured
from brandproxy.edge.tls import SNI
from brandproxy.sockets import plain

_TOKEN = rb"[A-Za-z0-9_-]{24,8000}"
_REST = (
    rb" HTTP/1\.(?P<minor>[01])"
    rb"(?P<headers>(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \x21-\x7e\x80-\xff]*)+)\r\n\r\n"
)
_RECORDED = re.compile(rb"GET /(?:c/(?P<click>" + _TOKEN + rb")|o/(?P<open>" + _TOKEN + rb")\.gif)" + _REST)
_ASSET = re.compile(rb"GET /a/(?P<asset>" + _TOKEN + rb")/[A-Za-z0-9._%-]{0,255}" + _REST)
_WANTED = re.compile(
    rb"\r\n(host|user-agent|connection|content-length|transfer-encoding|expect|upgrade|te|trailer"
    rb"|sec-purpose|purpose|x-purpose|x-moz|x-forwarded-for|range|if-[a-z-]+): *([^\r]*)",
    re.IGNORECASE,
)
_NOT_HERE = {b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"}
_STALL = 30.0  # seconds an answer may wait for its reader
_UNREAD = 8 * 1024  # bytes of an answer not yet taken by the kernel, at which we wait for the client
_MAX_READ = 16 * 1024  # bytes; more goes to the parser and its bounds


class Connection(asyncio.Protocol):
    __slots__ = (
        "_asked", "_body", "_buffer", "_close", "_deadline", "_ended", "_front", "_peer", "_reply", "_sni",
        "_stalled", "_transport",
    )  # fmt: skip

    def __init__(self, front: Front, peer: str | None = None) -> None:
        """`peer` is the client's address where it is known already; None: the socket's."""
        self._front = front
        self._peer = peer
        self._transport: asyncio.Transport | None = None
        self._asked = b""  # the request that waits to be answered with others
        self._reply: bytes | None = None  # the answer that waits for its record to be durable
        self._body = b""  # what goes behind the answer, shared with other connections and therefore not copied
        self._buffer = b""
        self._close = False  # after the next answer
        self._ended = False  # the client sends no more
        self._stalled = 0.0  # since when the client does not read; 0: it does

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._deadline = self._front.now + self._front.patience
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            transport.set_write_buffer_limits(_UNREAD)
        self._sni: str | None = None if tls is None else getattr(tls, SNI, "")
        if self._peer is None:
            self._peer = plain((transport.get_extra_info("peername") or ("",))[0])  # "": gone already
        if not self._front.admit(self, self._peer):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.leave(self)
        self._transport = None

    def eof_received(self) -> bool:
        """A client may close its half and read on."""
        self._ended = True
        return self._answering()

    def _answering(self) -> bool:
        return self._reply is not None or bool(self._asked)

    def idle(self) -> bool:
        return not self._answering() and not self._stalled

    def overdue(self, now: float) -> bool:
        if self._stalled:
            return now - self._stalled > _STALL
        return not self._answering() and now > self._deadline

    def hurry(self, now: float) -> bool:
        """Answer, and close, when the disk hangs: its trouble is never the recipient's."""
        if self._reply is None or now < self._deadline:
            return False
        self._close = True
        self.send(False)
        return True

    def pause_writing(self) -> None:
        """Who does not read is not read from: so what one client can make us hold is bounded."""
        self._stalled = self._front.now
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._stalled = 0.0
        self._deadline = self._front.now + self._front.patience
        if self._transport is not None:
            self._transport.resume_reading()
            self._go_on()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def shutdown(self) -> None:
        """Close when the answer in flight, if any, is sent."""
        self._close = True
        if not self._answering() and self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if not self.idle():  # the next request, before this one's answer
            self._buffer += data
            if len(self._buffer) > _MAX_READ and self._transport is not None:
                self._transport.pause_reading()
        elif len(data) > _MAX_READ:
            self._hand_over(data)
        elif data.startswith((b"GET /c/", b"GET /o/")):
            self._asked = data
            self._front.gathering.join(self)
        elif not self._asset(data):
            self._hand_over(data)

    def decide(self) -> bytes | None:
        """Answer the click or open that was asked for; when that has to wait for a record, give it."""
        data, self._asked = self._asked, b""
        fits = _fit(_RECORDED, data)
        answer = self._recorded(*fits) if fits else None
        if answer is None:
            data, self._buffer = data + self._buffer, b""
            self._hand_over(data)
            return None
        self._reply = render(answer, self._front.date, self._close)
        self._deadline = self._front.now + DISK_PATIENCE
        if answer.record is None:
            self.send(True)
        return answer.record

    def _asset(self, data: bytes) -> bool:
        """Answer what is in memory and wanted whole; False when the slow way has to."""
        fits = _fit(_ASSET, data)
        if fits is None:
            return False
        match, headers = fits
        if b"range" in headers or any(name.startswith(b"if-") for name in headers):
            return False
        edge, site = self._front.edge, self._site(host_name(headers[b"host"]), match, headers)
        if site is None:
            return False
        payload = edge.links.open(site, "a", match["asset"].decode("ascii"))
        ready = edge.assets.at_once(site, payload) if isinstance(payload, Asset) else None
        if ready is None:
            return False
        end = b"connection: close\r\n\r\n" if self._close else b"\r\n"
        self._reply, self._body = b"".join((ready[0], self._front.date, end)), ready[1]
        self.send(True)
        return True

    def _site(self, name: str, match: re.Match[bytes], headers: dict[bytes, bytes]) -> Site | None:
        """Whose request it is, or None when the slow way has to find that."""
        edge = self._front.edge
        site = edge.context.directory.site(name)
        if site is None or edge.misdirected(site, self._sni) or not self._persistence(match, headers):
            return None
        return site

    def _persistence(self, match: re.Match[bytes], headers: dict[bytes, bytes]) -> bool:
        """Heed version and Connection header (RFC 9112 §9.3); False when it says more than keep-alive or close."""
        connection = headers.get(b"connection", b"keep-alive").lower()
        self._close = self._close or connection == b"close" or match["minor"] == b"0"
        return connection in (b"keep-alive", b"close")

    def _recorded(self, match: re.Match[bytes], headers: dict[bytes, bytes]) -> Answer | None:
        """The answer, or None when the slow way has to find it."""
        edge = self._front.edge
        address = client_address(self._peer or "", headers.get(b"x-forwarded-for", b""), edge.trusted)
        visit = visit_of("GET", headers.items(), address)
        site = self._site(visit.host, match, headers)
        if site is None:
            return None
        token = match["click"]
        if token is not None:
            return edge.links.click(site, token.decode("ascii"), visit)
        return edge.links.pixel(site, match["open"].decode("ascii"), visit)

    def send(self, written: bool) -> None:
        """Send the answer; a record that was lost is counted by the spool, never the recipient's trouble."""
        reply, self._reply = self._reply, None
        body, self._body = self._body, b""
        if self._transport is None or reply is None:
            return
        self._deadline = self._front.now + self._front.patience
        if isinstance(self._transport, Secured) and self._close:
            self._transport.write_and_close(reply, body)
            return
        self._transport.write(reply)
        if body:
            self._transport.write(body)
        if self._close:
            self._transport.close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """The next request, if it is here; not before the client reads: what it can make us hold is bounded."""
        if self._transport is None or not self.idle():
            return
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._transport.resume_reading()
            self.data_received(data)
        elif self._ended:
            self._transport.close()

    def _hand_over(self, data: bytes) -> None:
        transport, front = self._transport, self._front
        if transport is None:
            return
        parsed = Parsed(front, self._sni, self._peer, self._resume)
        front.replace(self, parsed)
        transport.set_protocol(parsed)
        parsed.connection_made(transport)
        transport.resume_reading()
        parsed.data_received(data)
        if self._close:
            parsed.shutdown()
        if self._ended and not parsed.eof_received():
            transport.close()

    def _resume(self, data: bytes) -> None:
        """What was handed over came back, with the next request."""
        if self._transport is not None:
            self._transport.set_protocol(self)
            self.connection_made(self._transport)
            self.data_received(data)


def render(answer: Answer, date: bytes, close: bool) -> bytes:
    """`date` is the whole Date line. A connection persists unless told otherwise (RFC 9112 §9.3)."""
    end = b"connection: close\r\n\r\n" if close else b"\r\n"
    return b"".join((answer.head(), date, end, answer.body))


def _fit(shape: re.Pattern[bytes], data: bytes) -> tuple[re.Match[bytes], dict[bytes, bytes]] | None:
    """The request and its headers, or None for one that needs the parser."""
    match = shape.fullmatch(data)
    headers = _headers(match["headers"]) if match else None
    return None if match is None or headers is None else (match, headers)


def _headers(block: bytes) -> dict[bytes, bytes] | None:
    """The headers that matter, or None for a request that is not a plain GET of one host."""
    headers: dict[bytes, bytes] = {}
    for spelled, value in _WANTED.findall(block):
        name = spelled.lower()
        if name in headers or name in _NOT_HERE:
            return None
        headers[name] = value.rstrip(b" ")
    return headers if b"host" in headers else None
