"""Transfer encodings (RFC 2045 §6): a body's text, and edits of that text as splices of the bytes on the wire.

Invariant: outside an edit no byte of a body changes. What may be added beside a replaced URL is a line end where
it means nothing: a soft break in quoted-printable, blank space inside a tag in 7bit and 8bit. Lines stay within
76 characters (RFC 2045 §6.7) and 998 octets (RFC 5322 §2.1.1); an edit that cannot is refused, not forced.
A base64 body is encoded anew in lines of its own width.
"""

from __future__ import annotations

import binascii
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from brandproxy.core import charset, iso2022
from brandproxy.core.mime import Leaf
from brandproxy.core.splice import Edit, Layer, Splice, unwrap, wrap

MAX_LINE = 998
_PGP = re.compile(r"(?:^|>)[ \t]*-----BEGIN PGP (?:SIGNED )?MESSAGE-----", re.MULTILINE)


class Body(NamedTuple):
    """The text of a leaf and how it lies on the wire."""

    leaf: Leaf
    text: str
    codec: str
    raw: bytes  # the bytes on the wire
    data: bytes  # the bytes in the body's charset
    width: int = 0  # base64: characters a line
    eol: bytes = b"\r\n"

    def splice(self, edits: Sequence[Edit]) -> tuple[list[Splice], Layer | None, list[int]]:
        """Splices for rising, separate `edits`, the layer of a base64 body, and the indexes of refused edits."""
        spans = self._spans(edits)
        if self.leaf.encoding == "quoted-printable":
            return _quoted(self, spans), None, []
        if self.leaf.encoding == "base64":
            return self._wrapped(spans)
        if self.leaf.encoding == "binary":
            return [self._plain(start, end, edit) for start, end, edit in spans], None, []
        return _lines(self, spans)

    def _spans(self, edits: Sequence[Edit]) -> list[tuple[int, int, Edit]]:
        """(start, end, edit) in bytes of the data."""
        if self.codec == iso2022.CODEC:
            return iso2022.spans(self.data, edits)
        if len(self.text) == len(self.data):  # a byte a character
            return [(edit.start, edit.end, edit) for edit in edits]
        at = iter(charset.sizes(self.text, self.codec, [offset for edit in edits for offset in edit[:2]]))
        return [(next(at), next(at), edit) for edit in edits]

    def encode(self, new: str) -> bytes:
        if new.isascii():
            return new.encode("ascii")
        return new.encode("utf-8" if self.codec == "ascii" else self.codec, "xmlcharrefreplace")

    def _plain(self, start: int, end: int, edit: Edit) -> Splice:
        return Splice(self.leaf.path, self.leaf.start + start, self.data[start:end], self.encode(edit.new))

    def _wrapped(self, spans: list[tuple[int, int, Edit]]) -> tuple[list[Splice], Layer | None, list[int]]:
        path = self.leaf.path
        splices = [Splice(path, start, self.data[start:end], self.encode(edit.new)) for start, end, edit in spans]
        size = len(self.data) + sum(len(s.after) - len(s.before) for s in splices)
        characters = -(-size // 3) * 4
        new_size = characters + max(0, -(-characters // self.width) - 1) * len(self.eol)
        layer = Layer(path, self.leaf.start, len(self.raw), new_size, self.width, self.eol.decode())
        return splices, layer, []


def read(message: bytes, leaf: Leaf) -> Body:
    """The body of a leaf. Raises ValueError with the reason why it is left alone."""
    raw = message[leaf.start : leaf.end]
    raw = raw.rstrip(b"\r\n") if leaf.encoding == "base64" else raw
    first = raw.find(b"\n")
    crlf = raw[first - 1 : first] == b"\r" if first >= 0 else b"\r\n" in message[:1000]
    eol = b"\r\n" if crlf else b"\n"
    width, data = 0, raw
    if leaf.encoding == "quoted-printable":
        data = _unquote(raw)
    elif leaf.encoding == "base64":
        data, width = _unwrap(raw, eol)
    text, codec = charset.decode(data, leaf.charset)
    if reason := sealed(text):
        raise ValueError(reason)
    return Body(leaf, text, codec, raw, data, width, eol)


def sealed(text: str) -> str:
    """`inline PGP` when a body is signed or encrypted in its text, else ""."""
    return "inline PGP" if "-----BEGIN" in text and _PGP.search(text) else ""


def _unwrap(raw: bytes, eol: bytes) -> tuple[bytes, int]:
    """Data and line width of a base64 body that encodes back to itself."""
    width = raw.find(eol) if eol in raw else max(len(raw), 76)  # RFC 2045 §6.8
    try:
        data = unwrap(raw)
    except binascii.Error:
        raise ValueError("irregular base64") from None
    if width % 4 or wrap(data, max(width, 4), eol) != raw:
        raise ValueError("irregular base64")
    return data, max(width, 4)


_MALFORMED = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r?\n|\Z)")
_UNIT = re.compile(rb"=[0-9A-Fa-f]{2}|=\r?\n|[^=]", re.DOTALL)


def _unquote(raw: bytes) -> bytes:
    if _MALFORMED.search(raw):
        raise ValueError("malformed quoted-printable")
    return binascii.a2b_qp(raw)


def _quoted(body: Body, spans: list[tuple[int, int, Edit]]) -> list[Splice]:
    """Splices of the wire bytes; soft breaks keep the new lines within 76 characters."""
    places = _Places(body)
    wire = [(*places.span(start, end), edit) for start, end, edit in spans]
    splices, column, here = [], 0, 0
    for i, (start, end, edit) in enumerate(wire):
        column = _column(body.raw, here, start, column)
        new, column = _fill(body.encode(edit.new), column, body.eol)
        line_end = body.raw.find(b"\n", end)
        line_end = len(body.raw) if line_end < 0 else line_end - (body.raw[line_end - 1 : line_end] == b"\r")
        follows = wire[i + 1][0] if i + 1 < len(wire) else len(body.raw)
        room = 76 if line_end <= follows else 75
        here = end
        if column + min(line_end, follows) - end > room and column:
            new, column = new + b"=" + body.eol, 0
            head = body.raw[end : end + 5]
            if head[:1] in (b"-", b".") or head == b"From ":  # a boundary, a lone dot, an mbox line
                new, column, here = new + b"=%02X" % head[0], 3, end + 1
        splices.append(Splice(body.leaf.path, body.leaf.start + start, body.raw[start:here], new))
    return splices


def _fill(new: bytes, column: int, eol: bytes) -> tuple[bytes, int]:
    """`new` in quoted-printable from `column` on, with soft breaks, and the column after it."""
    out = bytearray()
    for byte in new:
        unit = b"%c" % byte if 33 <= byte <= 126 and byte != 61 else b"=%02X" % byte
        if column + len(unit) > 75:
            out += b"=" + eol
            column = 0
            unit = b"=%02X" % byte if byte in b"-." else unit
        out += unit
        column += len(unit)
    return bytes(out), column


def _column(raw: bytes, here: int, there: int, column: int) -> int:
    """The column at `there`, coming from column `column` at `here`."""
    line = raw.rfind(b"\n", here, there)
    return there - line - 1 if line >= 0 else column + there - here


class _Places:
    """Offsets in decoded data to offsets on the wire: by line first, then unit by unit within one line."""

    def __init__(self, body: Body) -> None:
        self._raw = body.raw
        lines = body.raw.split(b"\n")
        self._wire = [0, *accumulate(len(line) + 1 for line in lines)]
        self._data = [0, *accumulate(map(_decoded_size, lines))]
        self._cursor = (0, 0)  # an offset in the data and where its unit stands: questions rise

    def span(self, start: int, end: int) -> tuple[int, int]:
        first, size = self._place(start)
        if end == start:
            return first, first
        last, size = self._place(end - 1)
        return first, last + size

    def _place(self, offset: int) -> tuple[int, int]:
        """Where the unit of the byte at `offset` stands, and its size."""
        line = bisect_right(self._data, offset, hi=len(self._wire) - 1) - 1
        at, here = max(self._cursor, (self._data[line], self._wire[line]))
        while match := _UNIT.match(self._raw, here):
            soft = match[0][:1] == b"=" and match[0][-1:] == b"\n"
            if at == offset and not soft:
                self._cursor = (at, here)
                return here, match.end() - here
            at += not soft
            here = match.end()
        return len(self._raw), 0


def _decoded_size(line: bytes) -> int:
    """Bytes that a line (without its line feed) decodes to, its line feed included unless soft."""
    escapes = line.count(b"=")
    if not escapes:
        return len(line) + 1
    if line.endswith((b"=", b"=\r")):
        return len(line.removesuffix(b"\r")) - 1 - 2 * (escapes - 1)
    return len(line) + 1 - 2 * escapes


_NAME = re.compile(rb"\s([A-Za-z:_-]{1,40}[ \t]*=[ \t]*[\"'])\Z")


def _lines(body: Body, spans: list[tuple[int, int, Edit]]) -> tuple[list[Splice], Layer | None, list[int]]:
    """7bit and 8bit: a line that was within 998 octets stays so. For each edit, in order:

    1. it fits with all that follows on its line, URLs that get shorter counted at their new length
    2. inside a tag: a line end goes after the closing quote, or before the attribute's name too
    3. it is refused
    """
    splices: list[Splice] = []
    refused: list[int] = []
    path, base = body.leaf.path, body.leaf.start
    data, column, here, line_end, was_long = body.data, 0, 0, -1, False
    for i, (start, end, edit) in enumerate(spans):
        if start > line_end:  # on another line than the edit before
            line = data.rfind(b"\n", max(line_end, 0), start) + 1
            line_end = data.find(b"\n", end)
            line_end = len(data) if line_end < 0 else line_end
            was_long, column, here = line_end - line > MAX_LINE, 0, line
        column += start - here
        here = end
        new = body.encode(edit.new)
        size = column + len(new) + line_end - end
        if (
            size <= MAX_LINE
            or was_long
            or len(new) <= end - start
            or size - _spare(spans, i, line_end) <= MAX_LINE
        ):
            splices.append(Splice(path, base + start, data[start:end], new))
            column += len(new)
        elif broken := _break(body, start, end, new, column):
            splices += broken
            column, here = 0, end + 1
        else:
            refused.append(i)
            column += end - start
    return splices, None, refused


def _spare(spans: list[tuple[int, int, Edit]], after: int, line_end: int) -> int:
    """By how much the URLs of this line that get shorter, after the edit `after`, shorten it."""
    spare, i = 0, after + 1
    while i < len(spans) and spans[i][0] <= line_end:
        start, end, edit = spans[i]
        spare += max(0, end - start - len(edit.new))
        i += 1
    return spare


def _break(body: Body, start: int, end: int, new: bytes, column: int) -> list[Splice]:
    """Splices that put the value of a quoted attribute on a line that ends after its closing quote, or none."""
    path, base, data = body.leaf.path, body.leaf.start, body.data
    name = _NAME.search(data[max(0, start - 60) : start])
    if body.leaf.kind == "plain" or name is None or data[end : end + 1] != data[start - 1 : start]:
        return []
    value = [Splice(path, base + start, data[start:end], new), Splice(path, base + end + 1, b"", body.eol)]
    if column + len(new) + 1 <= MAX_LINE:
        return value
    if len(name[1]) + len(new) + 1 > MAX_LINE or len(name[0]) > column:
        return []
    return [Splice(path, base + start - len(name[1]), b"", body.eol), *value]
