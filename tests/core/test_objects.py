"""Names, life times and forms of stored objects."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import brandproxy
from brandproxy.core.links import ours
from brandproxy.core.objects import Life, coding, key, life, minted, web_path
from brandproxy.core.tokens import Asset, KeyRing
from brandproxy.model import Origin, References, SigningKey, Tenant


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.png", "a/b.png"), ("/a.png", "a.png"), ("%C3%BC.png", "ü.png"), ("a.png?v=2", "a.png"),
     ("a..b/c.png", "a..b/c.png"), ("...png", "...png"), ("100%.png", "100%.png")],
)  # fmt: skip
def test_a_path_names_the_object_it_says(path: str, name: str) -> None:
    assert key(path) == name


@given(st.text(alphabet="./%25eEcC\\\x00aä", max_size=30))
def test_no_path_has_a_dot_segment_however_often_it_is_decoded(path: str) -> None:
    from urllib.parse import unquote

    found = key(path)
    text = found or ""
    for _ in range(4):
        assert not {".", ".."} & set(re.split(r"[/\\]", text))
        text = unquote(text)
    assert (web_path(path) is None) == (found is None)


@given(st.text(max_size=50))
def test_any_path_is_a_key_or_refused(path: str) -> None:
    found = web_path(path)
    assert found is None or (found.isascii() and found.isprintable() and " " not in found)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("", Life(True, 60, 600)),
        ("max-age=5", Life(True, 5, 600)),
        ("max-age=5, s-maxage=7", Life(True, 7, 600)),
        ("max-age=0", Life(True, 0, 600)),
        ("no-cache", Life(True, 0, 0)),
        ("max-age=5, must-revalidate", Life(True, 5, 0)),
        ("max-age=5, stale-while-revalidate=9", Life(True, 5, 9)),
        ("no-store", Life(False, 0, 0)),
        ("Private, max-age=9", Life(False, 0, 0)),
    ],
)
def test_copies_live_as_long_as_storage_says(said: str, meant: Life) -> None:
    assert life(said, 60, 600) == meant


@pytest.mark.parametrize(
    ("accepted", "asked"),
    [("", ""), ("gzip", "gzip"), ("gzip, br", "br"), ("br;q=0, gzip;q=0.5", "gzip"), ("*", "br"), ("identity", ""),
     ("gzip;q=0", ""), ("br;q=0.0", ""), ("GZIP", "gzip"), ("gzip;q=x", ""), ("deflate, zstd", "")],
)  # fmt: skip
def test_storage_is_asked_for_one_coding_the_client_takes(accepted: str, asked: str) -> None:
    assert coding(accepted) == asked


def test_a_mail_names_the_variant_its_origin_wants_for_images_only() -> None:
    origin = Origin("media", "https://s/", ("https://media.acme.com/",), variant="w600-webp")
    assert minted((origin,), "media", "a.png?v=1") == "w600-webp"
    assert minted((origin,), "media", "a.svg") == minted((origin,), "media", "a.css") == ""
    key_ = SigningKey(0, b"k" * 32, 0)
    tenant = Tenant("acme", (key_,), origins=(origin,))
    mail = b"Content-Type: text/html\r\n\r\n<img src=https://media.acme.com/a.png>\r\n"
    result = brandproxy.rewrite(mail, tenant, References(), "https://links.acme.com", now=1)
    (url,) = re.findall(rb"src=([^>]+)>", result.message)
    assert ours(KeyRing([key_]), url.decode()) == Asset("media", "a.png", "w600-webp")
    assert brandproxy.unrewrite(result.message, result.report) == mail
