"""HTTP/1 request messages as RFC 9112 frames them, for every listener; no IO.

`RequestReader` takes bytes however they are cut and gives a `Head`, then pieces of its body, then `END`; then the
next message. It reads nothing of a message before it is asked to, so that the caller can answer one at a time.

Invariants:
- where a message ends depends on Content-Length and Transfer-Encoding alone (§6.3), never on Upgrade, Expect,
  Connection or the method (RFC 9110 §7.8)
- what two readers could frame differently is refused, and nothing behind it is read
- `Head.wire()` is written anew: one Host, at most one framing field, no other hop-by-hop field
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from brandproxy.core.http_body import TOKEN, VALUE, Chunked, Refused, Sized

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"QUERY"))

_BEGINNING = re.compile(rb"(?:\r(?:\n(?:" + TOKEN + rb"(?: .*)?)?)?|" + TOKEN + rb"(?: .*)?)?", re.DOTALL)
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELDS = re.compile(rb"(?:" + TOKEN + rb":" + VALUE + rb"\r\n)*")  # no space before the colon, no fold (§5)
_FIELD = re.compile(rb"([^:\r\n]+):([^\r]*)\r\n")
_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\0")  # RFC 9112 §2.2
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_HOST = re.compile(rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?")
LONGEST_HOST = 260  # bytes: a name, its final dot, a port
_HOP_BY_HOP = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"http2-settings", b"te", b"trailer", b"expect",
    b"transfer-encoding", b"content-length",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """In bytes: request line and fields, request target, body without its framing."""

    head: int
    target: int
    body: int


class End(Enum):
    """A message is complete."""

    END = "end"


END = End.END


@dataclass(frozen=True, slots=True)
class Head:
    """`target` is a path with its query. `fields`: names in lower case, Host first, no hop-by-hop ones."""

    method: bytes
    target: bytes
    minor: int  # of HTTP/1
    fields: tuple[tuple[bytes, bytes], ...]
    length: int | None  # None: a chunked body
    persistent: bool
    expects: bool  # 100 Continue, before it sends its body

    def wire(self) -> bytes:
        """The head as any reader understands it in one way only."""
        lines = [b"%b %b HTTP/1.%d\r\n" % (self.method, self.target, self.minor)]
        lines += [b"%b: %b\r\n" % field for field in self.fields]
        if self.length is None:
            lines.append(b"transfer-encoding: chunked\r\n")
        elif self.length or self.method in (b"POST", b"PUT", b"PATCH"):
            lines.append(b"content-length: %d\r\n" % self.length)
        if not self.persistent:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)


Event = Head | bytes | End


class RequestReader:
    """`feed` bytes, then take `next_event` until it is None: more bytes are needed. It raises Refused, once."""

    __slots__ = ("_body", "_buffer", "_limits", "_looked")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""
        self._looked = 0  # bytes of the buffer that hold no end of a head
        self._body: Sized | Chunked | None = None  # None: between messages, or in a head

    @property
    def in_body(self) -> bool:
        return self._body is not None

    @property
    def waiting(self) -> int:
        """Bytes that were fed and not read."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data

    def next_event(self) -> Event | None:
        if self._body is None:
            return self._head()
        piece, self._buffer = self._body.read(self._buffer)
        if piece:
            return piece
        if not self._body.complete:
            return None
        self._body = None
        return END

    def _head(self) -> Head | None:
        buffer, limits = self._buffer, self._limits
        end = buffer.find(b"\r\n\r\n", max(2, self._looked - 3))  # 2: an empty line in front is none at the end
        if end < 0 or end + 4 > limits.head:
            if buffer:
                self._look_at_part(buffer if end < 0 else buffer[:end])
            if len(buffer) > limits.head:
                raise Refused(431, "the head of the request is too large")
            self._looked = len(buffer)
            return None
        start = 2 if buffer.startswith(b"\r\n") else 0  # RFC 9112 §2.2: at least one empty line is ignored
        head = _parse(buffer[start : end + 2], limits)
        self._buffer, self._looked = buffer[end + 4 :], 0
        self._body = Chunked(limits.body) if head.length is None else Sized(head.length)
        return head

    def _look_at_part(self, part: bytes) -> None:
        """Refuse what can become no head, without waiting for its end."""
        if self._looked < 64 and not _BEGINNING.fullmatch(part):
            raise Refused(400, "not HTTP/1")
        if _BARE.search(part, max(0, self._looked - 1)):
            raise Refused(400, "a line that does not end with CR LF")
        if part.find(b"\r\n", 2) < 0 and len(part) > self._limits.target + 64:
            raise Refused(414, "the request target is too long")


def host_is_valid(value: bytes) -> bool:
    """Whether a Host field names one host, with or without a port (RFC 9110 §7.2). Stricter than the grammar: what
    URL parsers do not agree on (sub-delimiters, percent-encoding) is no host of anybody."""
    match = _HOST.fullmatch(value) if len(value) <= LONGEST_HOST else None
    return match is not None and int(match[1] or 0) < 65536


_judged_host = lru_cache(1024)(host_is_valid)


def _parse(text: bytes, limits: Limits) -> Head:
    """`text` ends with the CR LF of its last line."""
    line, _, block = text.partition(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None or not _FIELDS.fullmatch(block):
        raise Refused(400, "not a request as RFC 9112 has it")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise Refused(505, "only HTTP/1 is spoken here")
    if method not in METHODS:
        raise Refused(501, "an unknown method")
    if len(target) > limits.target:
        raise Refused(414, "the request target is too long")
    old = minor == b"0"  # any later minor version is read as HTTP/1.1 (RFC 9110 §2.5)
    fields, hop = _sort(block)
    authority, target = _origin_form(target)
    host = _host(fields, authority, old)
    length = _length(hop, old, limits.body)
    options = [
        option.strip(b"\t ") for value in hop.get(b"connection", ()) for option in value.lower().split(b",")
    ]
    return Head(
        method,
        target,
        0 if old else 1,
        (*host, *(field for field in fields if field[0] != b"host")),
        length,
        persistent=not old and b"close" not in options,  # RFC 9112 §9.3; HTTP/1.0 does not persist with us
        expects=_expects(hop.get(b"expect", ()), old) and length != 0,
    )


def _sort(block: bytes) -> tuple[list[tuple[bytes, bytes]], dict[bytes, list[bytes]]]:
    """Fields for the application, and those between us and the next hop by name."""
    fields: list[tuple[bytes, bytes]] = []
    hop: dict[bytes, list[bytes]] = {}
    for spelled, raw in _FIELD.findall(block):
        name = spelled.lower()
        if name in _HOP_BY_HOP:
            hop.setdefault(name, []).append(raw.strip(b"\t "))
        else:  # a tab around Host is left there, and refused: proxies differ on it
            fields.append((name, raw.strip(b" " if name == b"host" else b"\t ")))
    return fields, hop


def _origin_form(target: bytes) -> tuple[bytes | None, bytes]:
    """Authority, if there is one, and path (RFC 9112 §3.2.1, §3.2.2)."""
    if target.startswith(b"/"):
        return None, target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise Refused(400, "the request target is no path and no http URL")
    path = match[2]
    return match[1], path if path.startswith(b"/") else b"/" + path


def _host(fields: list[tuple[bytes, bytes]], authority: bytes | None, old: bool) -> list[tuple[bytes, bytes]]:
    """The one Host field, none for HTTP/1.0 without it; a URL's own authority goes before it (RFC 9112 §3.2.2)."""
    given = [value for name, value in fields if name == b"host"]
    named = [authority] if authority is not None else []
    if len(given) > 1 or (not given and not old) or not all(map(_judged_host, given + named)):
        raise Refused(400, "Host is not the name of one host")  # RFC 9112 §3.2
    return [(b"host", value) for value in named or given]


def _length(hop: dict[bytes, list[bytes]], old: bool, limit: int) -> int | None:
    """Bytes of the body, None when it is chunked (RFC 9112 §6.3)."""
    codings, lengths = hop.get(b"transfer-encoding"), hop.get(b"content-length")
    if codings is not None:
        if lengths is not None or old:  # §6.1, §6.3: may be an attempt at smuggling
            raise Refused(400, "Transfer-Encoding beside Content-Length or in HTTP/1.0")
        named = [name.strip(b"\t ") for name in b",".join(codings).lower().split(b",")]
        if named[-1] != b"chunked" or named.count(b"chunked") > 1:
            raise Refused(400, "a body whose end cannot be known")
        if len(named) > 1:
            raise Refused(501, "a transfer coding other than chunked")
        return None
    if lengths is None:
        return 0
    if len(lengths) != 1 or not lengths[0].isdigit():  # bytes.isdigit: ASCII only, no sign, no list
        raise Refused(400, "Content-Length is not one number")
    digits = lengths[0].lstrip(b"0") or b"0"
    if len(digits) > 15 or int(digits) > limit:
        raise Refused(413, "the body is too large")
    return int(digits)


def _expects(values: tuple[()] | list[bytes], old: bool) -> bool:
    """RFC 9110 §10.1.1: an expectation in HTTP/1.0 is ignored."""
    if not values or old:
        return False
    if [value.lower() for value in values] != [b"100-continue"]:
        raise Refused(417, "an unknown expectation")
    return True
