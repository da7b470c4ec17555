"""The store's written contract (brandproxy/store/base.py), held by every home."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brandproxy.errors import BadInput, Locked
from brandproxy.store import Change, LockLost, Store
from brandproxy.store.base import MAX_KEY, MAX_VALUE, CursorLost, Lease
from brandproxy.store.lease import Guard, held

Open = Callable[[], Store]


async def take(store: Store, cursor: str, count: int, prefix: str = "") -> list[Change]:
    found: list[Change] = []
    async with asyncio.timeout(10):
        async for change in store.watch(prefix, cursor):
            found.append(change)
            if len(found) == count:
                break
    return found


async def test_a_value_comes_back_byte_for_byte(store: Store) -> None:
    for number, value in enumerate((b"", bytes(range(256)), b"7:7", b"\n\x00" * 9, b"x" * MAX_VALUE)):
        await store.put(f"k/{number}", value)
        entry = await store.get(f"k/{number}")
        assert entry is not None
        assert (entry.key, entry.value) == (f"k/{number}", value)
    assert await store.get("k/none") is None


async def test_create_writes_once(store: Store) -> None:
    assert await store.create("a", b"1")
    assert not await store.create("a", b"2")
    entry = await store.get("a")
    assert entry is not None
    assert entry.value == b"1"


async def test_put_tells_the_version_it_wrote(store: Store) -> None:
    first = await store.put("a", b"1")
    second = await store.put("a", b"2")
    entry = await store.get("a")
    assert entry is not None
    assert first < second == entry.version


async def test_replace_needs_the_present_version(store: Store) -> None:
    version = await store.put("a", b"1")
    assert not await store.replace("none", b"x", version)
    assert await store.replace("a", b"2", version)
    assert not await store.replace("a", b"3", version)
    entry = await store.get("a")
    assert entry is not None
    assert entry.value == b"2"


async def test_delete_needs_the_version_when_one_is_given(store: Store) -> None:
    old = await store.put("a", b"1")
    version = await store.put("a", b"2")
    assert not await store.delete("a", old)
    assert await store.delete("a", version)
    assert not await store.delete("a")
    await store.put("a", b"3")
    assert await store.delete("a")
    assert await store.get("a") is None


async def test_a_key_made_again_is_another_version(store: Store) -> None:
    version = await store.put("a", b"first")
    await store.delete("a")
    await store.create("a", b"second")
    assert not await store.replace("a", b"late", version)
    assert not await store.delete("a", version)


async def test_list_is_ordered_by_key_and_holds_the_prefix_only(store: Store) -> None:
    names = ["host/b", "host/a", "host/ä", "host/\U0010fffd9", "host/Z", "host/", "hostile", "hos", "i"]
    for name in names:
        await store.put(name, name.encode())
    found = await store.list("host/")
    assert [entry.key for entry in found] == sorted(name for name in names if name.startswith("host/"))
    assert all(entry.value == entry.key.encode() and entry.version > 0 for entry in found)
    assert [entry.key for entry in await store.list("")] == sorted(names)
    assert await store.list("none/") == []


async def test_list_is_whole_beyond_one_page(store: Store) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(1201):
            tasks.create_task(store.create(f"p/{number:05}", b"v"))
    assert [entry.key for entry in await store.list("p/")] == [f"p/{n:05}" for n in range(1201)]


@pytest.mark.parametrize("key", ["", "a\nb", "a\x00", "\x7f", "k" * (MAX_KEY + 1), "ä" * 257, "\ud800"])
async def test_a_key_out_of_bounds_is_refused(store: Store, key: str) -> None:
    for call in (store.get(key), store.create(key, b""), store.put(key, b""), store.delete(key)):
        with pytest.raises(BadInput):
            await call
    with pytest.raises(BadInput):
        async with store.lock(key):
            raise AssertionError("granted")


async def test_a_value_out_of_bounds_is_refused(store: Store) -> None:
    await store.put("k" * MAX_KEY, b"v" * MAX_VALUE)
    for call in (store.create("a", b"v" * (MAX_VALUE + 1)), store.replace("a", b"v" * (MAX_VALUE + 1), 1)):
        with pytest.raises(BadInput):
            await call


async def test_watch_tells_every_write_after_the_cursor_in_order(store: Store, opened: Open) -> None:
    await store.put("before", b"0")
    cursor = await store.cursor()
    await store.create("a", b"1")
    version = await store.put("b", b"2")
    assert not await store.create("a", b"9")
    assert not await store.delete("none")
    await store.replace("b", b"3", version)
    await store.delete("a")
    found = await take(opened(), cursor, 4)
    assert [change.key for change in found] == ["a", "b", "b", "a"]
    newest = {change.key: change.value for change in found}
    assert newest == {"a": None, "b": b"3"}
    assert len({change.cursor for change in found}) == 4


async def test_watch_of_an_empty_store_sees_its_first_write(store: Store, opened: Open) -> None:
    cursor = await store.cursor()
    watching = asyncio.create_task(take(opened(), cursor, 1))
    await asyncio.sleep(0.1)
    await store.put("a", b"1")
    assert [(c.key, c.value) for c in await watching] == [("a", b"1")]


async def test_watch_resumes_behind_the_change_it_was_shown(store: Store, opened: Open) -> None:
    cursor = await store.cursor()
    for number in range(450):
        await store.put(f"n/{number:03}", b"")
    seen: list[str] = []
    for count in (1, 199, 1, 200, 49):
        found = await take(opened(), cursor, count)
        seen += [change.key for change in found]
        cursor = found[-1].cursor
    assert seen == [f"n/{number:03}" for number in range(450)]


async def test_watch_shows_only_its_prefix(store: Store) -> None:
    cursor = await store.cursor()
    for key in ("host/a", "tenant/a", "host/b", "hos", "audit/1"):
        await store.put(key, b"")
    assert [change.key for change in await take(store, cursor, 2, "host/")] == ["host/a", "host/b"]


async def test_a_cursor_the_feed_no_longer_holds_is_lost(store: Store, opened: Open, url: str) -> None:
    await store.put("a", b"1")
    cursor = await store.cursor()
    ahead = cursor.replace(cursor.partition("-")[0], str(int(cursor.partition("-")[0]) + 10**9), 1)
    with pytest.raises(CursorLost):
        await take(opened(), ahead, 1)


async def test_racing_writers_lose_no_update(opened: Open) -> None:
    stores = [opened() for _ in range(4)]
    await stores[0].create("count", b"0")

    async def add(store: Store) -> None:
        for _ in range(15):
            while True:
                entry = await store.get("count")
                assert entry is not None
                if await store.replace("count", str(int(entry.value) + 1).encode(), entry.version):
                    break

    await asyncio.gather(*map(add, stores))
    entry = await stores[0].get("count")
    assert entry is not None
    assert entry.value == b"60"


RACE = """
import asyncio, sys
from pathlib import Path
from brandproxy.store import open_store
async def main():
    store = open_store(sys.argv[1], Path(sys.argv[2]))
    won = [n for n in range(40) if await store.create(f"race/{n}", sys.argv[3].encode())]
    print(*won)
    await store.close()
asyncio.run(main())
"""


async def test_processes_that_start_at_once_agree_on_who_created(url: str, tmp_path: Path, store: Store) -> None:
    """Also the first start: none of them finds the files made."""
    args = [sys.executable, "-c", RACE, url, str(tmp_path)]
    pipe = asyncio.subprocess.PIPE
    racers = [await asyncio.create_subprocess_exec(*args, f"p{n}", stdout=pipe, stderr=pipe) for n in range(4)]
    outputs = [await racer.communicate() for racer in racers]
    for racer, (_, errors) in zip(racers, outputs, strict=True):
        assert racer.returncode == 0, errors.decode()
    won = [[int(number) for number in out.split()] for out, _ in outputs]
    assert sorted(number for numbers in won for number in numbers) == list(range(40))
    for number, entry in ((int(e.key[5:]), e) for e in await store.list("race/")):
        assert number in won[int(entry.value[1:])]


async def test_a_lock_has_one_holder_and_a_growing_fence(store: Store, opened: Open) -> None:
    fences = []
    other = opened()
    for _ in range(3):
        async with store.lock("leader") as lease:
            fences.append(lease.fence)
            with pytest.raises(Locked):
                async with other.lock("leader"):
                    raise AssertionError("two holders")
            async with other.lock("another"):
                pass
    async with other.lock("leader") as lease:
        fences.append(lease.fence)
    assert fences == sorted(set(fences))


async def test_a_lock_is_kept_beyond_its_ttl_while_its_block_runs(store: Store, opened: Open) -> None:
    other = opened()
    async with store.lock("leader", ttl=1.2):
        for _ in range(10):
            await asyncio.sleep(0.2)
            with pytest.raises(Locked):
                async with other.lock("leader"):
                    raise AssertionError("two holders")


async def test_a_lock_is_freed_when_its_block_fails(store: Store, opened: Open) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.lock("leader"):
            _ = 1 / 0
    async with opened().lock("leader"):
        pass


HOLDER = """
import asyncio, sys
from pathlib import Path
from brandproxy.store import open_store
async def main():
    async with open_store(sys.argv[1], Path(sys.argv[2])).lock("leader", ttl=1.0) as lease:
        print(lease.fence, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_the_lock_of_a_killed_holder_ends_by_itself(url: str, tmp_path: Path, store: Store) -> None:
    args = [sys.executable, "-c", HOLDER, url, str(tmp_path)]
    holder = await asyncio.create_subprocess_exec(*args, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    fence = int(await holder.stdout.readline())
    holder.kill()
    await holder.wait()
    async with asyncio.timeout(5):
        while True:
            try:
                async with store.lock("leader") as lease:
                    assert lease.fence > fence
                    return
            except Locked:
                await asyncio.sleep(0.1)


async def test_a_holder_that_was_away_too_long_is_stopped_in_its_block(
    url: str, tmp_path: Path, store: Store
) -> None:
    """A paused process (or a long pause of its machine) wakes up with its lock granted to somebody else."""
    import os
    import signal

    script = HOLDER.replace("asyncio.sleep(60)", "asyncio.sleep(60)\n        print('worked on', flush=True)")
    args = [sys.executable, "-c", script, url, str(tmp_path)]
    pipe = asyncio.subprocess.PIPE
    holder = await asyncio.create_subprocess_exec(*args, stdout=pipe, stderr=pipe)
    assert holder.stdout is not None
    await holder.stdout.readline()
    os.kill(holder.pid, signal.SIGSTOP)
    await asyncio.sleep(1.3)
    async with store.lock("leader"):
        os.kill(holder.pid, signal.SIGCONT)
        async with asyncio.timeout(5):
            out, errors = await holder.communicate()
    assert out == b""
    assert LockLost.__name__ in errors.decode()


async def test_a_cancelled_block_stays_cancelled(store: Store) -> None:
    entered = asyncio.Event()

    async def block() -> None:
        async with store.lock("leader"):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(block())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with store.lock("leader"):
        pass


async def test_a_write_of_a_holder_that_slept_through_its_lease_is_refused(store: Store, opened: Open) -> None:
    """It wakes with the write on its lips, before anything could tell it to stop."""
    other = opened()

    async def slept() -> None:
        async with store.lock("leader", ttl=0.3):
            await store.put("a", b"while it held the lock")
            for task in asyncio.all_tasks() - before - {asyncio.current_task()}:
                task.cancel()  # a sleeping process renews nothing
            await asyncio.sleep(0.5)
            async with other.lock("leader"):
                await other.put("a", b"of the new holder")
                with pytest.raises(LockLost):
                    await store.put("b", b"late")
                with pytest.raises(LockLost):
                    await store.delete("a")
                await asyncio.create_task(store.put("a", b"late, by a task of the block"))

    before = asyncio.all_tasks()
    with pytest.raises(LockLost):
        await slept()
    entry = await store.get("a")
    assert entry is not None
    assert entry.value == b"of the new holder"
    assert await store.get("b") is None
    await store.put("a", b"outside of it")  # the block's fence is gone with the block


async def test_a_block_that_ends_as_its_lease_is_lost_ends_without_a_stray_cancellation() -> None:
    """The loss is noticed in the instant in which the block is left: nobody may be cancelled for it then."""
    seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def renew() -> bool:
        seen.set_result(None)
        return False

    async def release() -> None:
        await asyncio.sleep(0.05)

    async with held(Guard(seen, "x", "me"), Lease("x", 1), 0.03, renew, release):
        await seen
