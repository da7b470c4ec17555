"""Image candidate strings: `srcset` (HTML §4.8.4.2.1, "parse a srcset attribute")."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SPACE_OR_COMMA = re.compile(r"[\t\n\f\r ,]*+")
_URL = re.compile(r"[^\t\n\f\r ]++")
_DESCRIPTORS = re.compile(r"(?:[^(),]++|\([^)]*+\)?|\))*+")


def urls(value: str) -> Iterator[tuple[int, int]]:
    """Spans of the URLs in a srcset value. A comma inside a URL belongs to it; commas at its end do not."""
    pos = 0
    while match := _URL.match(value, _SPACE_OR_COMMA.match(value, pos).end()):  # type: ignore[union-attr]
        url = match[0].rstrip(",")
        yield match.start(), match.start() + len(url)
        pos = match.end()
        if len(url) == len(match[0]):
            pos = _DESCRIPTORS.match(value, pos).end()  # type: ignore[union-attr]
