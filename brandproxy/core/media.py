"""Which media types are shown on a tenant's host, which are only downloaded, and with which headers.

Invariant: nothing that is served here can run script in the origin of a tenant's host. Everything carries
`nosniff` and a sandboxing CSP, and types outside the list leave as an attachment of unknown bytes.
"""

from __future__ import annotations

import re
from urllib.parse import quote

# By file extension, for storage that does not know its types. Ours rather than `mimetypes`, whose answers
# depend on the files of the machine.
_BY_EXTENSION = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp",
    "avif": "image/avif", "apng": "image/apng", "bmp": "image/bmp", "ico": "image/x-icon",
    "svg": "image/svg+xml", "tif": "image/tiff", "tiff": "image/tiff", "css": "text/css",
    "woff": "font/woff", "woff2": "font/woff2", "ttf": "font/ttf", "otf": "font/otf",
    "mp4": "video/mp4", "m4v": "video/mp4", "webm": "video/webm", "mov": "video/quicktime",
    "ogv": "video/ogg", "mp3": "audio/mpeg", "m4a": "audio/mp4", "ogg": "audio/ogg", "wav": "audio/wav",
    "pdf": "application/pdf", "ics": "text/calendar",
}  # fmt: skip

INLINE = frozenset(_BY_EXTENSION.values()) - {"application/pdf", "text/calendar"} | {
    "image/jpg", "image/vnd.microsoft.icon", "application/font-woff", "application/font-woff2",
    "application/x-font-ttf", "application/vnd.ms-fontobject", "audio/mp3", "audio/x-wav",
}  # fmt: skip

# A browser that honours `sandbox` will not start its PDF viewer, so these leave as files under their own type.
_DOWNLOAD = frozenset({"application/pdf", "text/calendar"})
_FONTS = re.compile(r"font/.+|application/(x-font-.+|font-.+|vnd\.ms-fontobject)")
_COMPRESSIBLE = frozenset({"image/svg+xml", "text/css"})
_UNKNOWN = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-directory"})
_ESSENCE = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}")
_CHARSET = re.compile(r";\s*charset=\"?([A-Za-z0-9_.:-]{1,40})\"?", re.IGNORECASE)

# The sandbox makes the document's origin opaque and forbids script; the rest lets an SVG keep its own looks.
CSP = b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; sandbox"


def by_name(path: str) -> str:
    """The media type a path's extension names, or an empty string; a query does not count."""
    path = path.partition("?")[0]
    return _BY_EXTENSION.get(path.rpartition(".")[2].lower(), "") if "." in path else ""


def compressible(path: str) -> bool:
    """Whether storage is asked for a compressed form of this object (text that browsers show)."""
    return by_name(path) in _COMPRESSIBLE


def essence(declared: str, path: str) -> str:
    """The media type that storage declared, or the one the object's name says when storage does not know."""
    said = declared.partition(";")[0].strip().lower()
    return by_name(path) if said in _UNKNOWN or not _ESSENCE.fullmatch(said) else said


def type_headers(declared: str, path: str) -> list[tuple[bytes, bytes]]:
    """Content-Type and what keeps it harmless, from the type storage declared and the object's path."""
    kind = essence(declared, path)
    inline = kind in INLINE
    shown = kind if inline or kind in _DOWNLOAD else "application/octet-stream"
    charset = _CHARSET.search(declared) if shown in _COMPRESSIBLE else None
    headers = [
        (b"content-type", (f"{shown}; charset={charset[1]}" if charset else shown).encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", CSP),
        (b"cross-origin-resource-policy", b"cross-origin"),
        (b"timing-allow-origin", b"*"),
    ]
    if not inline:
        headers.append((b"content-disposition", _attachment(path)))
    if _FONTS.fullmatch(shown):
        headers.append((b"access-control-allow-origin", b"*"))  # fonts are always fetched with CORS (Fetch §4.6)
    return headers


def _attachment(path: str) -> bytes:
    """RFC 6266 §4.1 with RFC 8187 encoding of the last path segment."""
    name = path.rstrip("/").rpartition("/")[2] or "file"
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}".encode("ascii", "replace")
