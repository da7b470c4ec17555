"""The asset cache: memory over disk over origins.

Invariants: storage is asked once at a time for one object, however many clients ask, by one process of a machine
(another joins in when that takes longer than `_PATIENCE`); an object is kept only when it arrived whole; nothing
fetched before a purge is kept behind it.

What `Cache.get` answers with, in order:
1. a copy in memory that is fresh
2. a copy in memory that is stale but may be used: it, while storage is asked in the background
3. the refusal of a moment ago (negative caching), so that a missing object costs storage little
4. what the one running fill of this object brings: the copy on disk, another process's fetch, or storage;
   a small object whole, a large one streamed to all who asked while it arrives
5. a stale copy, when storage failed and the copy may still be used
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from brandproxy.config import Assets
from brandproxy.core.delivery import Described, Meta, describe
from brandproxy.core.media import compressible
from brandproxy.core.objects import Life, life
from brandproxy.storage.base import Found, ObjectMissing, StorageFailed, Want
from brandproxy.storage.bodies import CHUNK, Arriving, Body, Key
from brandproxy.storage.disk import Disk, File, Kept, Name

log = logging.getLogger(__name__)

Load = Callable[[Want], AbstractAsyncContextManager[Found | None]]

_MISSING_FOR, _FAILED_FOR = 15.0, 1.0  # seconds a refusal is repeated without asking
_NEAR_FRESH = 1  # seconds a copy of a file on this machine is used without looking at the file
_RETRY = 5.0  # seconds until storage that failed is asked again for an object we hold a stale copy of
_PATIENCE = 5.0  # seconds another process's fetch is waited for; a large or slow object is then fetched here too
_MAX_REFUSALS = 10_000  # and purges remembered
_OVERHEAD = 1024  # bytes an object in memory costs beside its body


@dataclass(slots=True)
class _Fill:
    """The one running attempt to get an object."""

    key: Key
    result: asyncio.Future[Body]
    task: asyncio.Task[None] | None = None


class Cache:
    """`now` returns seconds since 1970. `start` before use, `close` after."""

    def __init__(self, settings: Assets, disk: Disk, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._disk = disk
        self._now = now
        self._memory: OrderedDict[Key, Body] = OrderedDict()
        self._held = 0
        self._fills: dict[Key, _Fill] = {}
        self._refusals: OrderedDict[Key, tuple[float, ObjectMissing | StorageFailed]] = OrderedDict()
        self._purges: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await asyncio.to_thread(self._disk.start)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def memory_bytes(self) -> int:
        return self._held

    def peek(self, key: Key) -> Body | None:
        """A fresh copy in memory, without any waiting."""
        body = self._memory.get(key)
        if body is None or body.fresh <= self._now():
            return None
        self._memory.move_to_end(key)
        return body

    async def get(self, key: Key, load: Load, near: bool = False) -> tuple[Body, str]:
        """The object, ready or arriving, and where it came from: memory, disk, storage or stale.

        `near`: no copy on disk. Raises ObjectMissing and StorageFailed.
        """
        body = self.peek(key)
        if body is not None:
            return body, "memory"
        now = self._now()
        body = self._memory.get(key)
        if body is not None and now < body.stale:
            self._fill(key, load, near)
            return body, "stale"
        until, refusal = self._refusals.get(key, (0.0, None))
        if refusal is not None and now < until:
            raise _again(refusal)
        body = await asyncio.shield(self._fill(key, load, near).result)
        return body, body.how

    def forget(self, tenant: str, origin: str = "", path: str = "") -> None:
        """Drop a tenant's objects from memory, or one object in all its forms.

        What was fetched before this moment, here or by another process, is not kept and not taken from disk.
        """
        self._purges[tenant, origin, path] = self._now()
        while len(self._purges) > _MAX_REFUSALS:
            self._purges.popitem(last=False)

        def purged(key: Key) -> bool:
            return key.tenant == tenant and (not origin or (key.origin, key.path) == (origin, path))

        for key in [key for key in self._memory if purged(key)]:
            self._drop(key)
        for key in [key for key in self._refusals if purged(key)]:
            del self._refusals[key]
        for key in [key for key in self._fills if purged(key)]:
            del self._fills[key]

    def _purged(self, key: Key, since: float) -> bool:
        """Whether an object fetched or confirmed at `since` was purged after that."""
        orders = (key.tenant, "", ""), (key.tenant, key.origin, key.path)
        return any(self._purges.get(order, 0.0) >= since for order in orders)

    def _fill(self, key: Key, load: Load, near: bool) -> _Fill:
        fill = self._fills.get(key)
        if fill is None:
            fill = self._fills[key] = _Fill(key, asyncio.get_running_loop().create_future())
            # A failure is also told by `_refusals`; nobody need be waiting for the future.
            fill.result.add_done_callback(lambda done: done.cancelled() or done.exception())
            fill.task = asyncio.create_task(self._run(fill, load, near))
            self._tasks.add(fill.task)
            fill.task.add_done_callback(self._tasks.discard)
        return fill

    async def _run(self, fill: _Fill, load: Load, near: bool) -> None:
        """Everything a fill can come to ends in its result or in `_refusals`."""
        try:
            async with asyncio.timeout(self._settings.max_seconds):
                await (self._from_near(fill, load) if near else self._from_disk(fill, load))
        except TimeoutError:
            self._refuse(fill, StorageFailed("storage took too long for one object", slow=True))
        except (ObjectMissing, StorageFailed) as error:
            self._refuse(fill, error)
        except OSError as error:
            log.exception("asset cache: disk")
            self._refuse(fill, StorageFailed(f"the cache's disk: {error.strerror}"))
        except Exception as error:
            log.exception("asset cache: %s", fill.key)
            self._refuse(fill, StorageFailed(f"unexpected: {type(error).__name__}"))
        finally:
            if self._fills.get(fill.key) is fill:
                del self._fills[fill.key]
            fill.result.cancel()

    async def _from_near(self, fill: _Fill, load: Load) -> None:
        before = self._memory.get(fill.key)
        async with load(Want(before.described.meta.etag if before else "")) as found:
            if found is None:
                assert before is not None
                self._finish(fill, before, Life(True, _NEAR_FRESH, 0), self._now())
            elif found.meta.size > self._settings.memory_object and found.descriptor is not None:
                file = File(os.dup(found.descriptor))
                _give(fill, Body(describe(found.meta, fill.key.path), None, file, "disk"))
            else:
                body = Body(describe(found.meta, fill.key.path), await _collect(found), None, "storage")
                self._finish(fill, body, Life(True, _NEAR_FRESH, 0), self._now())

    async def _from_disk(self, fill: _Fill, load: Load) -> None:
        name = fill.key.name
        kept = await self._look(fill, name)
        patience = time.monotonic() + _PATIENCE
        while kept is not None or not fill.result.done():
            with self._disk.lock(name) as held:
                if held or time.monotonic() > patience:
                    kept = await self._look(fill, name)  # another process may just have put it there
                    if kept is not None or not fill.result.done():
                        await self._ask(fill, name, load, kept)
                    return
            if fill.result.done():
                return  # a stale copy was given, and another process asks storage about it
            await asyncio.sleep(0.02)
            kept = await self._look(fill, name)

    async def _look(self, fill: _Fill, name: Name) -> Kept | None:
        """Give the copy on disk, if it may be used; the copy itself when storage has to be asked about it."""
        kept = await asyncio.to_thread(self._disk.find, name)
        if kept is None or self._purged(fill.key, kept.fetched_at):
            return None
        lives, now = self._life(kept.meta), self._now()
        if now >= kept.confirmed_at + lives.fresh + lives.stale:
            return kept
        body = await self._from_kept(fill.key, kept)
        self._finish(fill, body, lives, kept.confirmed_at)
        return None if now < kept.confirmed_at + lives.fresh else kept

    async def _from_kept(self, key: Key, kept: Kept) -> Body:
        described = self._describe(key, kept.meta)
        if kept.meta.size > self._settings.memory_object:
            return Body(described, None, kept.file, "disk")
        data = await asyncio.to_thread(os.pread, kept.file.descriptor, kept.meta.size, 0)
        return Body(described, data, None, "disk")

    async def _ask(self, fill: _Fill, name: Name, load: Load, kept: Kept | None) -> None:
        """Storage itself; this process holds the lock of the object."""
        want = Want(coding=fill.key.coding)
        if kept is not None:
            want = replace(want, etag=kept.meta.etag, modified=kept.meta.modified)
        started = self._now()
        try:
            async with load(want) as found:
                if found is None:
                    assert kept is not None
                    await asyncio.to_thread(self._disk.confirm, name, started)
                    body = await self._from_kept(fill.key, kept)
                    self._finish(fill, body, self._life(kept.meta), started)
                elif 0 <= found.meta.size <= self._settings.memory_object:
                    await self._take_small(fill, found, started)
                else:
                    await self._take_large(fill, found, started)
        except ObjectMissing:
            await asyncio.to_thread(self._disk.forget, name.tenant, name.object)
            raise

    async def _take_small(self, fill: _Fill, found: Found, started: float) -> None:
        data, lives = await _collect(found), self._life(found.meta)
        self._finish(fill, Body(self._describe(fill.key, found.meta), data, None, "storage"), lives, started)
        if lives.keep:
            await asyncio.to_thread(self._keep, fill.key, None, found.meta, data, started)

    def _keep(self, key: Key, file: File | None, meta: Meta, data: bytes, started: float) -> None:
        """On disk, from a scratch file or from memory; not what was purged meanwhile. In a thread."""
        try:
            if file is None:
                file = self._disk.scratch()
                os.pwrite(file.descriptor, data, 0)
            if not self._purged(key, started):
                self._disk.publish(file, key.name, meta, started)
        except OSError as error:  # a full disk makes the cache smaller, not the images go away
            log.warning("asset cache: cannot write: %s", error)
        if self._purged(key, started):
            self._disk.forget(key.tenant, key.name.object)

    async def _take_large(self, fill: _Fill, found: Found, started: float) -> None:
        file = await asyncio.to_thread(self._disk.scratch)
        meta = found.meta
        arriving = Arriving(self._describe(fill.key, meta), file)
        if meta.size >= 0:
            _give(fill, arriving)
        try:
            await _write(found, file, arriving)
        except BaseException as error:
            file.discard()
            arriving.ended(error if isinstance(error, StorageFailed) else StorageFailed("storage broke off"))
            raise
        meta = replace(meta, size=arriving.written)
        lives = self._life(meta)
        if lives.keep:
            await asyncio.to_thread(self._keep, fill.key, file, meta, b"", started)
        file.discard()
        arriving.ended(None)
        self._finish(fill, Body(self._describe(fill.key, meta), None, file, "storage"), lives, started)

    def _finish(self, fill: _Fill, body: Body, lives: Life, confirmed_at: float) -> None:
        body.fresh = confirmed_at + lives.fresh
        body.stale = body.fresh + lives.stale
        if lives.keep and body.data is not None and not self._purged(fill.key, confirmed_at):
            self._hold(fill.key, body)
        self._refusals.pop(fill.key, None)
        _give(fill, body)

    def _refuse(self, fill: _Fill, error: ObjectMissing | StorageFailed) -> None:
        now, missing = self._now(), isinstance(error, ObjectMissing)
        held = self._memory.get(fill.key)
        if missing:
            self._drop(fill.key)
        elif held is not None:
            held.fresh = min(now + _RETRY, held.stale)
        if missing or not fill.result.done():  # else a stale copy was given, and goes on being given
            self._refusals[fill.key] = (now + (_MISSING_FOR if missing else _FAILED_FOR), _again(error))
        while len(self._refusals) > _MAX_REFUSALS:
            self._refusals.popitem(last=False)
        if not fill.result.done():
            fill.result.set_exception(error)

    def _hold(self, key: Key, body: Body) -> None:
        self._drop(key)
        assert body.data is not None
        self._memory[key] = body
        self._held += len(body.data) + _OVERHEAD
        while self._held > self._settings.memory and self._memory:
            self._drop(next(iter(self._memory)))

    def _drop(self, key: Key) -> None:
        body = self._memory.pop(key, None)
        if body is not None and body.data is not None:
            self._held -= len(body.data) + _OVERHEAD

    def _life(self, meta: Meta) -> Life:
        return life(meta.cache_control, self._settings.fresh, self._settings.stale)

    def _describe(self, key: Key, meta: Meta) -> Described:
        return describe(meta, key.path, vary=compressible(key.path) or bool(meta.encoding))


def _again(error: ObjectMissing | StorageFailed) -> ObjectMissing | StorageFailed:
    """The same refusal without its traceback, which would keep everything alive that led to it."""
    return StorageFailed(str(error), error.slow) if isinstance(error, StorageFailed) else ObjectMissing(str(error))


def _give(fill: _Fill, body: Body) -> None:
    if not fill.result.done():
        fill.result.set_result(body)


async def _collect(found: Found) -> bytes:
    data = b"".join([chunk async for chunk in found.chunks])
    if len(data) != found.meta.size:
        raise StorageFailed(f"storage sent {len(data)} of {found.meta.size} bytes")
    return data


async def _write(found: Found, file: File, arriving: Arriving) -> None:
    """The body into the file, in pieces that are worth a thread's time."""
    waiting: list[bytes] = []
    size = 0

    async def flush() -> None:
        nonlocal size
        data = b"".join(waiting)
        waiting.clear()
        size = 0
        at = 0
        while at < len(data):
            at += await asyncio.to_thread(os.pwrite, file.descriptor, data[at:], arriving.written + at)
        arriving.wrote(len(data))

    async for chunk in found.chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= CHUNK:
            await flush()
    await flush()
    if found.meta.size >= 0 and arriving.written != found.meta.size:
        raise StorageFailed(f"storage sent {arriving.written} of {found.meta.size} bytes")
