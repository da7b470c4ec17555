"""Destinations: which URLs may be signed into a link and followed, and how they are sent.

Invariant: what `refusal` lets through is one http(s) URL that every URL parser reads the same way, so that
the host a check saw is the host a browser goes to. It is asked when a link is minted and again when followed.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote

from brandproxy.core import url_host

MAX_URL_BYTES = 4096

_URL = re.compile(
    r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\\\[\]%<>\"'`{}|^]+)"
    r"(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<rest>(?:[/?#].*)?)",
    re.DOTALL,
)
# The common form: each character stands for itself to every reader, so that only length and host are left to ask.
_COMMON = re.compile(r"https?://([A-Za-z0-9.-]+)(?:[/?#][!#$%&'()*+,./0-9:;=?@A-Z_a-z~-]*+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")

# RFC 3986 §2.2/2.3 characters plus "%", and those browsers leave alone in a path or query.
_SAFE = "%/:?#[]@!$&'()*+,;=-._~{}|^\\"


def refusal(url: str) -> str | None:
    """Why `url` may not be a destination, as a stable reason, or None when it may.

    Reasons: `too long`, `control character`, `not http(s)`, `user-info`, `backslash`, `bad host`.
    """
    common = _COMMON.fullmatch(url)
    if common is not None and len(url) <= MAX_URL_BYTES:
        return None if url_host.to_ascii(common[1]) else "bad host"
    if len(url) > MAX_URL_BYTES or (not url.isascii() and _utf8_length(url) > MAX_URL_BYTES):
        return "too long"
    if not url.isprintable() and _CONTROL.search(url):  # nothing printable is a control character
        return "control character"
    match = _URL.fullmatch(url)
    if match is None:
        return _why_no_match(url)
    if "\\" in url and "\\" in match["rest"].split("?", 1)[0].split("#", 1)[0]:
        return "backslash"
    if match["port"] and int(match["port"]) > 65535:
        return "bad host"
    return None if url_host.to_ascii(match["host"]) else "bad host"


def location(url: str) -> str:
    """`url` as an ASCII Location value (RFC 3987 §3.1): everything that was ASCII stays byte for byte.

    Non-ASCII characters and blanks are percent-encoded as UTF-8, a non-ASCII host becomes A-labels.
    Raises ValueError when `refusal(url)` is not None.
    """
    reason = refusal(url)
    if reason is not None:
        raise ValueError(reason)
    if url.isascii():
        return url if _PLAIN.fullmatch(url) else quote(url, safe=_SAFE)
    match = _URL.fullmatch(url)
    assert match is not None  # refusal() saw it
    port = "" if match["port"] is None else ":" + match["port"]
    host = match["host"] if match["host"].isascii() else url_host.to_ascii(match["host"])
    return f"{match['scheme']}://{host}{port}{quote(match['rest'], safe=_SAFE)}"


_PLAIN = re.compile(r"[!#-;=?-_a-~]*")  # printable ASCII without blank, quote, angle brackets, backtick


class Parts(NamedTuple):
    """A destination as written, but for its scheme, which is in lower case."""

    scheme: str
    host: str
    port: str  # empty: none given
    rest: str


def split(url: str) -> Parts | None:
    """The parts of a destination; None for what `refusal` refuses."""
    match = _URL.fullmatch(url) if refusal(url) is None else None
    return match and Parts(match["scheme"].lower(), match["host"], match["port"] or "", match["rest"])


def host_of(url: str) -> str:
    """The canonical host of an http(s) URL, or "" when it has none."""
    match = _URL.fullmatch(url)
    return (match and url_host.canonical(match["host"])) or ""


def _why_no_match(url: str) -> str:
    scheme, colon, rest = url.partition(":")
    if not colon or scheme.lower() not in ("http", "https"):
        return "not http(s)"
    if "\\" in rest.split("?", 1)[0].split("#", 1)[0]:
        return "backslash"
    authority = re.split(r"[/?#]", rest.removeprefix("//"), maxsplit=1)[0]
    return "user-info" if "@" in authority else "bad host"


def _utf8_length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
