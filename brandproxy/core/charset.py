"""Charsets of mail bodies: which we read, and how characters lie on bytes.

Only stateless charsets that contain ASCII are read, so that a URL's bytes can be replaced without looking at
its neighbours: UTF-16, UTF-7, ISO-2022-* and HZ are not. A body is read only if it encodes back to itself.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

_TEXT = re.compile(
    r"utf-8|ascii|cp\d+|iso8859-\d+|koi8-[rtu]|kz1048|gb\w+|big5\w*|euc_\w+|shift_jis\w*|johab|tis-620|mac-[\w-]+|"
    r"ptcp154|hp-roman8"
)
_ASCII = bytes(range(128))
# What senders write and what they mean (WHATWG Encoding §4.2): the label, then the superset readers use.
_SUPERSETS = {"ascii": "utf-8", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932"}


def decode(body: bytes, label: str) -> tuple[str, str]:
    """(text, codec). Raises ValueError with the reason why the body is left alone."""
    if body.isascii() and label in ("", "utf-8", "us-ascii", "iso-8859-1", "windows-1252"):
        return body.decode("ascii"), "ascii"
    name = codec(label or "us-ascii")
    for candidate in (name, _SUPERSETS.get(name, "")):
        text = candidate and _decode(body, candidate)
        if text:
            return text, candidate
    if name in ("ascii", "iso8859-1", "cp1252"):  # WHATWG: all three are windows-1252, whose holes are C1 controls
        return _windows_1252(body), "latin-1"
    if not body:
        return "", name
    raise ValueError("undecodable")


def sizes(text: str, codec_name: str, at: list[int]) -> list[int]:
    """The byte offsets of the rising character offsets `at`."""
    if text.isascii() or codec_name == "latin-1":
        return at
    out, here, size = [], 0, 0
    for offset in at:
        size += len(text[here:offset].encode(codec_name))
        here = offset
        out.append(size)
    return out


@lru_cache(256)
def codec(label: str) -> str:
    """The codec of a charset label. Raises ValueError: `unknown charset`, or `charset is not ASCII-compatible`."""
    try:
        name = codecs.lookup(label.strip("'\" ")).name
    except (LookupError, ValueError, UnicodeError):
        raise ValueError("unknown charset") from None
    if not _TEXT.fullmatch(name) or _decode(_ASCII, name) != _ASCII.decode("ascii"):
        raise ValueError("charset is not ASCII-compatible")
    return name


def _decode(body: bytes, name: str) -> str:
    """The text, or "" when it cannot be read or would not encode back to the same bytes."""
    try:
        text = body.decode(name)
        return text if name == "utf-8" or text.isascii() or text.encode(name) == body else ""
    except (UnicodeError, LookupError):
        return ""


def _windows_1252(body: bytes) -> str:
    return body.decode("cp1252", "surrogateescape").translate(_C1)


_C1 = {0xDC00 + byte: byte for byte in range(0x80, 0xA0)}
