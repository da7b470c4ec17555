"""Splices: the only way a message changes. What is not in a splice is the same byte before and after.

A base64 body has no byte that stands for one character, so its splices count in the decoded body, and a
`Layer` says how the body is wrapped; every other splice counts in the original message. With splices and
layers the original comes back byte for byte (`undo`), because a layer is only made for a body that encodes
back to exactly what it was.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from brandproxy.errors import BadInput


class Edit(NamedTuple):
    """Replace `text[start:end]` of a decoded body by `new`."""

    start: int
    end: int
    new: str


class Splice(NamedTuple):
    """`before` at byte `start` (original message, or decoded body of base64 part `part`) became `after`."""

    part: str
    start: int
    before: bytes
    after: bytes


@dataclass(frozen=True, slots=True)
class Layer:
    """A base64 body at `start` (original message), `size` bytes there and `new_size` after; lines of `width`."""

    part: str
    start: int
    size: int
    new_size: int
    width: int
    eol: str


def apply(message: bytes, splices: Sequence[Splice], layers: Sequence[Layer] = ()) -> bytes:
    """The changed message. Splices lie in the order of their places, without overlap."""
    if not layers:
        return _replace(message, [(start, len(before), after) for _, start, before, after in splices])
    wrapped = {layer.part: layer for layer in layers}
    changes = [(s.start, len(s.before), s.after) for s in splices if s.part not in wrapped]
    for layer in layers:
        inner = [(s.start, len(s.before), s.after) for s in splices if s.part == layer.part]
        body = _replace(unwrap(message[layer.start : layer.start + layer.size]), inner)
        changes.append((layer.start, layer.size, wrap(body, layer.width, layer.eol.encode())))
    return _replace(message, sorted(changes))


def undo(message: bytes, splices: Sequence[Splice], layers: Sequence[Layer] = ()) -> bytes:
    """The original. Raises BadInput when `message` is not what the splices made."""
    wrapped = {layer.part: layer for layer in layers}
    changes: list[tuple[int, Splice | Layer]] = [(s.start, s) for s in splices if s.part not in wrapped]
    changes += [(layer.start, layer) for layer in layers]
    out: list[bytes | memoryview] = []
    view, here, grown = memoryview(message), 0, 0
    for start, change in sorted(changes, key=lambda change: change[0]):
        at = start + grown
        out.append(view[here:at])
        if isinstance(change, Splice):
            size, before, after = len(change.after), change.before, change.after
            _expect(message[at : at + size] == after)
        else:
            size = change.new_size
            inner = [splice for splice in splices if splice.part == change.part]
            try:
                body = undo(unwrap(message[at : at + size]), [_bare(splice) for splice in inner])
            except binascii.Error:
                _expect(False)
            before = wrap(body, change.width, change.eol.encode())
        here = at + size
        grown += size - len(before)
        out.append(before)
    out.append(view[here:])
    return b"".join(out)


def wrap(body: bytes, width: int, eol: bytes) -> bytes:
    """Base64 in lines of `width` characters, without a final line end."""
    text = binascii.b2a_base64(body, newline=False)
    return eol.join(text[i : i + width] for i in range(0, len(text), width))


def unwrap(text: bytes) -> bytes:
    """Raises binascii.Error."""
    return binascii.a2b_base64(text)


def _bare(splice: Splice) -> Splice:
    return Splice("", splice.start, splice.before, splice.after)


def _replace(data: bytes, changes: Iterable[tuple[int, int, bytes]]) -> bytes:
    view, here = memoryview(data), 0
    out: list[bytes | memoryview] = []
    for start, size, new in changes:
        out += (view[here:start], new)
        here = start + size
    out.append(view[here:])
    return b"".join(out)


def _expect(holds: bool) -> None:
    if not holds:
        raise BadInput("the message is not the one this report describes", "Use the report written with it.")
