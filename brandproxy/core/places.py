"""Which attributes of which elements hold URLs, which marks opt them out, and how a URL is resolved."""

from __future__ import annotations

import re

from brandproxy.core.canonical_url import without_dots

# element → attribute → role. `src` of input and `href` of link depend on other attributes.
URL_ATTRIBUTES: dict[str, dict[str, str]] = {
    "a": {"href": "link"},
    "area": {"href": "link"},
    "img": {"src": "asset", "srcset": "asset"},
    "image": {"src": "asset", "srcset": "asset"},  # read as img (HTML §13.2.6.4.7)
    "source": {"src": "asset", "srcset": "asset"},
    "video": {"src": "asset", "poster": "asset"},
    "audio": {"src": "asset"},
    "input": {"src": "asset"},
    "link": {"href": "asset"},
    "amp-img": {"src": "asset", "srcset": "asset"},
    "amp-anim": {"src": "asset", "srcset": "asset"},
    "amp-video": {"src": "asset", "poster": "asset"},
}
SVG_ATTRIBUTES: dict[str, dict[str, str]] = {
    "a": {"href": "link", "xlink:href": "link"},
    "image": {"href": "asset", "xlink:href": "asset"},
}
VML = {"href": "link", "src": "asset"}  # any element named v:…
_LINK_RELATIONS = frozenset(("stylesheet", "icon", "apple-touch-icon", "apple-touch-icon-precomposed"))
_AFTER_MARK = re.compile(r"[\t\n\f\r ]++[^=]|[/>]")
_TRIM = "".join(map(chr, range(0x21)))
_BREAKS = re.compile(r"[\t\n\r]")
_BASE = re.compile(r"([^/?#]*//[^/?#]*)([^?#]*)((?:\?[^#]*)?)")  # site, path, query
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*+:")
_REFRESH = re.compile(
    r"[\t\n\f\r ]*+(?:[0-9]++[0-9.]*+|\.[0-9.]*+)(?:[\t\n\f\r ]*+[;,][\t\n\f\r ]*+|[\t\n\f\r ]++)"
    r"(?:[uU][rR][lL][\t\n\f\r ]*+=[\t\n\f\r ]*+)?(?:\"([^\"]*+)|'([^']*+)|([\s\S]*+))"
)


def loads_asset(name: str, other: dict[str, str]) -> bool:
    """Whether `input src` and `link href` load something, given the element's other attributes."""
    if name == "input":
        return other.get("type", "").strip().lower() == "image"
    if name == "link":
        return not _LINK_RELATIONS.isdisjoint(other.get("rel", "").lower().split())
    return True


def mark(name: str, value: str) -> str:
    """What a mark attribute says: "" nothing, "private", or the words a report shows for an opt-out."""
    value = value.strip().lower()
    if name == "data-brandproxy":
        return {"off": "data-brandproxy=off", "private": "private"}.get(value, "")
    if name == "clicktracking":
        return "clicktracking=off" if value == "off" else ""
    if name == "data-msys-clicktrack":
        return "data-msys-clicktrack=0" if value in ("0", "false") else ""
    return "" if value in ("false", "0", "no") else name


def mark_span(text: str, start: int, end: int) -> tuple[int, int]:
    """What to delete of `text` so that the attribute at `start:end` is gone and its neighbours read the same.

    (0, 0) when they would not: `x data-brandproxy="off" =y` and its like.
    """
    after = _AFTER_MARK.match(text, end)
    if after is None or (text[start - 1] == "/" and text[end] == ">"):
        return 0, 0
    while text[end] != "/" and text[start - 1] in "\t\n\f\r ":
        start -= 1
    # With a ">" behind the mark, or behind the next one, these would end a comment.
    if text.endswith(("--", "--!"), 0, start):
        return 0, 0
    return start, end


def trim(url: str) -> str:
    """A URL attribute's value as the URL parser begins with it (WHATWG URL §4.4 steps 1–3)."""
    url = url.strip(_TRIM)
    return _BREAKS.sub("", url) if "\n" in url or "\t" in url or "\r" in url else url


def resolve(url: str, base: str) -> str:
    """`url` (trimmed) against `base` (an absolute http(s) URL or ""); without a base `//host` is https.

    Backslashes stay, so that `urls.refusal` sees them.
    """
    if url.startswith(("https://", "http://")):
        return url
    if url[:1] in "/\\" and url[1:2] in ("/", "\\"):
        return (base.partition(":")[0] or "https") + ":" + url
    if not base or _SCHEME.match(url):
        return url
    return _join(base, url)


def _join(base: str, url: str) -> str:
    """A reference without scheme or host against an http(s) URL (RFC 3986 §5.2; browsers read `%2e` as a dot)."""
    site, path, query = _BASE.match(base).groups()  # type: ignore[union-attr]
    path = without_dots(path)
    if url.startswith("#"):
        return f"{site}{path}{query}{url}"
    size = next((i for i, char in enumerate(url) if char in "?#"), len(url))
    if size:
        path = without_dots(url[:size] if url[0] == "/" else path[: path.rfind("/") + 1] + url[:size])
    return f"{site}{path}{url[size:]}"


def refresh_span(content: str) -> tuple[int, int]:
    """The span of the URL in a `meta refresh` content (HTML §4.2.5.3), (0, 0) when it names none."""
    match = _REFRESH.match(content)
    return match.span(match.lastindex or 0) if match and match.lastindex else (0, 0)
