"""How a stored object is answered: conditions, ranges and headers (RFC 9110 §13, §14). Pure.

`plan` decides in the order of RFC 9110 §13.2.2:
1. If-Match, else If-Unmodified-Since: false means 412
2. If-None-Match, else If-Modified-Since: not changed means 304
3. Range (GET only, and only when If-Range still holds): 206, 416, or the whole object when the header is
   malformed, has more than `MAX_RANGES` parts, or asks for more bytes than there are
4. the whole object
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate, parsedate_to_datetime

from brandproxy.core.media import type_headers

MAX_RANGES = 8
FOREVER = "public, max-age=31536000, immutable"
BOUNDARY = b"brandproxy-part-7f3a1c9e5d"

Headers = list[tuple[bytes, bytes]]

_RANGE = re.compile(r"(\d{1,18})-(\d{0,18})|-(\d{1,18})")
_TAG = re.compile(r'\s*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')
_MAX_AGE = re.compile(r"(?:^|[,\s])(s-maxage|max-age)=\"?(\d{1,12})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a stored object. `size` in bytes as stored (still in `encoding`); `modified` in seconds
    since 1970, 0 when unknown; `etag` with its quotes, or empty; `cache_control` as storage said it."""

    size: int
    etag: str = ""
    modified: int = 0
    content_type: str = ""
    encoding: str = ""
    cache_control: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes `start` up to `stop` of the object, sent behind `preamble`."""

    start: int
    stop: int
    preamble: bytes = b""


@dataclass(frozen=True, slots=True)
class Plan:
    """An answer: status, headers, the slices of the object in order, and what comes behind the last."""

    status: int
    headers: Headers
    slices: tuple[Slice, ...] = ()
    trailer: bytes = b""


@dataclass(frozen=True, slots=True)
class Described:
    """Headers of an object that do not depend on the request; made once per cached object."""

    meta: Meta
    always: Headers = field(default_factory=list)  # what a 304 repeats (RFC 9110 §15.4.5)
    body: Headers = field(default_factory=list)  # what describes the body


def describe(meta: Meta, path: str, vary: bool = False) -> Described:
    """The object's own headers. `path` names the type when storage does not; `vary`: it was negotiated.

    Storage may give all codings of an object one tag; ours must differ, as the bytes do (RFC 9110 §8.8.3.3).
    """
    if meta.encoding and meta.etag:
        meta = replace(meta, etag=f'{meta.etag[:-1]}-{meta.encoding.replace(" ", "")}"')
    always: Headers = [(b"cache-control", cache_control(meta.cache_control).encode("ascii"))]
    if meta.etag:
        always.append((b"etag", meta.etag.encode("latin-1")))
    if meta.modified:
        always.append((b"last-modified", formatdate(meta.modified, usegmt=True).encode("ascii")))
    if vary:
        always.append((b"vary", b"accept-encoding"))
    body = [*type_headers(meta.content_type, path), (b"accept-ranges", b"bytes")]
    if meta.encoding:
        body.append((b"content-encoding", meta.encoding.encode("ascii")))
    return Described(meta, always, body)


def plan(method: str, request: Mapping[bytes, bytes], object_: Described) -> Plan:
    """The answer to a GET or HEAD whose headers (lower-case names) are `request`."""
    meta = object_.meta
    if request.keys() & _CONDITIONAL:
        if _failed(request, meta):
            return Plan(412, [*object_.always, (b"content-length", b"0")])
        if _unchanged(request, meta):
            return Plan(304, object_.always)
        if method == "GET" and b"range" in request and _if_range(request.get(b"if-range"), meta):
            ranges = parse_range(request[b"range"].decode("latin-1"), meta.size)
            if ranges is not None:
                return _partial(ranges, object_)
    headers = [*object_.always, *object_.body, (b"content-length", b"%d" % meta.size)]
    return Plan(200, headers, (Slice(0, meta.size),))


def parse_range(value: str, size: int) -> tuple[tuple[int, int], ...] | None:
    """(start, stop) pairs that can be satisfied, none: 416; None: ignore the header (RFC 9110 §14.2)."""
    unit, _, text = value.partition("=")
    specs = [spec.strip() for spec in text.split(",") if spec.strip()]
    if unit.strip().lower() != "bytes" or not specs or len(specs) > MAX_RANGES:
        return None
    found: list[tuple[int, int]] = []
    for spec in specs:
        match = _RANGE.fullmatch(spec)
        if match is None:
            return None
        if match[3]:
            first, stop = max(0, size - int(match[3])), size
        else:
            first, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
            if match[2] and int(match[2]) < first:
                return None
        if first < stop:
            found.append((first, stop))
    if len(found) > 1 and sum(stop - first for first, stop in found) > size:
        return None  # overlapping ranges ask for more than the object: RFC 9110 §14.2 lets us send it whole
    return tuple(found)


def cache_control(declared: str) -> str:
    """For ever, unless storage asked for less: then what it asked for."""
    text = declared.lower()
    if any(word in text for word in ("no-store", "no-cache", "private", "must-revalidate")):
        return declared if declared.isascii() and declared.isprintable() else "no-store"
    ages = dict(_MAX_AGE.findall(text))
    return FOREVER if "max-age" not in ages else f"public, max-age={min(int(ages['max-age']), 31536000)}"


def _partial(ranges: tuple[tuple[int, int], ...], object_: Described) -> Plan:
    size = object_.meta.size
    if not ranges:
        headers = [(b"content-range", b"bytes */%d" % size), (b"content-length", b"0")]
        return Plan(416, [*object_.always, *headers])
    if len(ranges) == 1:
        ((start, stop),) = ranges
        headers = [
            (b"content-range", _content_range(start, stop, size)),
            (b"content-length", b"%d" % (stop - start)),
        ]
        return Plan(206, [*object_.always, *object_.body, *headers], (Slice(start, stop),))
    content_type = next(value for name, value in object_.body if name == b"content-type")
    slices = tuple(
        Slice(start, stop, b"\r\n--%s\r\ncontent-type: %s\r\ncontent-range: %s\r\n\r\n" % (
            BOUNDARY, content_type, _content_range(start, stop, size),
        ))
        for start, stop in ranges
    )  # fmt: skip
    trailer = b"\r\n--%s--\r\n" % BOUNDARY
    length = sum(len(s.preamble) + s.stop - s.start for s in slices) + len(trailer)
    body = [header for header in object_.body if header[0] != b"content-type"]
    multipart = (b"content-type", b"multipart/byteranges; boundary=" + BOUNDARY)
    return Plan(206, [*object_.always, *body, multipart, (b"content-length", b"%d" % length)], slices, trailer)


def _content_range(start: int, stop: int, size: int) -> bytes:
    return b"bytes %d-%d/%d" % (start, stop - 1, size)


_CONDITIONAL = frozenset((b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"range"))


def _failed(request: Mapping[bytes, bytes], meta: Meta) -> bool:
    if b"if-match" in request:
        return not _matches(request[b"if-match"], meta.etag, strong=True)
    since = _date(request.get(b"if-unmodified-since"))
    return since is not None and bool(meta.modified) and meta.modified > since


def _unchanged(request: Mapping[bytes, bytes], meta: Meta) -> bool:
    if b"if-none-match" in request:
        return _matches(request[b"if-none-match"], meta.etag, strong=False)
    since = _date(request.get(b"if-modified-since"))
    return since is not None and bool(meta.modified) and meta.modified <= since


def _if_range(value: bytes | None, meta: Meta) -> bool:
    """RFC 9110 §13.1.5: a strong tag that equals ours, or exactly our date."""
    if value is None:
        return True
    if value[:1] == b'"':
        return value.decode("latin-1") == meta.etag
    return bool(meta.modified) and _date(value) == meta.modified


def _matches(value: bytes, etag: str, strong: bool) -> bool:
    if value.strip() == b"*":
        return True
    if not etag or (strong and etag.startswith("W/")):
        return False
    tags = _TAG.findall(value.decode("latin-1"))
    if strong:
        return etag in tags
    return etag.removeprefix("W/") in {tag.removeprefix("W/") for tag in tags}


def _date(value: bytes | None) -> int | None:
    try:
        return None if value is None else int(parsedate_to_datetime(value.decode("latin-1")).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None
