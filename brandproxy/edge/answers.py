"""What the edge answers, as values: a status, headers, a body, and the record that must be on disk first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from http import HTTPStatus
from string import Template

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class Visit:
    """A request as far as answers and records depend on it. `host` is lower-case without port."""

    method: str
    host: str
    address: str  # the client's, before the tenant's address privacy
    agent: str
    hints: str = ""  # comma-joined reasons for core.machines that only the request shows


@dataclass(slots=True)
class Answer:
    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    record: bytes | None = None

    def wire_headers(self) -> list[tuple[bytes, bytes]]:
        return _wire(self.headers, len(self.body))

    def head(self) -> bytes:
        """Status line and headers, without the empty line; HTTP/1.1 (RFC 9112 §4)."""
        return _head(self.status, self.headers, len(self.body))


_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-robots-tag", b"noindex"),
    (b"referrer-policy", b"no-referrer"),
)
NO_STORE = (b"cache-control", b"no-store")

# 43 bytes, one transparent pixel: GIF89a, 1×1, two colours, the first transparent.
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")

_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex"><title>$title</title>
<style>body{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:30em;padding:0 1em;color:#222}
h1{font-size:1.3em}p{color:#555}small{color:#888}</style>
<h1>$title</h1><p>$text</p><small>$brand</small></html>
""")

_CSP = (
    b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def _wire(headers: tuple[tuple[bytes, bytes], ...], length: int) -> list[tuple[bytes, bytes]]:
    return [*headers, *_ALWAYS, (b"content-length", b"%d" % length)]


@lru_cache(maxsize=2048)  # a campaign's few links are clicked by many
def _head(status: int, headers: tuple[tuple[bytes, bytes], ...], length: int) -> bytes:
    lines = [b"%b: %b\r\n" % header for header in _wire(headers, length)]
    start = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode("ascii")
    return b"".join([start, *lines])


def page(status: int, title: str, text: str, brand: str = "") -> Answer:
    """A small page under the tenant's name; never cached, never a redirect, no link on it."""
    body = _PAGE.substitute(title=escape(title), text=escape(text), brand=escape(brand)).encode("utf-8")
    headers = ((b"content-type", b"text/html; charset=utf-8"), NO_STORE, (b"content-security-policy", _CSP))
    return Answer(status, headers, body)


def not_found(brand: str = "") -> Answer:
    text = "This link is not complete or was changed on its way. Please open it again from the message."
    return page(404, "This link does not work", text, brand)


def gone(brand: str = "") -> Answer:
    return page(410, "This link is no longer active", "It was turned off. Nothing is wrong at your side.", brand)


def misdirected() -> Answer:
    """RFC 9110 §15.5.20: the connection was made for another tenant's name."""
    return page(421, "Wrong address", "Please open the link again.")


def not_allowed(methods: str) -> Answer:
    answer = plain(405, HTTPStatus(405).phrase + "\n")
    answer.headers += ((b"allow", methods.encode("ascii")),)
    return answer


def plain(status: int, text: str, kind: bytes = b"text/plain; charset=utf-8") -> Answer:
    return Answer(status, ((b"content-type", kind), NO_STORE), text.encode("utf-8"))


def redirect(location: bytes, record: bytes | None) -> Answer:
    """302 rather than 301 or 307: each click must come back to us, and only as a GET."""
    return Answer(302, ((b"location", location), NO_STORE), b"", record)
