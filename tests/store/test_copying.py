"""`brandproxy store copy`."""

from __future__ import annotations

from pathlib import Path

import pytest

from brandproxy.errors import Conflict
from brandproxy.store import Entry, Store, open_store
from brandproxy.store.copying import copy
from tests.redis_servers import Server


async def content(store: Store) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in await store.list("") if entry.key != "copying"}


class InUse:
    """A store that changes after the first entries were read from it."""

    def __init__(self, store: Store) -> None:
        self._store, self._lists = store, 0

    async def list(self, prefix: str) -> list[Entry]:
        self._lists += 1
        if self._lists == 3:
            await self._store.put("host/000", b"changed meanwhile")
            await self._store.delete("host/001")
        return await self._store.list(prefix)


async def test_a_running_installation_moves_to_redis_and_back(redis_server: Server, tmp_path: Path) -> None:
    redis_server.client().flushall()
    here, there = open_store("files:", tmp_path / "a"), open_store(redis_server.url, tmp_path)
    back = open_store("files:", tmp_path / "b")
    wanted = {f"host/{number:03}": bytes([number % 256]) * number for number in range(300)}
    for key, value in wanted.items():
        await here.put(key, value)
    told: list[tuple[int, int]] = []
    in_use = InUse(here)
    assert await copy(in_use, there, lambda *at: told.append(at)) == 299  # type: ignore[arg-type]
    assert told[-1][0] == told[-1][1]
    assert await copy(there, back, lambda *_: None) == len(await content(there))
    assert await content(back) == await content(there) == await content(here)
    for store in (here, there, back):
        await store.close()


async def test_a_store_that_holds_something_else_is_not_mixed_with(tmp_path: Path) -> None:
    here, there = open_store("files:", tmp_path / "a"), open_store("files:", tmp_path / "b")
    await here.put("host/a", b"1")
    await there.put("host/other", b"2")
    with pytest.raises(Conflict):
        await copy(here, there, lambda *_: None)
    assert await content(there) == {"host/other": b"2"}
    await here.close()
    await there.close()


async def test_a_copy_is_repeated_after_the_source_has_lost_entries(tmp_path: Path) -> None:
    """The documented way: once while everything runs, again at the end; challenges and hosts go meanwhile."""
    here, there = open_store("files:", tmp_path / "a"), open_store("files:", tmp_path / "b")
    await here.put("host/a", b"1")
    await here.put("challenge/x", b"2")
    assert await copy(here, there, lambda *_: None) == 2
    await here.delete("challenge/x")
    await here.put("host/b", b"3")
    assert await copy(here, there, lambda *_: None) == 2
    assert await content(there) == {"host/a": b"1", "host/b": b"3"}
    await there.put("host/a", b"in use by now")
    with pytest.raises(Conflict):
        await copy(here, there, lambda *_: None)
    assert await content(there) == {"host/a": b"in use by now", "host/b": b"3"}
    await here.close()
    await there.close()
