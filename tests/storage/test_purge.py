"""Purging: every edge forgets, also one that was off when the order was given."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from brandproxy.config import Assets
from brandproxy.core.delivery import Meta
from brandproxy.errors import BadInput
from brandproxy.model import Origin, Tenant
from brandproxy.storage import purge
from brandproxy.storage.base import Found, Want
from brandproxy.storage.bodies import Key
from brandproxy.storage.cache import Cache
from brandproxy.storage.disk import Disk
from brandproxy.store import Change, open_store

TENANT = Tenant("acme", (), origins=(Origin("media", "https://storage/x/", ("https://media.acme.com/img/",)),))


@asynccontextmanager
async def load(_: Want):  # type: ignore[no-untyped-def]
    async def chunks():  # type: ignore[no-untyped-def]
        yield b"data"

    yield Found(Meta(4, '"e"'), chunks())


async def test_an_order_reaches_caches_by_the_change_feed_and_at_start(tmp_path: Path) -> None:
    store = open_store("files:", tmp_path)
    disk = Disk(tmp_path / "cache")
    cache = Cache(Assets(), disk)
    await cache.start()
    keys = [Key("acme", "media", path, "u") for path in ("a.png", "b.png")] + [Key("rival", "media", "a.png", "u")]
    for key in keys:
        await cache.get(key, load)
    await asyncio.gather(*cache._tasks)
    cursor = await store.cursor()
    order = purge.of_url(TENANT, "https://media.acme.com/img/a.png", time.time())
    assert (order.origin, order.path) == ("media", "a.png")
    await purge.give(store, order)
    change = await anext(store.watch("", cursor))
    purge.apply(change, cache, disk)
    assert [cache.peek(key) is None for key in keys] == [True, False, False]
    assert [disk.find(key.name) is None for key in keys] == [True, False, False]
    purge.apply(Change("1", "tenant/acme", b"x"), cache, disk)
    await purge.give(store, purge.Purge("acme", time.time()))
    await purge.obey_all(store, cache, disk)
    assert [disk.find(key.name) is None for key in keys] == [True, True, False]
    await purge.give(store, purge.Purge("rival", time.time() - 3600))
    await purge.obey_all(store, cache, disk)
    assert disk.find(keys[2].name) is not None
    await cache.close()
    await store.close()


async def test_old_orders_do_not_pile_up(tmp_path: Path) -> None:
    store = open_store("files:", tmp_path)
    long_ago = time.time() - 100 * 86400
    for number in range(5):
        await purge.give(store, purge.Purge("acme", long_ago + number, "media", f"{number}.png"))
    await purge.give(store, purge.Purge("acme", time.time(), "media", "now.png"))
    assert len(await store.list("purge/")) == 1
    await store.close()


def test_a_url_of_somebody_else_is_refused() -> None:
    with pytest.raises(BadInput):
        purge.of_url(TENANT, "https://media.rival.com/img/a.png", 0)
