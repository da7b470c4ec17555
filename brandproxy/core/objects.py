"""Names, life times and forms of stored objects: the rules the cache and the origins share. Pure.

An object's path is URL text as it stood in the mail behind the origin's public prefix: still percent-encoded,
perhaps with a query. Web storage gets it as it is; storage with keys and files gets `key` of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from brandproxy.core.media import by_name
from brandproxy.model import Origin

MAX_PATH = 2048
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\]")
_SECONDS = re.compile(r"(?:^|[,\s])(max-age|s-maxage|stale-while-revalidate|stale-if-error)=\"?(\d{1,9})")
_VARIANT = re.compile(r"(?:w([1-9]\d{0,3}))?(-?(webp|avif|jpeg|png))?")
_CODING = re.compile(r"(gzip|br|\*)\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*", re.IGNORECASE)


def key(path: str) -> str | None:
    """The storage key of a path, or None when it could name something outside its origin.

    Refused: dot segments however often they are encoded, backslashes, control characters, an empty name.
    """
    if len(path) > MAX_PATH or not path:
        return None
    try:
        name = unquote_to_bytes(path.partition("?")[0].partition("#")[0]).decode("utf-8").lstrip("/")
    except UnicodeError:
        return None
    deeper = name
    for _ in range(3):  # storage behind another proxy may decode once more
        if _UNFIT.search(deeper) or any(part in (".", "..") for part in deeper.split("/")):
            return None
        deeper = unquote_to_bytes(deeper).decode("utf-8", "replace")
    return name if name and not name.endswith("/") else None


def web_path(path: str) -> str | None:
    """The path as a relative URL reference in ASCII, under the same rules as `key`."""
    return None if key(path) is None else quote(path.lstrip("/"), safe="%/:?@!$&'()*+,;=-._~")


@dataclass(frozen=True, slots=True)
class Life:
    """How long a shared cache may use an object: `fresh` seconds without asking, then `stale` seconds while it
    asks or while storage fails. `keep` False: not at all."""

    keep: bool
    fresh: int
    stale: int


def life(cache_control: str, fresh: int, stale: int) -> Life:
    """RFC 9111 §5.2.2 for a shared cache, RFC 5861; `fresh` and `stale` when storage does not say."""
    text = cache_control.lower()
    if "no-store" in text or "private" in text:
        return Life(False, 0, 0)
    said: dict[str, str] = dict(_SECONDS.findall(text))
    lives = int(said.get("s-maxage") or said.get("max-age") or fresh)
    late = int(said.get("stale-while-revalidate") or said.get("stale-if-error") or stale)
    if "no-cache" in text:
        lives = 0
    if re.search(r"no-cache|must-revalidate|proxy-revalidate", text):
        late = 0
    return Life(True, lives, late)


@dataclass(frozen=True, slots=True)
class Variant:
    """A smaller form of an image: at most `width` pixels wide (0: as it is), as `format` (empty: as it is)."""

    width: int = 0
    format: str = ""


def variant(text: str) -> Variant | None:
    """The variant a token names (`w600`, `webp`, `w600-avif`), or None when it names none that we know."""
    match = _VARIANT.fullmatch(text)
    if match is None or not text or (match[1] and match[2] and not match[2].startswith("-")):
        return None
    return None if text.startswith("-") else Variant(int(match[1] or 0), match[3] or "")


_RASTER = frozenset(("image/png", "image/jpeg", "image/webp", "image/bmp", "image/tiff"))


def minted(origins: Iterable[Origin], name: str, path: str) -> str:
    """The variant a new link to an object carries: its origin's, for images that have forms; else none."""
    found = next((origin.variant for origin in origins if origin.name == name), "")
    return found if found and by_name(path.partition("?")[0]) in _RASTER else ""


def coding(accept_encoding: str) -> str:
    """The one content coding storage is asked for on behalf of a client: `br`, `gzip` or none ("")."""
    found: dict[str, float] = {}
    for part in accept_encoding.split(","):
        match = _CODING.fullmatch(part.strip())
        if match is not None:
            found[match[1].lower()] = float(match[2] or 1)
    return next((name for name in ("br", "gzip") if found.get(name, found.get("*", 0)) > 0), "")
