"""Charsets of mail bodies: which we read, and how characters lie on bytes.

Stateless charsets that contain ASCII are read, so that a URL's bytes can be replaced without looking at its
neighbours, and ISO-2022-JP, which `iso2022` knows: UTF-16, UTF-7, other ISO-2022-* and HZ are not. A body is read
only if it encodes back to itself. Labels mean what mail clients take them for (WHATWG Encoding §4.2).
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

from brandproxy.core import iso2022

_TEXT = re.compile(
    r"utf-8|ascii|cp\d+|iso8859-\d+|koi8-[rtu]|kz1048|gb\w+|big5\w*|euc_\w+|shift_jis\w*|johab|tis-620|mac-[\w-]+|"
    r"ptcp154|hp-roman8"
)
_ASCII = bytes(range(128))
# The supersets that readers use for what senders write.
_SUPERSETS = {
    "ascii": ("utf-8",), "gb2312": ("gb18030",), "gbk": ("gb18030",), "euc_kr": ("cp949",),
    "shift_jis": ("cp932",), "big5": ("cp950", "big5hkscs"), "euc_jp": ("euc_jis_2004",),
}  # fmt: skip
# Labels that Python does not know, and databases' names for UTF-8.
_LABELS = {
    "unicode-1-1-utf-8": "utf-8", "unicode11utf8": "utf-8", "unicode20utf8": "utf-8", "x-unicode20utf8": "utf-8",
    "utf8mb3": "utf-8", "utf8mb4": "utf-8", "csiso88596e": "iso8859-6", "csiso88596i": "iso8859-6",
    "csiso88598e": "iso8859-8", "csiso88598i": "iso8859-8", "logical": "iso8859-8", "visual": "iso8859-8",
    "sun_eu_greek": "iso8859-7", "csisolatin9": "iso8859-15", "koi": "koi8-r", "koi8": "koi8-r",
    "koi8-ru": "koi8-u", "mac": "mac-roman", "csmacintosh": "mac-roman", "x-mac-roman": "mac-roman",
    "x-mac-cyrillic": "mac-cyrillic", "x-mac-ukrainian": "mac-cyrillic", "csgb2312": "gb2312",
    "gb_2312": "gb2312", "gb_2312-80": "gb2312", "x-gbk": "gbk", "cn-big5": "big5", "x-x-big5": "big5",
    "cseucpkdfmtjapanese": "euc_jp", "x-euc-jp": "euc_jp", "windows-31j": "cp932", "x-sjis": "shift_jis",
    "cseuckr": "euc_kr", "csksc56011987": "euc_kr", "iso-ir-149": "euc_kr", "ks_c_5601-1989": "euc_kr",
    "ksc_5601": "euc_kr",
}  # fmt: skip
_NUMBERED = re.compile(r"(?:x-)?(?:windows|win|cp|dos|ibm)[-_]?(\d{3,4})")
_ISO_8859 = re.compile(r"iso[-_]?8859[-_]?(\d{1,2})(?:-[ei])?")


def decode(body: bytes, label: str) -> tuple[str, str]:
    """(text, codec). Raises ValueError with the reason why the body is left alone."""
    if body.isascii() and label in ("", "utf-8", "us-ascii", "iso-8859-1", "windows-1252"):
        return body.decode("ascii"), "ascii"
    name = codec(label or "us-ascii")
    if name == iso2022.CODEC:
        return iso2022.decode(body), name
    for candidate in (name, *_SUPERSETS.get(name, ())):
        text = _decode(body, candidate)
        if text:
            return text, candidate
    if name in ("ascii", "iso8859-1", "cp1252"):  # WHATWG: all three are windows-1252, whose holes are C1 controls
        return _windows_1252(body), "latin-1"
    if not body:
        return "", name
    raise ValueError("undecodable")


def sizes(text: str, codec_name: str, at: list[int]) -> list[int]:
    """The byte offsets of the rising character offsets `at`, where characters differ in size."""
    out, here, size = [], 0, 0
    for offset in at:
        piece = text[here:offset]
        size += len(piece) if piece.isascii() else len(piece.encode(codec_name))
        here = offset
        out.append(size)
    return out


@lru_cache(256)
def codec(label: str) -> str:
    """The codec of a charset label. Raises ValueError: `unknown charset`, or `charset is not ASCII-compatible`."""
    label = label.strip("'\" ").lower()
    if label in iso2022.LABELS:
        return iso2022.CODEC
    name = _python(label)
    if not _TEXT.fullmatch(name) or _decode(_ASCII, name) != _ASCII.decode("ascii"):
        raise ValueError("charset is not ASCII-compatible")
    return name


def _python(label: str) -> str:
    """The name of Python's codec for a label."""
    cp, iso = _NUMBERED.fullmatch(label), _ISO_8859.fullmatch(label)
    other = _LABELS.get(label) or (cp and f"cp{cp[1]}") or (iso and f"iso8859-{iso[1]}") or ""
    for name in (label, other):
        try:
            return codecs.lookup(name).name
        except (LookupError, ValueError, UnicodeError):
            continue
    raise ValueError("unknown charset")


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
