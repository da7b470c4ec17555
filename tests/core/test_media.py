"""What a tenant's host shows, what it only hands over, and that neither can run script."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.media import type_headers


def headers(declared: str, path: str = "x") -> dict[bytes, bytes]:
    return dict(type_headers(declared, path))


@pytest.mark.parametrize(
    ("declared", "path", "shown"),
    [
        ("image/png", "a", b"image/png"),
        ("", "a/b.JPG", b"image/jpeg"),
        ("application/octet-stream", "a.webp", b"image/webp"),
        ("text/css; charset=UTF-8", "a.css", b"text/css; charset=UTF-8"),
        ("image/svg+xml", "a.svg", b"image/svg+xml"),
        ("", "font.woff2", b"font/woff2"),
    ],
)
def test_images_css_and_fonts_are_shown_under_their_type(declared: str, path: str, shown: bytes) -> None:
    assert headers(declared, path)[b"content-type"] == shown
    assert b"content-disposition" not in headers(declared, path)


@pytest.mark.parametrize(
    ("declared", "path"),
    [("text/html", "x.html"), ("text/html", "x.png"), ("application/xhtml+xml", "x"), ("text/javascript", "x.js"),
     ("", "x.html"), ("", "noextension"), ("multipart/x-mixed-replace", "x"), ("nonsense\r\nx: y", "x")],
)  # fmt: skip
def test_everything_else_is_a_download_of_unknown_bytes(declared: str, path: str) -> None:
    assert headers(declared, path)[b"content-type"] == b"application/octet-stream"
    assert headers(declared, path)[b"content-disposition"].startswith(b"attachment")


def test_a_pdf_is_a_download_that_keeps_its_name() -> None:
    got = headers("application/pdf", 'dir/Größe "1".pdf')
    assert got[b"content-type"] == b"application/pdf"
    assert got[b"content-disposition"] == b"attachment; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%221%22.pdf"


def test_fonts_may_be_read_across_origins_and_only_fonts() -> None:
    assert headers("font/woff2")[b"access-control-allow-origin"] == b"*"
    assert b"access-control-allow-origin" not in headers("image/png")


@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_leaves_without_its_fetters(declared: str, path: str) -> None:
    got = headers(declared, path)
    assert got[b"x-content-type-options"] == b"nosniff"
    assert b"sandbox" in got[b"content-security-policy"]
    assert not any(c in value for value in got.values() for c in b"\r\n\x00")
    assert b"html" not in got[b"content-type"]
    assert b"javascript" not in got[b"content-type"]
