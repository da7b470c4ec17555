"""Snapshots: what was mailed goes on being shown, whatever becomes of the original."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

import brandproxy
from brandproxy.config import Settings
from brandproxy.core import snapshot
from brandproxy.core.links import key_ring, ours
from brandproxy.core.tokens import Asset
from brandproxy.errors import BadInput
from brandproxy.fetch import open_fetcher
from brandproxy.model import Origin, References, SigningKey, Tenant
from brandproxy.storage.base import StorageFailed, Want
from brandproxy.storage.origins import Origins
from brandproxy.storage.snapshot import Step, take
from brandproxy.store.seal import open_seal

MAIL = b"""Content-Type: text/html\r\n\r\n<img src="https://media.acme.com/logo.PNG?v=2">
<img src="https://media.acme.com/logo.PNG?v=2"><img src="https://media.acme.com/gone.gif">
<img src="https://elsewhere.com/x.png"><a href="https://media.acme.com/logo.PNG">link</a>
<img src="https://media.acme.com/snapshot/0123.png">\r\n"""
SHEET = b'<link rel=stylesheet href="https://media.acme.com/a.css?v=1">'


def tenant(url: str) -> Tenant:
    origin = Origin("media", url, ("https://media.acme.com/",))
    return Tenant("acme", (SigningKey(0, b"k" * 32, 0),), origins=(origin,))


def test_a_plan_names_each_asset_once_and_no_copy_again() -> None:
    assert snapshot.wanted(MAIL + SHEET, tenant("memory://x/")) == (
        ("media", "logo.PNG?v=2"),
        ("media", "gone.gif"),
    )


def test_a_copy_is_named_by_its_content() -> None:
    first = snapshot.name("a.PNG", b"1")
    assert first == snapshot.name("b.png?v=3", b"1") != snapshot.name("a.png", b"2")
    assert first.startswith("snapshot/")
    assert first.endswith(".png")
    assert "." not in snapshot.name("no-extension?x.png", b"1")


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_the_mail_shows_the_copy_whatever_becomes_of_the_original(tmp_path: Path, kind: str) -> None:
    url = f"memory://{uuid4().hex}/" if kind == "memory" else tmp_path.as_uri() + "/"
    owner = tenant(url)
    (origin,) = owner.origins
    settings = Settings(data=tmp_path / "var")
    steps: list[Step] = []
    async with open_fetcher(settings) as fetcher:
        origins = Origins(settings, fetcher, open_seal(settings))
        await origins.put("acme", origin, "logo.PNG", b"as mailed", "image/png")
        items = snapshot.wanted(MAIL, owner)
        copies = await take(origins, owner, items, steps.append)
        again = await take(origins, owner, items, steps.append)
        await origins.put("acme", origin, "logo.PNG", b"changed", "image/png")
        (path,) = copies.values()
        async with origins.open("acme", origin, path, Want()) as found:
            assert found is not None
            assert b"".join([chunk async for chunk in found.chunks]) == b"as mailed"
    assert copies == again
    assert [(step.written, bool(step.fault)) for step in steps] == [(9, False), (0, True), (0, False), (0, True)]

    result = brandproxy.rewrite(MAIL, owner, References(), "https://links.acme.com", 1, copies)
    ring = key_ring(owner.keys)
    mailed = [ours(ring, link.new) for link in result.report.links if "/a/" in link.new]
    assert mailed == [
        Asset("media", path), Asset("media", path), Asset("media", "gone.gif"),
        Asset("media", "snapshot/0123.png"),
    ]  # fmt: skip
    assert brandproxy.unrewrite(result.message, result.report) == MAIL


async def test_web_storage_says_that_it_cannot_be_written(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    async with open_fetcher(settings) as fetcher:
        origins = Origins(settings, fetcher, open_seal(settings))
        with pytest.raises(StorageFailed, match="only be read"):
            await origins.put("acme", Origin("media", "https://media.acme.com/"), "x.png", b"", "")


def test_what_is_printed_is_what_is_read() -> None:
    copies = {("media", "a/ü.png?v=1"): "snapshot/1.png", ("other", "b"): "snapshot/2"}
    assert snapshot.parse(snapshot.dump(copies)) == copies
    for text in ("", "[]", "{", '{"a": 1}', "null"):
        with pytest.raises(BadInput):
            snapshot.parse(text)
