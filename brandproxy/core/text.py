"""URLs in text/plain: which characters they are, however the text was wrapped.

Only URLs with a scheme are links to be rewritten; a bare `www.` name is reported and left as written. What is
decided about a URL never depends on the length of its neighbours, so that a second pass decides the same.
Where a URL ends is linkify-it's judgement (brackets and quotes around it, trailing punctuation, IDN). Before
it looks, in order:
1. `<URL>` and `<URL:…>` (RFC 3986 appendix C): everything between the angle brackets; a line end inside counts
   for nothing when the URL was long enough to be wrapped there, otherwise the URL is left alone
2. format=flowed with DelSp=yes (RFC 3676 §4): soft line ends and space-stuffing are taken out
3. otherwise a URL ends with its line
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MAX_FOUND = 5000  # URLs of one part; the rest is not looked at
_WINDOW = 4200  # characters looked at for one URL: longer ones are left alone anyway
_WRAPPED = 40  # a shorter piece was not broken off because the line was too long

_START = re.compile(r"https?://|(?<![\w@./-])www\.(?=[\w-]+\.)", re.IGNORECASE)
_ANGLED = re.compile(r"(?:[^\s<>\"]|[ \t]?\r?\n(?:[ \t]?>[ \t]?)*[ \t]?(?=[^\s<>]))*", re.IGNORECASE)
_FOLD = re.compile(r"[ \t]?\r?\n(?:[ \t]?>[ \t]?)*[ \t]?")
_SOFT = re.compile(r"(?<!^--) \r?\n((?:>)*) ?", re.MULTILINE)
_QUOTE = re.compile(r">*")


@dataclass(frozen=True, slots=True)
class Url:
    """`text[start:end]` is what stands for the URL, wraps included; `fault` says why it is left as written."""

    start: int
    end: int
    url: str
    fault: str = ""


def find(text: str, flowed: bool = False, delsp: bool = False) -> list[Url]:
    """The URLs of a text/plain body, in order, without overlap, at most MAX_FOUND."""
    found: list[Url] = []
    here = 0
    while len(found) < MAX_FOUND and (match := _START.search(text, here)):
        start = match.start()
        url = _angled(text, start) or _plain(text, start, match.end(), flowed and delsp)
        if url is not None:
            found.append(url)
        here = url.end if url is not None else match.end()
    return found


def _angled(text: str, start: int) -> Url | None:
    if text[start] in "wW":
        return None
    if text[start - 1 : start] != "<" and text[max(0, start - 5) : start].upper() != "<URL:":
        return None
    match = _ANGLED.match(text, start, start + _WINDOW)
    end = match.end() if match else start
    if text[end : end + 1] != ">":
        return None
    body = text[start:end]
    if "\n" not in body:
        return Url(start, end, body)
    wrapped = all(len(piece) >= _WRAPPED for piece in body.split("\n")[:-1])
    return Url(start, end, _FOLD.sub("", body), "" if wrapped else "broken over lines")


def _plain(text: str, start: int, after_scheme: int, joins: bool) -> Url | None:
    window = text[start : start + _WINDOW]
    offsets = None
    if joins and " \n" in window.replace("\r", ""):
        window, offsets = _join(text, start, window)
    scheme = "http:" if window[:4].lower() == "http" else ""
    if not scheme:
        length = _linkify().test_schema_at("http://" + window, "http:", 5)
        return (
            None if length < 3 else Url(start, start + length - 2, "http://" + window[: length - 2], "no scheme")
        )
    colon = window.index(":") + 1
    length = _linkify().test_schema_at(window, "http:", colon)
    if not length:
        return None
    size = colon + length
    end = start + size if offsets is None else offsets[size - 1] + 1
    return Url(start, end, window[:size])


def _join(text: str, start: int, window: str) -> tuple[str, list[int]]:
    """`window` with the soft line ends of its paragraph taken out, and where each character stands."""
    line = text.rfind("\n", max(0, start - 1000), start) + 1
    quote = _depth(text, line)
    out: list[str] = []
    offsets: list[int] = []
    here = 0
    for soft in _SOFT.finditer(window):
        if soft[1] != quote or "\n" in window[here : soft.start()]:
            break
        out.append(window[here : soft.start()])
        offsets += range(start + here, start + soft.start())
        here = soft.end()
    out.append(window[here:])
    offsets += range(start + here, start + len(window))
    return "".join(out), offsets


def _depth(text: str, line: int) -> str:
    match = _QUOTE.match(text, line)
    return match[0] if match else ""


@lru_cache(1)
def _linkify() -> Any:
    from linkify_it import LinkifyIt

    return LinkifyIt(options={"fuzzy_link": False, "fuzzy_email": False})
