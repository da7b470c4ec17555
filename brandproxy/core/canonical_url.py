"""The canonical form of a URL: what is compared. What is sent is always the URL itself, as `urls.location` says.

Two URLs have the same form when a browser asks the same server for the same thing: scheme and host in lower case,
A-labels (UTS #46), no default port, dot segments resolved, unreserved octets decoded and all others
percent-encoded in upper case (RFC 3986 §6.2.2, and what browsers encode), no fragment, no empty query.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from brandproxy.core import url_host, urls

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# Reserved characters stand for themselves (RFC 3986 §2.2). Not so `'`, which browsers encode in queries,
# and brackets, which some clients encode in paths.
_ODD = re.compile(rb"%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~/?!$&()*+,;=:@%]")
_COMMON = re.compile(r"(https?)://([a-z0-9.-]+)(/[A-Za-z0-9_~/-]*)?")  # nothing in it has another spelling
_DOT = re.compile(r"%2[eE]")
DOT_SEGMENT = re.compile(r"(?:^|/)(?:\.|%2[eE]){1,2}(?:/|$)")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class CanonicalURL:
    """`port` is empty for the scheme's own, `path` starts with a slash, `query` is without its question mark."""

    scheme: str
    host: str
    port: str
    path: str
    query: str

    @property
    def site(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    def __str__(self) -> str:
        return f"{self.scheme}://{self.site}{self.target}"


@lru_cache(2048)  # a campaign's few links are clicked by many
def canonical(url: str) -> CanonicalURL | None:
    """The canonical form of a destination; None for what `urls.refusal` refuses."""
    common = _COMMON.fullmatch(url)
    if common is not None and urls.refusal(url) is None:
        return CanonicalURL(common[1], common[2].removesuffix("."), "", common[3] or "/", "")
    parts = urls.split(url)
    if parts is None:
        return None
    scheme, host, port, rest = parts
    found = url_host.canonical(host)
    assert found  # refusal() saw it
    port = port.lstrip("0") or ("0" if port else "")
    path, _, query = rest.partition("#")[0].partition("?")
    return CanonicalURL(
        scheme, found, "" if port == _DEFAULT_PORTS[scheme] else port, without_dots(octets(path)), octets(query)
    )


def octets(text: str) -> str:
    """`text` of a path or query with each octet spelled in the one way."""
    if text.isascii() and text.replace("/", "").isalnum():
        return text
    return _ODD.sub(_octet, text.encode("utf-8", "surrogatepass")).decode("ascii")


def host_pattern(pattern: str) -> str:
    """A host glob in the form that canonical hosts are compared in: A-labels, no final dot; `*` stands."""
    labels = pattern.lower().removesuffix(".").split(".")
    return ".".join(label if label.isascii() else url_host.canonical(label) or label for label in labels)


def _octet(match: re.Match[bytes]) -> bytes:
    found = match[0]
    value = int(found[1:], 16) if len(found) == 3 else found[0]
    return bytes((value,)) if value in _UNRESERVED else b"%%%02X" % value


def without_dots(path: str) -> str:
    """A path with its dot segments resolved (RFC 3986 §5.2.4); `%2e` is a dot and empty segments count, as in
    browsers."""
    if not DOT_SEGMENT.search(path):
        return path or "/"
    out: list[str] = []
    segments = path.removeprefix("/").split("/")
    for number, segment in enumerate(segments, 1):
        plain = _DOT.sub(".", segment)
        if plain == "..":
            del out[-1:]
        if plain not in (".", ".."):
            out.append(segment)
        elif number == len(segments):
            out.append("")
    return "/" + "/".join(out)


def names_above(host: str) -> Iterator[str]:
    """The host itself and every name above it; an address has none above."""
    yield host
    if not host.startswith("[") and not host.rpartition(".")[2].isdigit():
        while "." in host:
            host = host.partition(".")[2]
            yield host
