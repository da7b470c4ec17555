"""ISO-2022-JP (RFC 1468): the charset of Japanese mail, in which an escape sequence says what the next bytes are.

A body is read as runs of one set of characters each. An edit is fitted between them: what is put in is ASCII, and
the bytes after it find the set they were written in. Sets and escapes are those that clients read (WHATWG Encoding
§12.2); two-byte characters that no codec knows still count as one character.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from brandproxy.core.splice import Edit

CODEC = "iso-2022-jp"
LABELS = {CODEC, "iso2022jp", "csiso2022jp", "iso-2022-jp-ms", "cp50220", "cp50221", "x-windows-iso2022jp"}
_ASCII = b"\x1b(B"
_RUN = re.compile(rb"(\x1b(?:\([BJI]|\$[@B]))|([^\x1b]+)")
_FITS = {
    _ASCII: re.compile(rb"[\x00-\x7f]*"),
    b"\x1b(J": re.compile(rb"[\x00-\x7f]*"),
    b"\x1b(I": re.compile(rb"[\x21-\x5f]*"),
    b"\x1b$@": re.compile(rb"(?:[\x21-\x7e]{2})*"),
    b"\x1b$B": re.compile(rb"(?:[\x21-\x7e]{2})*"),
}
_ROMAN = str.maketrans({"\\": "¥", "~": "‾"})
_HIGH = bytes(byte | 0x80 for byte in range(256))


@dataclass(frozen=True, slots=True)
class _Run:
    start: int  # in the data
    width: int  # bytes a character
    escape: bytes  # the set it is written in


def decode(data: bytes) -> str:
    """The text. Raises ValueError when readers would not agree on it, as where a line ends in another set."""
    return "".join(_text(data[start:end], escape) for start, end, escape in _runs(data))


def spans(data: bytes, edits: Sequence[Edit]) -> list[tuple[int, int, Edit]]:
    """(start, end, edit) in bytes for edits of the text of `data`, with the escapes that each needs around it."""
    begins: list[int] = []  # in characters
    runs: list[_Run] = []
    size = 0
    for start, end, escape in _runs(data):
        run = _Run(start, _width(escape), escape)
        begins.append(size)
        runs.append(run)
        size += (end - start) // run.width

    def place(character: int) -> tuple[int, _Run]:
        index = max(0, bisect_right(begins, character) - 1)
        return runs[index].start + (character - begins[index]) * runs[index].width, runs[index]

    out = []
    for edit in edits if runs else ():
        first, before = place(edit.start)
        last, after = first, before
        if edit.end > edit.start:
            last, after = place(edit.end - 1)
            last += after.width
        out.append((first, last, _fitted(edit, before.escape, after.escape, data[last : last + 1])))
    return out or [(0, 0, edit) for edit in edits]


def _fitted(edit: Edit, before: bytes, after: bytes, follows: bytes) -> Edit:
    new = edit.new
    if new and before != _ASCII:
        new = _ASCII.decode() + new
    now = _ASCII if new else before
    if now != after and follows not in (b"", b"\x1b"):
        new += after.decode()
    return edit._replace(new=new)


def _runs(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, escape) of every stretch of characters of one set."""
    here, escape = 0, _ASCII
    while here < len(data):
        match = _RUN.match(data, here)
        if match is None or (match[2] and not _FITS[escape].fullmatch(match[2])):
            raise ValueError("undecodable")
        here = match.end()
        if match[1]:
            escape = match[1]
        else:
            yield match.start(), here, escape


def _width(escape: bytes) -> int:
    return 2 if escape[1:2] == b"$" else 1


def _text(run: bytes, escape: bytes) -> str:
    if escape == b"\x1b(I":
        return "".join(chr(0xFF61 + byte - 0x21) for byte in run)
    if _width(escape) == 1:
        text = run.decode("ascii")
        return text if escape == _ASCII else text.translate(_ROMAN)
    high = run.translate(_HIGH)
    text = high.decode("euc_jp", "replace")
    if "\ufffd" not in text and len(text) * 2 == len(run):
        return text
    return "".join(_character(high[at : at + 2]) for at in range(0, len(high), 2))


def _character(pair: bytes) -> str:
    text = pair.decode("euc_jis_2004", "replace")
    return text if len(text) == 1 else "\ufffd"
