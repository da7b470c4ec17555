"""Character references in attribute values, as WHATWG HTML §13.2.5.72–80 reads them *in attributes*.

There a named reference without `;` that is followed by `=` or an alphanumeric stays literal, so that
`?a=1&copy=2` keeps its `&copy`. `html.unescape` follows the rule for text and would turn it into `©`.
"""

from __future__ import annotations

import re
from html.entities import html5

_REFERENCE = re.compile(r"&(?:#[xX]([0-9A-Fa-f]++)|#([0-9]++)|([A-Za-z][A-Za-z0-9]*+));?")


def decode(raw: str) -> str:
    """The value of an attribute whose source is `raw`: references decoded, NUL replaced, newlines normalised."""
    if "&" in raw:
        if raw.count("&amp;") == raw.count("&"):  # as in nearly every URL
            raw = raw.replace("&amp;", "&")
        else:
            raw = _REFERENCE.sub(lambda match: _character(match) or match[0], raw)
    if "\0" in raw:
        raw = raw.replace("\0", "\ufffd")
    return raw


def decode_with_offsets(raw: str) -> tuple[str, list[int] | None]:
    """`decode(raw)` and, for each of its characters and its end, the offset in `raw` where it starts.

    The list is None when every character stands for itself.
    """
    if "&" not in raw:
        return raw.replace("\0", "\ufffd"), None
    pieces: list[str] = []
    offsets: list[int] = []
    at = 0
    for match in _REFERENCE.finditer(raw):
        character = _character(match)
        if character is None:
            continue
        start = match.start()
        pieces.append(raw[at:start])
        offsets.extend(range(at, start))
        pieces.append(character)
        offsets.extend([start] * len(character))
        at = start + _length(match, character)
    pieces.append(raw[at:])
    offsets.extend(range(at, len(raw) + 1))
    return "".join(pieces).replace("\0", "\ufffd"), offsets


def _length(match: re.Match[str], character: str) -> int:
    return match.end() - match.start()


def _character(match: re.Match[str]) -> str | None:
    """What one reference stands for, or None when it stays literal."""
    name = match[3]
    if name is None:
        return _numeric(int(match[1], 16) if match[1] else int(match[2][:9]))
    if match[0].endswith(";"):
        return html5.get(name + ";")
    if match.string.startswith("=", match.end()):
        return None
    return html5.get(name)


def _numeric(code: int) -> str:
    """§13.2.5.80 numeric character reference end state."""
    if code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    if 0x80 <= code <= 0x9F:
        return bytes([code]).decode("cp1252", "ignore") or chr(code)
    return chr(code)
