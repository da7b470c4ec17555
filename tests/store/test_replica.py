"""An edge node's own copy of a fleet's store (brandproxy/store/replica.py)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from brandproxy.config import Settings
from brandproxy.context import open_context
from brandproxy.errors import StoreUnavailable
from brandproxy.model import HostState
from brandproxy.store import Entry, Store, keys, open_store, replica
from brandproxy.store.replica import Replica
from tests.redis_servers import Server


@pytest.fixture
def server(redis_server: Server) -> Server:
    redis_server.client().flushall()
    return redis_server


@asynccontextmanager
async def node(server: Server, folder: Path, start: bool = True) -> AsyncIterator[Replica]:
    copy = Replica(open_store(server.url, folder), folder / "replica.db")
    try:
        if start:
            await copy.start()
        yield copy
    finally:
        await copy.close()


@asynccontextmanager
async def fleet(server: Server, folder: Path) -> AsyncIterator[Store]:
    store = open_store(server.url, folder)
    try:
        yield store
    finally:
        await store.close()


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> float:
    """How long it took until `check` was true."""
    started = time.monotonic()
    while not await check():
        assert time.monotonic() - started < seconds
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def names(store: Store, prefix: str) -> list[str]:
    return [entry.key.removeprefix(prefix) for entry in await store.list(prefix)]


async def test_a_node_starts_and_answers_with_the_store_down(tmp_path: Path) -> None:
    server = Server(tmp_path / "redis").start()
    async with fleet(server, tmp_path) as store:
        for key in ("tenant/a", "host/x", "cert/x", "block/1", "audit/1", "access/1"):
            await store.put(key, key.encode())
        async with node(server, tmp_path):
            pass
        server.kill()
        async with node(server, tmp_path) as copy:
            for key in ("tenant/a", "host/x", "cert/x", "block/1"):
                prefix = key.partition("/")[0] + "/"
                assert [(entry.key, entry.value) for entry in await copy.list(prefix)] == [(key, key.encode())]
            entry = await copy.get("host/x")
            assert entry is not None
            assert entry.value == b"host/x"
            with pytest.raises(StoreUnavailable):
                await copy.put("host/x", b"")
            with pytest.raises(StoreUnavailable):
                await copy.list(keys.AUDIT)  # a node keeps what it serves from, nothing else


async def test_a_new_node_without_a_copy_says_that_it_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "_FIRST_COPY", 0.3)
    server = Server(tmp_path / "redis").start()
    server.kill()
    async with node(server, tmp_path, start=False) as copy:
        with pytest.raises(StoreUnavailable):
            await copy.start()


def overwritten(file: Path) -> None:
    file.write_bytes(b"not a database" * 1000)


def holed(file: Path) -> None:
    """The head of the file is whole, pages behind it are not."""
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(b"\xff" * (file.stat().st_size - 4096))


@pytest.mark.parametrize("spoil", [overwritten, holed])
async def test_a_damaged_copy_is_made_anew(spoil: Callable[[Path], None], server: Server, tmp_path: Path) -> None:
    async with fleet(server, tmp_path) as store:
        for number in range(50):
            await store.put(keys.tenant(f"t{number:02}"), b"x" * 500)
        async with node(server, tmp_path):
            pass
        for beside in ("-wal", "-shm"):
            (tmp_path / f"replica.db{beside}").unlink(missing_ok=True)
        spoil(tmp_path / "replica.db")
        async with node(server, tmp_path) as copy, node(server, tmp_path) as other:
            for each in (copy, other):
                assert len(await names(each, keys.TENANT)) == 50
            await store.put(keys.tenant("late"), b"y")
            for each in (copy, other):
                await eventually(lambda each=each: arrived(each))
    assert (tmp_path / "replica.db.damaged").exists()


async def arrived(copy: Store) -> bool:
    return "late" in await names(copy, keys.TENANT)


async def test_a_new_node_waits_for_a_copy_that_takes_long_as_long_as_it_goes_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "_FIRST_COPY", 0.6)
    async with fleet(server, tmp_path) as store:
        await store.put(keys.tenant("acme"), b"1")
    whole = open_store(server.url, tmp_path)

    async def slow(prefix: str, listed: Callable[[str], Awaitable[list[Entry]]] = whole.list) -> list[Entry]:
        await asyncio.sleep(0.3)
        return await listed(prefix)

    monkeypatch.setattr(whole, "list", slow)
    copy = Replica(whole, tmp_path / "replica.db")
    try:
        await copy.start()
        assert await names(copy, keys.TENANT) == ["acme"]
    finally:
        await copy.close()


async def test_a_node_that_was_away_catches_up_in_order(server: Server, tmp_path: Path) -> None:
    async with fleet(server, tmp_path) as store:
        for name in "abc":
            await store.put(f"host/{name}", b"old")
        async with node(server, tmp_path) as copy:
            cursor = await copy.cursor()
        await store.put("host/d", b"new")
        await store.delete("host/a")
        await store.put("audit/1", b"not for nodes")
        await store.put("host/b", b"new")
        async with node(server, tmp_path) as copy:
            seen = []
            async with asyncio.timeout(5):
                async for change in copy.watch("", cursor):
                    seen.append((change.key, change.value))
                    if len(seen) == 3:
                        break
            assert seen == [("host/d", b"new"), ("host/a", None), ("host/b", b"new")]
            assert await names(copy, "host/") == ["b", "c", "d"]


async def test_a_node_left_behind_by_the_feed_copies_anew_and_tells_only_what_changed(
    server: Server, tmp_path: Path
) -> None:
    async with fleet(server, tmp_path) as store:
        for name in "abc":
            await store.put(f"host/{name}", b"old")
        async with node(server, tmp_path) as copy:
            cursor = await copy.cursor()
        await store.delete("host/a")
        await store.put("host/c", b"new")
        server.client().xtrim("{brandproxy}:feed", maxlen=0, approximate=False)
        await store.put("host/d", b"new")
        async with node(server, tmp_path) as copy:
            seen = {}
            async with asyncio.timeout(5):
                async for change in copy.watch("", cursor):
                    seen[change.key] = change.value
                    if len(seen) == 3:
                        break
            assert seen == {"host/a": None, "host/c": b"new", "host/d": b"new"}


async def test_a_wiped_store_does_not_empty_the_nodes(server: Server, tmp_path: Path) -> None:
    async with fleet(server, tmp_path) as store:
        await store.put("tenant/a", b"sealed")
        await store.put("host/x", b"1")
        async with node(server, tmp_path) as copy:
            server.client().flushall()
            await asyncio.sleep(1.5)
            assert await names(copy, "tenant/") == ["a"]
            assert await names(copy, "host/") == ["x"]
            await store.put("tenant/a", b"restored")  # from here on it is a store again
            await store.put("host/y", b"1")

            async def restored() -> bool:
                return await names(copy, "host/") == ["y"]

            await eventually(restored)


async def test_changes_arrive_within_two_seconds_also_after_the_store_was_paused(
    server: Server, tmp_path: Path
) -> None:
    async with fleet(server, tmp_path) as store, node(server, tmp_path) as copy:

        async def seen(name: str) -> bool:
            return name in await names(copy, "host/")

        await store.put("host/before", b"")
        assert await eventually(lambda: seen("before")) < 2
        server.pause()
        await asyncio.sleep(1.5)
        server.resume()
        await store.put("host/after", b"")
        assert await eventually(lambda: seen("after")) < 2


async def test_another_process_of_the_machine_follows_when_the_first_goes(server: Server, tmp_path: Path) -> None:
    first = AsyncExitStack()
    await first.enter_async_context(node(server, tmp_path))
    async with fleet(server, tmp_path) as store, node(server, tmp_path) as second:
        await first.aclose()
        await store.put("host/x", b"")

        async def seen() -> bool:
            return await names(second, "host/") == ["x"]

        assert await eventually(seen) < 2


async def test_the_copy_is_private_and_keeps_secrets_sealed(server: Server, tmp_path: Path) -> None:
    control = Settings(data=tmp_path / "control", store=server.url)
    edge = Settings(data=tmp_path / "edge", store=server.url, master_key="")
    async with open_context(control) as there:
        tenant = await there.registry.add_tenant("acme")
        os.makedirs(edge.data)
        (edge.data / "master.key").write_text((control.data / "master.key").read_text())
        async with open_context(edge, replica=True) as here:
            assert here.directory.tenant("acme") == tenant
    assert (edge.data / "replica.db").stat().st_mode & 0o777 == 0o600
    for file in edge.data.glob("replica*"):
        assert tenant.keys[0].secret not in file.read_bytes()


async def test_the_directory_of_a_node_follows_the_fleet(server: Server, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "node", store=server.url)
    async with open_context(settings) as control, open_context(settings, replica=True) as edge:
        following = asyncio.create_task(edge.directory.follow(edge.store))
        await control.registry.add_tenant("acme")
        await control.registry.add_host("links.acme.com", "acme", HostState.LIVE)

        async def live() -> bool:
            return edge.directory.site("links.acme.com") is not None

        assert await eventually(live) < 2
        await control.registry.revoke_key("acme", 0)

        async def revoked() -> bool:
            tenant = edge.directory.tenant("acme")
            return tenant is not None and tenant.keys[0].revoked_at is not None

        assert await eventually(revoked) < 2
        following.cancel()
