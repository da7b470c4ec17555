"""A node's own copy of what it serves from: tenants, hosts, certificates, blocks, challenges.

Invariants: `list`, `cursor` and `watch` answer from the local file alone, so a node starts and serves with the
fleet's store down; the file and the place in the fleet's feed up to which it is true change in one transaction,
so catching up misses nothing and repeats nothing; sealed values stay sealed; a fleet's store that has lost all
its tenants never empties a copy that has some; a damaged file is made anew from the fleet's store.

All processes of a machine share the file. One of them (whoever holds the flock on `replica.lock`) follows the
fleet's store; when it dies the next takes over at once. Writes and locks go to the fleet's store.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from brandproxy.errors import BrandproxyError, Retryable, StoreUnavailable
from brandproxy.store import keys
from brandproxy.store.base import Change, CursorLost, Entry, Lease, Store
from brandproxy.store.files import Damaged, FileStore

log = logging.getLogger(__name__)

# Tenants first: they tell whether the fleet's store was wiped.
MIRRORED = (keys.TENANT, keys.HOST, keys.CERT, keys.BLOCK, keys.CHALLENGE, keys.TICKET, keys.IDENTITY, keys.SENDER)
_MARK = "replica/cursor"  # the place in the fleet's feed, an entry of the local file
_BATCH = 1000  # changes in one local transaction
_RETRY = 0.5  # seconds until a store that is away is asked again; changes must be seen within 2 s
_REPEAT = 30.0  # seconds between lines in the log about it
_TURN = 0.2  # seconds between looks whether this process is to follow
_FIRST_COPY = 60.0  # seconds without progress until a new node gives up its first copy
_REMOTE = 2.0  # seconds a read waits for the fleet's store before the copy answers


class Replica:
    def __init__(self, fleet: Store, path: Path) -> None:
        self._fleet = fleet
        self._path = path
        self._local = FileStore(path)
        self._following: asyncio.Task[None] | None = None
        self._listed = 0

    async def start(self) -> None:
        """Follow from now on. Raises StoreUnavailable when there is no copy yet and none can be made."""
        self._following = asyncio.create_task(self._take_turns())
        seen, since = 0, time.monotonic()
        while not await self._there():
            if (now := await self._progress()) != seen:  # a million hosts take their time
                seen, since = now, time.monotonic()
            if time.monotonic() > since + _FIRST_COPY:
                raise StoreUnavailable(f"no copy of the store was made in {_FIRST_COPY:.0f} s, see the log")
            await asyncio.sleep(0.05)

    async def _progress(self) -> int:
        """A number that grows while this process, or another of the machine, makes the copy."""
        try:
            return self._listed + int(await self._local.cursor())
        except StoreUnavailable:
            return self._listed

    async def _there(self) -> bool:
        try:
            return await self._local.get(_MARK) is not None
        except StoreUnavailable:
            return False  # damaged: whoever follows makes it anew

    async def get(self, key: str) -> Entry | None:
        if not key.startswith(MIRRORED):
            return await self._fleet.get(key)
        try:
            async with asyncio.timeout(_REMOTE):
                return await self._fleet.get(key)
        except (Retryable, TimeoutError):
            return await self._local.get(key)

    async def list(self, prefix: str) -> list[Entry]:
        """From the copy; versions are the copy's own."""
        return await (self._local if prefix.startswith(MIRRORED) else self._fleet).list(prefix)

    async def cursor(self) -> str:
        return await self._local.cursor()

    def watch(self, prefix: str, cursor: str) -> AsyncIterator[Change]:
        return self._local.watch(prefix, cursor)

    async def create(self, key: str, value: bytes) -> bool:
        return await self._fleet.create(key, value)

    async def put(self, key: str, value: bytes) -> int:
        return await self._fleet.put(key, value)

    async def replace(self, key: str, value: bytes, version: int) -> bool:
        return await self._fleet.replace(key, value, version)

    async def delete(self, key: str, version: int | None = None) -> bool:
        return await self._fleet.delete(key, version)

    def lock(self, name: str, ttl: float = 30.0) -> AbstractAsyncContextManager[Lease]:
        return self._fleet.lock(name, ttl)

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await self._local.close()
        await self._fleet.close()

    async def _take_turns(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_TURN)
            await self._follow()
        finally:
            os.close(descriptor)

    async def _follow(self) -> None:
        """1. catch up from the mark; 2. with no mark, or one the feed has left behind, copy; 3. wait, again."""
        lost, said = False, -math.inf
        while True:
            try:
                mark = await self._local.get(_MARK)
                if mark is None or lost:
                    await self._copy()
                    lost = False
                else:
                    await self._catch_up(mark.value.decode())
            except CursorLost:
                lost = True
            except Damaged as error:
                log.error("replica: %s; it is set aside and made anew", error)
                await self._local.set_aside()
            except BrandproxyError as error:
                if time.monotonic() >= said + _REPEAT:
                    said = time.monotonic()
                    away = "serving from the copy" if await self._there() else "and there is no copy of it yet"
                    log.warning("replica: the store is away, %s: %s", away, error)
                await asyncio.sleep(_RETRY)

    async def _copy(self) -> None:
        """Make the copy like the fleet's store. What did not change is not written, nor told to watchers."""
        started = time.monotonic()
        cursor, count = await self._fleet.cursor(), 0
        for prefix in MIRRORED:
            there = {entry.key: entry.value for entry in await self._fleet.list(prefix)}
            here = {entry.key: entry.value for entry in await self._local.list(prefix)}
            self._listed += 1
            if prefix == keys.TENANT and here and not there:
                raise StoreUnavailable(
                    "the store has no tenants, this node's copy has some: it looks wiped, nothing is taken over",
                    "Restore the store. If it is meant to be empty, remove replica.db on this node.",
                )
            changes: list[tuple[str, bytes | None]] = []
            changes += [(key, value) for key, value in there.items() if here.get(key) != value]
            changes += [(key, None) for key in here if key not in there]
            for at in range(0, len(changes), _BATCH):
                await self._local.apply(changes[at : at + _BATCH])
            count += len(changes)
        await self._local.apply([], mark=(_MARK, cursor.encode()))
        log.info("replica: %d changes taken over in %.1f s", count, time.monotonic() - started)

    async def _catch_up(self, cursor: str) -> None:
        """Follow the feed for ever, in order; what has gathered is taken over in one transaction."""
        queue: asyncio.Queue[Change] = asyncio.Queue(_BATCH)

        async def read() -> None:
            async for change in self._fleet.watch("", cursor):
                await queue.put(change)

        reading = asyncio.create_task(read())
        getting = asyncio.create_task(queue.get())
        try:
            while True:
                await asyncio.wait((reading, getting), return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    return reading.result()
                batch = [getting.result()]
                while not queue.empty():
                    batch.append(queue.get_nowait())
                kept = [(c.key, c.value) for c in batch if c.key.startswith(MIRRORED)]
                await self._local.apply(kept, mark=(_MARK, batch[-1].cursor.encode()))
                getting = asyncio.create_task(queue.get())
        finally:
            reading.cancel()
            getting.cancel()
