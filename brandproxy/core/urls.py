"""Destinations: which URLs may be signed into a link and followed, and how they are sent.

Invariant: what `refusal` lets through is one http(s) URL that every URL parser reads the same way, so that
the host a check saw is the host a browser goes to. It is asked when a link is minted and again when followed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote

import idna

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
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")

# RFC 3986 §2.2/2.3 characters plus "%", and those browsers leave alone in a path or query.
_SAFE = "%/:?#[]@!$&'()*+,;=-._~{}|^\\"


def refusal(url: str) -> str | None:
    """Why `url` may not be a destination, as a stable reason, or None when it may.

    Reasons: `too long`, `control character`, `not http(s)`, `user-info`, `backslash`, `bad host`.
    """
    common = _COMMON.fullmatch(url)
    if common is not None and len(url) <= MAX_URL_BYTES:
        return None if _host_ok(common[1]) else "bad host"
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
    return None if _host_ok(match["host"]) else "bad host"


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
    return f"{match['scheme']}://{host_alabel(match['host'])}{port}{quote(match['rest'], safe=_SAFE)}"


_PLAIN = re.compile(r"[!#-;=?-_a-~]*")  # printable ASCII without blank, quote, angle brackets, backtick


def host_of(url: str) -> str:
    """The lower-case host of an http(s) URL as A-labels, or "" when it has none."""
    match = _URL.fullmatch(url)
    if match is None:
        return ""
    try:
        return host_alabel(match["host"])
    except ValueError:
        return ""


def host_alabel(host: str) -> str:
    """`host` in lower-case A-labels (UTS #46, non-transitional, as browsers do). Raises ValueError."""
    if host.isascii():
        return host.lower()
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError:
        return _lenient_alabel(host)


def _lenient_alabel(host: str) -> str:
    """Browsers also follow names IDNA 2008 forbids (emoji): map by UTS #46, then plain punycode."""
    try:
        mapped = idna.uts46_remap(host, std3_rules=False, transitional=False)
    except idna.IDNAError as error:
        raise ValueError("bad host") from error
    labels = [
        label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
        for label in mapped.split(".")
    ]
    return ".".join(labels)


@lru_cache(4096)  # a mail names few hosts
def _host_ok(host: str) -> bool:
    if host.startswith("["):
        return ":" in host
    try:
        name = host_alabel(host)
    except (ValueError, UnicodeError):
        return False
    labels = name.removesuffix(".").split(".")
    return len(name) <= 254 and all(_LABEL.fullmatch(label) for label in labels)


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
