"""Where the leaf parts of a message lie, to the byte (RFC 5322, RFC 2045–2049), without taking it apart.

Invariant: a leaf that may be changed (`reason` empty) is one that every reader agrees on. Where readers differ
(the `email` package among them), the leaf, or the whole message, carries a reason and is left alone.

The scan is one pass over the lines that begin with `--`, with a stack of open multiparts:
1. a delimiter of an open multipart (RFC 2046 §5.1.1) ends everything nested deeper, closed or not
2. a close delimiter also ends that multipart; what follows up to the next outer delimiter is epilogue
3. any other line is content
Header values are read by the standard library; bodies are never decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from brandproxy.core.mimetype import ContentType, attached, content_type

MAX_DEPTH, MAX_PARTS = 50, 2000

_FIELD = re.compile(rb"([!-9;-~]+):((?:[^\r\n]*)(?:\r?\n[ \t]+[^\s][^\r\n]*)*)(?:\r?\n|\Z)")
_BLANK = re.compile(rb"\r?\n")
_FROM_LINE = re.compile(rb"From [^\r\n]*\r?\n")
_READ = {"text/html": "html", "text/x-amp-html": "amp", "text/plain": "plain"}
_BLANKETS = {
    "multipart/signed": "signed part",
    "multipart/encrypted": "encrypted part",
    "multipart/report": "delivery report",
}
_DECIDE = {"content-type", "content-transfer-encoding"}
_ENCODINGS = {"7bit", "8bit", "binary", "quoted-printable", "base64"}


class Field(NamedTuple):
    """A header field: the bytes `start:end` with its line end; the value begins at `value`."""

    name: str  # lower-case
    start: int
    value: int
    end: int


class Leaf(NamedTuple):
    """A part without parts. `kind` is html, amp or plain; `reason` says why it is left alone."""

    path: str  # "1", "1.2": position in the tree, for people
    type: str
    kind: str
    charset: str
    encoding: str
    start: int
    end: int
    flowed: bool = False
    delsp: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Structure:
    fields: tuple[Field, ...]
    leaves: tuple[Leaf, ...]
    reason: str = ""  # why the whole message is left alone


@dataclass(slots=True)
class _Multipart:
    boundary: bytes
    path: str
    blanket: str
    digest: bool
    parts: int = 0


@dataclass(frozen=True, slots=True)
class _Head:
    fields: tuple[Field, ...]
    body: int
    reason: str = ""


def parse(message: bytes) -> Structure:
    """The header fields and the leaves of a message. Never raises; linear in its length."""
    head = _top(message)
    if head.reason:
        return Structure((), (), head.reason)
    scan = _Scan(message)
    scan.enter(head, "1", "", False)
    scan.run(head.body)
    return Structure(head.fields, tuple(scan.leaves))


def parse_header(message: bytes) -> tuple[Field, ...]:
    """The header fields alone; none when the header is broken."""
    return () if (head := _top(message)).reason else head.fields


def _top(message: bytes) -> _Head:
    start = _FROM_LINE.match(message)
    return _head(message, start.end() if start else 0)


def value(message: bytes, field: Field) -> bytes:
    """A field's value, unfolded (RFC 5322 §2.2.3), without blanks around."""
    return _unfold(message[field.value : field.end])


@dataclass(slots=True)
class _Scan:
    message: bytes
    leaves: list[Leaf] = field(default_factory=list)
    _open: list[_Multipart] = field(default_factory=list)
    _depth: dict[bytes, int] = field(default_factory=dict)
    _leaf: Leaf | None = None
    _bare: frozenset[bytes] = frozenset()

    def run(self, start: int) -> None:
        """Every line that may be a delimiter, from the line end before `start` on."""
        if not self._open:
            self._close_leaf(len(self.message))
            return
        at = self.message.find(b"\n--", start - 1)
        while at >= 0 and self._open:
            end = _line_end(self.message, at + 1)
            at = self._line(at, end)
            at = self.message.find(b"\n--", at)
        self._close_leaf(len(self.message))
        self._leave(0)

    def _line(self, at: int, end: int) -> int:
        """One candidate line after the line feed at `at`; answers where to search on."""
        text = self.message[at + 3 : end].rstrip(b" \t\r\n")
        depth, closes = self._depth.get(text), False
        if depth is None and text.endswith(b"--"):
            depth, closes = self._depth.get(text[:-2]), True
        if depth is None:
            return end - 1
        self._close_leaf(at - 1 if self.message[at - 1 : at] == b"\r" else at)
        self._leave(depth + 1)
        if closes:
            self._leave(depth)
            return end - 1
        parent = self._open[depth]
        head = _head(self.message, end, self._depth)
        if head.body == end < len(self.message) and not head.reason:
            return end - 1  # the next delimiter follows at once: readers do not count that as a part
        parent.parts += 1
        if len(self.leaves) < MAX_PARTS:
            self.enter(head, f"{parent.path}.{parent.parts}", parent.blanket, parent.digest)
        return head.body - 1

    def enter(self, head: _Head, path: str, blanket: str, digest: bool) -> None:
        """A part begins: a multipart is opened, anything else is a leaf until its end is met."""
        kind = _describe(self.message, head.fields, digest)
        reason = blanket or head.reason or kind.reason
        if not kind.type.startswith("multipart/"):
            self._leaf = _leaf(path, kind, head.body, reason)
            return
        boundary = kind.boundary.encode("latin-1", "replace")
        fault = reason if head.reason or kind.reason else self._fault(boundary, kind)
        if fault:
            self._leaf = _leaf(path, kind, head.body, fault)
            return
        self._depth[boundary] = len(self._open)
        blanket = reason or _BLANKETS.get(kind.type, "")
        self._open.append(_Multipart(boundary, path, blanket, kind.type == "multipart/digest"))

    def _fault(self, boundary: bytes, kind: ContentType) -> str:
        """Why a multipart cannot be taken apart in one way only."""
        if not boundary:
            return "no boundary"
        if len(self._open) >= MAX_DEPTH:
            return "nested too deeply"
        if kind.encoding not in ("7bit", "8bit", "binary"):
            return "encoded multipart"
        if not self._open and b"\r--" in self.message:
            self._bare = frozenset(_after_bare_cr(self.message))
        near = {boundary, boundary + b"--", boundary.removesuffix(b"--")}
        if not near.isdisjoint(self._depth) or not near.isdisjoint(self._bare):
            return "ambiguous boundary"
        return ""

    def _close_leaf(self, end: int) -> None:
        leaf, self._leaf = self._leaf, None
        if leaf is not None:
            self.leaves.append(leaf._replace(end=max(leaf.start, end)))

    def _leave(self, depth: int) -> None:
        """Forget the multiparts from `depth` on; one that never had a part is reported."""
        for part in self._open[depth:]:
            del self._depth[part.boundary]
            if not part.parts:
                self.leaves.append(Leaf(part.path, "multipart", "", "", "", 0, 0, reason="boundary never found"))
        del self._open[depth:]


def _leaf(path: str, kind: ContentType, start: int, reason: str) -> Leaf:
    reads = _READ.get(kind.type, "")
    if not reason and kind.attachment and (kind.attachment == "attachment" or path != "1"):
        reason = "attachment"
    if not reason and kind.type.startswith("message/"):
        reason = "attached message"
    if not reason and kind.type.startswith("application/") and "pkcs7" in kind.type:
        reason = "PKCS#7"
    if not reason and not reads:
        reason = "not text"
    if not reason and kind.encoding not in _ENCODINGS:
        reason = "unknown transfer encoding"
    return Leaf(path, kind.type, reads, kind.charset, kind.encoding, start, start, kind.flowed, kind.delsp, reason)


def _head(message: bytes, start: int, delimiters: dict[bytes, int] | None = None) -> _Head:
    """The header block at `start`. It ends at a blank line, at a delimiter, or at the end of the message."""
    fields: list[Field] = []
    here = start
    while here < len(message):
        blank = _BLANK.match(message, here)
        if blank:
            return _Head(tuple(fields), blank.end())
        if delimiters and message.startswith(b"--", here) and _delimits(message, here, delimiters):
            return _Head(tuple(fields), here)
        match = _FIELD.match(message, here)
        if match is None:
            return _Head(tuple(fields), here, "broken header")
        fields.append(Field(match[1].decode("ascii").lower(), here, match.start(2), match.end()))
        here = match.end()
    return _Head(tuple(fields), here)


def _delimits(message: bytes, start: int, delimiters: dict[bytes, int]) -> bool:
    text = message[start + 2 : _line_end(message, start)].rstrip(b" \t\r\n")
    return text in delimiters or text.removesuffix(b"--") in delimiters


def _describe(message: bytes, fields: tuple[Field, ...], digest: bool) -> ContentType:
    """What the header says of the body. A field given twice with two values is read by some readers in one way and
    by some in the other."""
    seen: dict[str, bytes] = {}
    for item in fields:
        if item.name.startswith("content-"):
            said = value(message, item)
            if seen.setdefault(item.name, said) != said and item.name in _DECIDE:
                return ContentType("", reason="ambiguous header")
    default = b"message/rfc822" if digest else b"text/plain"  # RFC 2046 §5.1.5
    return content_type(
        seen.get("content-type", default),
        seen.get("content-transfer-encoding", b"7bit"),
        attached(seen.get("content-disposition", b"")),
    )


def _after_bare_cr(message: bytes) -> Iterator[bytes]:
    """What stands after `--` on lines that begin after a bare CR: a line for some readers, not for others."""
    for match in re.finditer(rb"\r--([^\r\n]*)", message):
        text = match[1].rstrip(b" \t")
        yield text
        yield text.removesuffix(b"--")


def _line_end(message: bytes, start: int) -> int:
    """The offset after the line feed that ends the line at `start`, or the end of the message."""
    return message.find(b"\n", start) + 1 or len(message)


def _unfold(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"").replace(b"\n", b"").strip()
