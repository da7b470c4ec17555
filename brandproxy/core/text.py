"""URLs in text/plain: which characters they are, however the text was wrapped.

Only URLs with a scheme are links to be rewritten; a bare `www.` name is reported and left as written. What is
decided about a URL never depends on the length of its neighbours, so that a second pass decides the same.
Where a URL ends is linkify-it's judgement (brackets and quotes around it, trailing punctuation, IDN), and ours
for what it lets through: quotes, brackets and stops of other scripts, direction marks, emoji and marks behind it.
Before it looks, in order:
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

from brandproxy.core import policy

MAX_FOUND = 5000  # URLs of one part; the rest is not looked at
_WINDOW = 4200  # characters looked at for one URL: longer ones are left alone anyway
_WRAPPED = 40  # a shorter piece was not broken off because the line was too long

# No URL goes on behind these: typographic quotes and brackets, stops and commas of other scripts, direction marks.
_ENDS = re.compile(
    "[\u060c\u061b\u061f\u06d4\u0964\u200b\u200e\u200f\u201c-\u201f\u2018\u201a\u201b\u2028-\u202e\u2039\u203a"
    "\u2066-\u2069\u3000-\u3002\u3008-\u3011\u3014-\u301f\uff01\uff08\uff09\uff0c\uff0e\uff1a\uff1b\uff1f\uff3b\uff3d"
    "\uff5b\uff5d\uff5f-\uff64\ufeff\xab\xbb`]"
)
# Nor does it end with these: punctuation, an apostrophe, dashes, an ellipsis, a table's bar.
_TAIL = ".,:;!?'\"|\u2010\u2011\u2012\u2013\u2014\u2015\u2019\u2026"
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
        if length < 3:
            return None
        size = _trimmed("", "http://" + window[: length - 2]) - len("http://")
        return Url(start, start + size, "http://" + window[:size], "no scheme")
    colon = window.index(":") + 1
    length = _linkify().test_schema_at(window, "http:", colon)
    if not length:
        return None
    size = _trimmed(text[start - 1 : start], window[: colon + length])
    end = start + size if offsets is None else offsets[size - 1] + 1
    fault = "template placeholder" if policy.PLACEHOLDER.match(text, end) else ""  # it goes on behind it
    return Url(start, end, window[:size], fault)


def _trimmed(before: str, url: str) -> int:
    """How much of what linkify-it took for a URL is one; `before` is the character before it."""
    smallest = url.index("://") + 4
    ends = _ENDS.search(url, smallest)
    end = ends.start() if ends else len(url)
    while before == "*" and url[end - 1] == "*":
        end -= 1  # *https://acme.test/* and **https://acme.test/**
    while True:
        while end > smallest and url[end - 1] in _TAIL:
            end -= 1
        size = end
        while size > smallest and _emoji(url[size - 1]):
            size -= 1
        if size == end or url[size - 1] == "/":  # what is all emoji is the name of a page
            return end
        end = size


def _emoji(char: str) -> bool:
    return "\u2190" <= char <= "\u2bff" or char in "\ufe0f\u200d" or "\U0001f000" <= char <= "\U0001faff"


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
