"""URLs in style sheets and style attributes: `url()`, `@import`, `image-set()` (CSS Syntax 3 §4).

Comments, strings and escapes are read as the CSS tokenizer reads them; the span of a URL is what stands
between its quotes or parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_CHARACTER = r"[-_A-Za-z0-9\x80-\U0010ffff]"
_ESCAPED = r"\\(?:[0-9A-Fa-f]{1,6}+(?:\r\n|[ \t\n\r\f])?+|[^\n\r\f0-9A-Fa-f])"  # a hex one takes one blank along
_NAME = rf"(?:{_CHARACTER}|{_ESCAPED})"
_COMMENT = r"/\*(?:[^*]++|\*(?!/)|(?!))*+(?:\*/)?"
_DOUBLE = rf"""(?:[^"\\\n\r\f]++|{_ESCAPED}|\\(?:\r\n|[\n\r\f])|(?!))*+"""
_SINGLE = rf"""(?:[^'\\\n\r\f]++|{_ESCAPED}|\\(?:\r\n|[\n\r\f])|(?!))*+"""
_TOKEN = re.compile(
    rf"{_COMMENT}"
    rf"""|"(?P<double>{_DOUBLE})(?:"|\\?$(?!\n))|'(?P<single>{_SINGLE})(?:'|\\?$(?!\n))"""
    rf"""|"{_DOUBLE}|'{_SINGLE}"""  # a bad string ends before the line break (§4.3.5)
    rf"|(?P<name>[@#]?{_NAME}++)(?P<call>\()?"
    r"|(?P<mark>[;{}()])"
)
# Passes over all that neither is a URL nor changes how one is read, while no rule or function is open.
_SKIP = re.compile(
    r"""(?:[a-hj-tv-zA-HJ-TV-Z0-9_#][-_A-Za-z0-9]*+[ \t\n:;{}.,!%()*>]++"""  # the commonest names and what follows
    rf"""|[^"'/\\@#\-_A-Za-z0-9\x80-\U0010ffff]++|/(?!\*)|{_COMMENT}|"{_DOUBLE}"|'{_SINGLE}'"""
    rf"|@(?!(?i:import|namespace)(?!{_NAME})){_CHARACTER}*+(?!\\)|#{_CHARACTER}*+(?!\\)"
    rf"|(?!(?i:url|(?:-webkit-)?image-set)\(){_CHARACTER}++(?!\\)|(?!))*+"
)
_SPACE = r"[ \t\n\r\f]*+"
_QUOTE_NEXT = re.compile(rf"{_SPACE}[\"']")
_UNQUOTED = re.compile(
    rf"{_SPACE}((?:[^\"'()\\ \t\n\r\f\x01-\x08\x0b\x0e-\x1f\x7f]++|{_ESCAPED}|(?!))*+){_SPACE}(?:\)|$(?!\n))"
)
_BAD_URL = re.compile(r"(?:[^)\\]++|\\[\s\S]|(?!))*+\)?")
_ESCAPE = re.compile(r"\\(?:([0-9A-Fa-f]{1,6})(?:\r\n|[ \t\n\r\f])?|\r\n|[\n\r\f]|([\s\S])|$)")


def unescape(text: str) -> str:
    """A CSS string, url or identifier with its escapes decoded (§4.3.7)."""
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(match: re.Match[str]) -> str:
    if match[1]:
        code = int(match[1], 16)
        return "\ufffd" if code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF else chr(code)
    return match[2] or ""


def urls(css: str) -> Iterator[tuple[int, int, str, str]]:
    """(start, end, url, place) of every URL that a client loads; place is "url()", "@import" or "image-set()".

    `@namespace` names a vocabulary and loads nothing, so its URL is not given.
    """
    pos, rule = 0, ""
    calls: list[str] = []  # the functions and parentheses open here
    last = _last_hint(css)
    while (pos <= last or rule or calls) and (match := _next(css, pos, not rule and not calls)):
        pos = match.end()
        kind = match.lastgroup
        if kind in ("name", "call"):
            name = unescape(match["name"]).lower()
            if name.startswith("@"):
                rule = name if name in ("@import", "@namespace") else ""
            if kind == "name":
                continue
            if name != "url" or _QUOTE_NEXT.match(css, pos):
                calls.append(name)
                continue
            start, end, pos = _unquoted(css, pos)
            place = _place(rule, ["url"])
        elif kind in ("double", "single"):
            start, end = match.span(kind)
            place = _place(rule, calls)
        else:
            rule = _mark(match["mark"], rule, calls)
            continue
        if place and end > start:
            yield start, end, unescape(css[start:end]), place
            rule = "" if place == "@import" else rule


def _last_hint(css: str) -> int:
    """The last place where a URL may begin or -1: none is without `url(`, `image-set(`, `@import` or an escape."""
    last = css.rfind("\\")
    at = len(css)
    while (at := css.rfind("(", last + 1, at)) >= 0:  # found far faster than the words before it
        if css[at - 3 : at].lower() in ("url", "set"):
            last = at
    at = len(css)
    while (at := css.rfind("@", last + 1, at)) >= 0:
        if css[at + 1 : at + 7].lower() == "import":
            last = at
    return last


def _next(css: str, pos: int, idle: bool) -> re.Match[str] | None:
    return _TOKEN.search(css, _SKIP.match(css, pos).end() if idle else pos)  # type: ignore[union-attr]


def _place(rule: str, calls: list[str]) -> str:
    """What a string or url() is here, or "" when clients load nothing from it."""
    call = calls[-1] if calls else ""
    if rule == "@namespace":
        return ""
    if rule == "@import" and call in ("", "url"):
        return "@import"
    if call == "url":
        return "url()"
    return "image-set()" if call in ("image-set", "-webkit-image-set") else ""


def _mark(mark: str | None, rule: str, calls: list[str]) -> str:
    """Follow one of `;{}()`; the at-rule that goes on after it."""
    if mark == "(":
        calls.append("")
    elif mark == ")" and calls:
        calls.pop()
    elif mark and mark in ";{}":
        calls.clear()
        return ""
    return rule


def _unquoted(css: str, pos: int) -> tuple[int, int, int]:
    """After `url(`: the span of the URL (empty when it is a bad one) and where to go on (§4.3.6)."""
    match = _UNQUOTED.match(css, pos)
    if match:
        return match.start(1), match.end(1), match.end()
    bad = _BAD_URL.match(css, pos)
    return pos, pos, bad.end() if bad else len(css)
