"""The cache: one fetch for many askers, whole objects only, stale rather than failing."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brandproxy.config import Assets
from brandproxy.core.delivery import Meta
from brandproxy.storage.base import Found, ObjectMissing, StorageFailed, Want
from brandproxy.storage.bodies import Body, Key
from brandproxy.storage.cache import Cache
from brandproxy.storage.disk import _FOOTER, Disk

NOW = 1_800_000_000.0


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Storage:
    """Storage that says what a test tells it, and counts."""

    data: bytes = b"v1" * 500
    etag: str = '"v1"'
    cache_control: str = ""
    error: Exception | None = None
    announced: int | None = None
    asked: list[Want] = field(default_factory=list)
    gate: asyncio.Event | None = None
    pieces: int = 4
    break_at: int = -1

    @asynccontextmanager
    async def load(self, want: Want) -> AsyncIterator[Found | None]:
        self.asked.append(want)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if want.etag == self.etag:
            yield None
            return
        size = len(self.data) if self.announced is None else self.announced
        yield Found(Meta(size, self.etag, 1, "image/png", "", self.cache_control), self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        step = max(1, len(self.data) // self.pieces)
        for number, start in enumerate(range(0, len(self.data), step)):
            if number == self.break_at:
                raise StorageFailed("broke off")
            if self.gate is not None and number:
                await self.gate.wait()
            yield self.data[start : start + step]


KEY = Key("acme", "media", "logo.png", "https://media.acme.test/")
Make = Callable[..., Cache]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(tmp_path: Path, clock: Clock) -> AsyncIterator[Make]:
    made: list[Cache] = []

    def cache(**settings: int) -> Cache:
        disk = Disk(tmp_path / "cache")
        disk.start()
        made.append(Cache(Assets(**{"fresh": 60, "stale": 600, **settings}), disk, clock))  # type: ignore[arg-type]
        return made[-1]

    yield cache
    for one in made:
        await one.close()


async def read(body: Body) -> bytes:
    return b"".join([chunk async for chunk in body.read(0, body.described.meta.size)])


async def ask(cache: Cache, storage: Storage, key: Key = KEY) -> tuple[bytes, str]:
    body, how = await cache.get(key, storage.load)
    return await read(body), how


async def get(cache: Cache, storage: Storage, key: Key = KEY) -> tuple[bytes, str]:
    """Ask, and wait for what goes on behind the answer."""
    try:
        return await ask(cache, storage, key)
    finally:
        await settle(cache)


async def settle(cache: Cache) -> None:
    await asyncio.gather(*cache._tasks)


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".sweep"]


async def test_a_fresh_copy_is_used_without_asking(make: Make, clock: Clock) -> None:
    cache, storage = make(), Storage()
    assert await get(cache, storage) == (storage.data, "storage")
    clock.now += 59
    assert await get(cache, storage) == (storage.data, "memory")
    assert len(storage.asked) == 1


async def test_what_one_process_fetched_the_others_and_the_next_run_have(make: Make) -> None:
    storage = Storage()
    await get(make(), storage)
    assert await get(make(), storage) == (storage.data, "disk")
    assert len(storage.asked) == 1


@pytest.mark.parametrize("size", [1000, 3_000_000])
async def test_a_thousand_askers_in_two_processes_are_one_request(make: Make, size: int) -> None:
    storage = Storage(data=os.urandom(size))
    caches = [make(), make()]
    bodies = await asyncio.gather(*(ask(caches[n % 2], storage) for n in range(1000 if size < 5000 else 50)))
    assert all(data == storage.data for data, _ in bodies)
    assert len(storage.asked) == 1


async def test_a_stale_copy_is_given_at_once_and_confirmed_behind_the_answer(make: Make, clock: Clock) -> None:
    cache, storage = make(), Storage()
    await get(cache, storage)
    clock.now += 61
    assert await get(cache, storage) == (storage.data, "stale")
    assert storage.asked[1] == Want('"v1"', 1)
    assert await get(cache, storage) == (storage.data, "memory")
    assert len(storage.asked) == 2
    assert (await get(make(), storage))[1] == "disk"


async def test_a_changed_object_replaces_its_stale_copy(make: Make, clock: Clock) -> None:
    cache, storage = make(), Storage()
    await get(cache, storage)
    clock.now += 61
    storage.data, storage.etag = b"new" * 400, '"v2"'
    assert (await get(cache, storage))[0] == b"v1" * 500
    assert await get(cache, storage) == (storage.data, "memory")


@pytest.mark.parametrize("size", [1000, 2_000_000])
async def test_a_stale_copy_is_better_than_a_failure(make: Make, clock: Clock, size: int) -> None:
    storage = Storage(data=os.urandom(size))
    await get(make(), storage)
    storage.error = StorageFailed("down")
    clock.now += 400
    cache = make()
    for _ in range(3):
        assert (await get(cache, storage))[0] == storage.data
    clock.now += 100_000
    with pytest.raises(StorageFailed):
        await get(make(), storage)


async def test_storage_that_wants_no_stale_copies_used_is_obeyed(make: Make, clock: Clock) -> None:
    cache, storage = make(), Storage(cache_control="max-age=10, must-revalidate")
    await get(cache, storage)
    clock.now += 11
    storage.error = StorageFailed("down")
    with pytest.raises(StorageFailed):
        await get(cache, storage)


@pytest.mark.parametrize("size", [1000, 2_000_000])
async def test_what_must_not_be_stored_is_not_stored(make: Make, size: int, tmp_path: Path) -> None:
    cache, storage = make(), Storage(cache_control="private", data=os.urandom(size))
    for _ in range(2):
        assert (await get(cache, storage))[0] == storage.data
    assert len(storage.asked) == 2
    assert files(tmp_path) == []


async def test_a_missing_object_is_asked_for_once_in_a_while(make: Make, clock: Clock) -> None:
    cache, storage = make(), Storage(error=ObjectMissing("gone"))
    for _ in range(5):
        with pytest.raises(ObjectMissing):
            await get(cache, storage)
    assert len(storage.asked) == 1
    clock.now += 16
    storage.error = None
    assert (await get(cache, storage))[0] == storage.data


async def test_an_object_that_was_removed_goes_from_the_cache(make: Make, clock: Clock, tmp_path: Path) -> None:
    cache, storage = make(), Storage()
    await get(cache, storage)
    clock.now += 61
    storage.error = ObjectMissing("gone")
    await get(cache, storage)
    with pytest.raises(ObjectMissing):
        await get(cache, storage)
    assert files(tmp_path) == []


HALVES = [
    (1000, 2, None), (1000, -1, 1001), (1000, -1, 999), (1000, 2, -1),
    (3_000_000, 2, None), (3_000_000, -1, 3_000_001),
]  # fmt: skip


@pytest.mark.parametrize(("size", "break_at", "announced"), HALVES)
async def test_half_an_object_is_never_kept(
    make: Make, tmp_path: Path, size: int, break_at: int, announced: int | None, clock: Clock
) -> None:
    cache = make()
    storage = Storage(data=os.urandom(size), break_at=break_at, announced=announced)
    with pytest.raises(StorageFailed):
        await get(cache, storage)
    assert files(tmp_path) == []
    clock.now += 2
    storage.break_at, storage.announced = -1, None
    assert (await get(cache, storage))[0] == storage.data


async def test_a_large_object_reaches_its_askers_while_it_arrives(make: Make) -> None:
    cache, gate = make(), asyncio.Event()
    storage = Storage(data=os.urandom(4_000_000), gate=gate)
    body, _ = await cache.get(KEY, storage.load)
    late, _ = await cache.get(KEY, storage.load)
    reader = body.read(0, len(storage.data))
    first = await asyncio.wait_for(anext(reader), 5)
    assert storage.data.startswith(first)
    gate.set()
    assert first + b"".join([chunk async for chunk in reader]) == storage.data
    assert b"".join([c async for c in late.read(1_500_000, 3_000_001)]) == storage.data[1_500_000:3_000_001]
    assert len(storage.asked) == 1


async def test_nobody_waits_for_another_process_longer_than_patience(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brandproxy.storage.cache._PATIENCE", 0.1)
    slow, gate = make(), asyncio.Event()
    storage = Storage(data=os.urandom(3_000_000), gate=gate)
    arriving, _ = await slow.get(KEY, storage.load)
    quick = Storage(data=storage.data)
    assert (await asyncio.wait_for(get(make(), quick), 5))[0] == storage.data
    gate.set()
    assert await read(arriving) == storage.data


async def test_an_object_of_unknown_size_is_given_when_it_is_whole(make: Make) -> None:
    storage = Storage(announced=-1, data=os.urandom(2_000_000))
    assert (await get(make(), storage))[0] == storage.data
    assert await get(make(), storage) == (storage.data, "disk")


async def test_an_asker_who_goes_away_does_not_take_the_others_object(make: Make) -> None:
    cache, gate = make(), asyncio.Event()
    storage = Storage(gate=gate)
    first = asyncio.create_task(ask(cache, storage))
    second = asyncio.create_task(ask(cache, storage))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gate.set()
    assert (await second)[0] == storage.data
    assert len(storage.asked) == 1


async def test_memory_and_disk_stay_within_their_bounds(make: Make, tmp_path: Path) -> None:
    cache = make(memory=50_000)
    for number in range(100):
        storage = Storage(data=os.urandom(5000))
        await get(cache, storage, Key("acme", "media", f"{number}.png", "u"))
        assert cache.memory_bytes <= 50_000
    disk = Disk(tmp_path / "cache")
    assert len(files(tmp_path)) == 100
    left = disk.sweep(200_000, keep=1e9)
    assert left == sum(path.stat().st_blocks * 512 for path in files(tmp_path)) <= 200_000
    assert len(files(tmp_path)) > 10
    disk.sweep(1 << 30, keep=-10)
    assert files(tmp_path) == []


async def test_the_disk_keeps_what_was_asked_for_last(make: Make, tmp_path: Path) -> None:
    for number in range(4):
        await get(make(), Storage(data=os.urandom(5000)), Key("acme", "media", f"{number}.png", "u"))
    names = [Key("acme", "media", f"{number}.png", "u").name.text for number in range(4)]
    for age, number in enumerate((2, 0, 3, 1)):
        path = tmp_path / "cache" / names[number]
        os.utime(path, (NOW - age * 100, path.stat().st_mtime))
    Disk(tmp_path / "cache").sweep(17_000, keep=1e12)
    assert {str(path.relative_to(tmp_path / "cache")) for path in files(tmp_path)} >= {names[2]}
    assert names[1] not in {str(path.relative_to(tmp_path / "cache")) for path in files(tmp_path)}


@pytest.mark.parametrize("damage", ["cut", "grown", "zeroed", "empty", "footer"])
async def test_a_file_that_does_not_add_up_is_not_served(make: Make, tmp_path: Path, damage: str) -> None:
    storage = Storage()
    await get(make(), storage)
    (path,) = files(tmp_path)
    data = path.read_bytes()
    path.write_bytes({
        "cut": data[:-20], "grown": data + b"x", "zeroed": bytes(len(data)), "empty": b"",
        "footer": data[:-12] + b"\xff\xff\xff\xff" + data[-8:],
    }[damage])  # fmt: skip
    assert await get(make(), storage) == (storage.data, "storage")


@settings(max_examples=200)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_on_disk_are_an_object_or_none(body: bytes, about: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(Path(folder))
        disk.start()
        path = Path(folder) / KEY.name.text
        path.parent.mkdir(parents=True)
        for text in (about, b'{"meta": {"size": %d}, "fetched_at": 1}' % len(body), b'{"meta": {"size": "x"}}'):
            path.write_bytes(body + text + _FOOTER.pack(len(text), b"bpcache1"))
            found = disk.find(KEY.name)
            assert found is None or found.meta.size == len(body)


async def test_an_object_is_forgotten_in_all_its_forms_and_no_other(make: Make, tmp_path: Path) -> None:
    cache, storage = make(), Storage()
    forms = [KEY, Key(KEY.tenant, KEY.origin, KEY.path, KEY.storage, "w600"), Key(*list_(KEY), "", "gzip")]
    other = Key("acme", "media", "other.png", "u")
    for key in (*forms, other):
        await get(cache, storage, key)
    disk = Disk(tmp_path / "cache")
    disk.forget("acme", KEY.name.object)
    cache.forget("acme", "media", "logo.png")
    assert len(files(tmp_path)) == 1
    assert all(cache.peek(key) is None for key in forms)
    assert cache.peek(other) is not None
    disk.forget("acme")
    cache.forget("acme")
    assert not (tmp_path / "cache" / "acme").exists()
    disk.sweep(1 << 30, keep=1e9)
    assert files(tmp_path) == []
    assert cache.memory_bytes == 0


def list_(key: Key) -> tuple[str, str, str, str]:
    return key.tenant, key.origin, key.path, key.storage


async def test_what_was_under_way_when_purged_is_not_kept(make: Make, tmp_path: Path) -> None:
    cache, gate = make(), asyncio.Event()
    storage = Storage(gate=gate)
    asking = asyncio.create_task(ask(cache, storage))
    await asyncio.sleep(0.05)
    cache.forget("acme")
    gate.set()
    assert (await asking)[0] == storage.data
    await settle(cache)
    assert cache.peek(KEY) is None
    assert files(tmp_path) == []


async def test_what_another_process_fetched_before_a_purge_is_not_taken_from_disk(
    make: Make, clock: Clock
) -> None:
    ours, gate = make(), asyncio.Event()
    old = Storage(gate=gate)
    asking = asyncio.create_task(ask(make(), old))  # a process that the purge reaches late
    await asyncio.sleep(0.05)
    clock.now += 1
    ours.forget("acme")
    clock.now += 1
    new = Storage(data=b"new" * 100, etag='"v2"')
    waiting = asyncio.create_task(ask(ours, new))
    await asyncio.sleep(0.05)
    gate.set()
    assert (await asking)[0] == old.data
    assert (await waiting)[0] == new.data
    await settle(ours)
    assert (await ask(make(), old))[0] == new.data


async def test_a_copy_that_must_not_be_used_stale_is_not_used_while_storage_fails(
    make: Make, clock: Clock
) -> None:
    cache, storage = make(), Storage(cache_control="max-age=10, must-revalidate")
    await get(cache, storage)
    clock.now += 11
    storage.error = StorageFailed("down")
    for _ in range(3):
        with pytest.raises(StorageFailed):
            await get(cache, storage)
        clock.now += 1.5


async def test_a_disk_that_cannot_be_written_costs_the_copy_and_not_the_image(make: Make, tmp_path: Path) -> None:
    cache, storage = make(), Storage()
    (tmp_path / "cache" / "acme").write_bytes(b"in the way")
    assert await get(cache, storage) == (storage.data, "storage")
    assert (await get(cache, storage))[1] == "memory"
