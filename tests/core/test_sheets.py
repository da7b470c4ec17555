"""A style sheet served under the tenant's name goes on naming the files it named."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace

import pytest

from brandproxy.core import css, links, sheets
from brandproxy.core.tokens import Asset
from brandproxy.model import Origin, Policy, SigningKey, Tenant

OWNER = Tenant(
    "acme",
    (SigningKey(0, b"k" * 32, 0),),
    origins=(
        Origin(
            "media",
            "s3://bucket/x",
            ("https://media.acme.test/mail/", "http://old.acme.test/"),
            variant="w600-webp",
        ),
        Origin("fonts", "file:///f/", ("https://fonts.acme.test/",)),
    ),
)
RING = links.key_ring(OWNER.keys)
SHEET = Asset("media", "css/mail.css?v=2")


def resolved(text: str, owner: Tenant = OWNER) -> str:
    made = sheets.resolved(text.encode(), "", owner, links.key_ring(owner.keys), SHEET)
    assert made is not None
    return made.decode()


def named(text: str) -> list[Asset | str]:
    """What the sheet's URLs stand for: assets by their tokens, other URLs as they are."""
    found: list[Asset | str] = []
    for _, _, url, _ in css.urls(resolved(text)):
        payload = links.ours(RING, url.replace("../", "https://links.acme.test/a/", 1))
        found.append(payload if isinstance(payload, Asset) else url)
    return found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a{b:url(a.png)}", Asset("media", "css/a.png", "w600-webp")),
        ('a{b:url( "../img/a.png" )}', Asset("media", "img/a.png", "w600-webp")),
        ("a{b:url('/mail/img/a%20b.svg?x=1#part')}", Asset("media", "img/a%20b.svg?x=1")),
        ("a{b:url(https://old.acme.test/a.gif)}", Asset("media", "a.gif")),
        ("a{b:url(//fonts.acme.test/f.woff2)}", Asset("fonts", "f.woff2")),
        ("@import 'more.css' screen;", Asset("media", "css/more.css")),
        ("a{b:image-set('\\61.png' 2x)}", Asset("media", "css/a.png", "w600-webp")),
        ("a{b:url(/other/a.png)}", "https://media.acme.test/other/a.png"),
        ("a{b:url(../../../a.png)}", "https://media.acme.test/a.png"),
        ('a{b:url("/o/a\'b (c)\\"d.png")}', "https://media.acme.test/o/a%27b%20%28c%29%22d.png"),
        ("a{b:url(https://cdn.test/a.png)}", "https://cdn.test/a.png"),
        ("a{b:url(data:image/gif;base64,R0)}", "data:image/gif;base64,R0"),
        ("a{b:url(#shape)}", "#shape"),
        ("a{b:url(?x)}", Asset("media", "css/mail.css?x")),
    ],
)
def test_every_url_of_a_sheet_holds_at_its_new_address(text: str, what: Asset | str) -> None:
    assert named(text) == [what]


def test_nothing_but_urls_changes_whatever_the_bytes_are() -> None:
    before = (
        b"@charset \"x\";\r\n/* url(no.png) \xff\xfe */ a::after{content:'\xc3\xbc url(no.png)'} b{c:url(a.svg)}\n"
    )
    made = sheets.resolved(before, "", OWNER, RING, SHEET)
    assert made is not None
    head, _, tail = before.partition(b"a.svg")
    assert made.startswith(head)
    assert made.endswith(tail)
    assert b"../" in made
    assert sheets.resolved(b"", "", OWNER, RING, SHEET) == b""


def test_without_assets_or_keys_the_files_load_from_where_they_did() -> None:
    url = "https://media.acme.test/mail/css/a.png"
    off = replace(OWNER, policy=Policy(assets=False))
    revoked = replace(OWNER, keys=(replace(OWNER.keys[0], revoked_at=1),))
    for owner in (off, revoked):
        assert resolved("a{b:url(a.png)}", owner) == f"a{{b:url({url})}}"
        assert sheets.form(owner) != sheets.form(OWNER)


def test_a_packed_sheet_is_unpacked_within_bounds_and_served_as_it_is_otherwise() -> None:
    text = b"a{b:url(a.png)}"
    assert sheets.resolved(gzip.compress(text), "gzip", OWNER, RING, SHEET) == resolved(text.decode()).encode()
    bomb = gzip.compress(bytes(50 << 20))
    for data, coding in ((text, "br"), (text, "gzip"), (bomb, "gzip"), (zlib.compress(text), "gzip")):
        assert sheets.resolved(data, coding, OWNER, RING, SHEET) is None
    assert sheets.resolved(text, "", OWNER, RING, Asset("gone", "a.css")) is None


def test_what_storage_does_not_know_is_a_sheet_by_its_name() -> None:
    assert sheets.is_sheet("text/css; charset=utf-8", "x")
    assert sheets.is_sheet("", "a.CSS?v=1.2")
    assert sheets.is_sheet("application/octet-stream", "a.css")
    assert not sheets.is_sheet("image/png", "a.css")
