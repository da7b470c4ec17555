"""The kill list."""

from __future__ import annotations

from pathlib import Path

import pytest

from brandproxy import blocks
from brandproxy.errors import BadInput, NotFound
from brandproxy.model import BlockKind
from brandproxy.store import Change, keys
from brandproxy.store.files import FileStore


async def test_a_block_refuses_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    store, listed = FileStore(tmp_path / "store.db"), blocks.KillList()
    await blocks.add(store, BlockKind.DOMAIN, "Evil.example")
    await blocks.add(store, BlockKind.URL, "https://shop.example/bad/", tenant="acme")
    await blocks.add(store, BlockKind.CAMPAIGN, "spring", tenant="acme")
    await blocks.add(store, BlockKind.TENANT, "crooks")
    await listed.load(store)
    assert listed.match("acme", "https://www.EVIL.example/x") is not None
    assert listed.match("acme", "https://notevil.example/") is None
    assert listed.match("acme", "https://shop.example/bad/x") is not None
    assert listed.match("other", "https://shop.example/bad/x") is None
    assert listed.match("acme", campaign="spring") is not None
    assert listed.match("other", campaign="spring") is None
    assert listed.match("acme", message="spring") is None
    assert listed.match("crooks") is not None
    assert listed.match("acme", "https://[broken") is None
    await store.close()


async def test_changes_of_the_feed_take_effect(tmp_path: Path) -> None:
    store, listed = FileStore(tmp_path / "store.db"), blocks.KillList()
    block = await blocks.add(store, BlockKind.LINK, "abc")
    entry = await store.get(keys.block(block.id))
    assert entry is not None
    listed.apply(Change("1", entry.key, entry.value))
    listed.apply(Change("2", keys.block("bad"), b"{"))
    assert listed.match("acme", token="abc") == block
    listed.apply(Change("3", entry.key, None))
    assert listed.match("acme", token="abc") is None
    await blocks.remove(store, block.id)
    with pytest.raises(NotFound):
        await blocks.remove(store, block.id)
    await store.close()


@pytest.mark.parametrize(
    ("kind", "value"),
    [(BlockKind.URL, "shop.example"), (BlockKind.DOMAIN, "a b"), (BlockKind.LINK, ""), (BlockKind.LINK, "a\nb")],
)
async def test_a_value_that_could_never_match_is_refused(tmp_path: Path, kind: BlockKind, value: str) -> None:
    store = FileStore(tmp_path / "store.db")
    with pytest.raises(BadInput):
        await blocks.add(store, kind, value)
    await store.close()
