"""Objects ready to be sent: in memory, in a file, or still arriving."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

from brandproxy.core.delivery import Described
from brandproxy.storage import disk
from brandproxy.storage.base import StorageFailed
from brandproxy.storage.disk import File, Name

CHUNK = 5 << 10  # bytes; what a client that reads slowly, or never, makes us hold


@dataclass(frozen=True, slots=True)
class Key:
    """An object in one form. `storage` is the origin's URL, so that a moved origin starts afresh."""

    tenant: str
    origin: str
    path: str
    storage: str
    variant: str = ""
    coding: str = ""

    @property
    def name(self) -> Name:
        return disk.name(self.tenant, self.origin, self.path, self.storage, self.variant, self.coding)


class Body:
    """An object ready to be sent: `data` when it is in memory, else `read`. `fresh`, `stale`: until when."""

    __slots__ = ("_file", "data", "described", "fresh", "head", "how", "stale")

    def __init__(self, described: Described, data: bytes | None, file: File | None, how: str) -> None:
        self.described = described
        self.data = data
        self.head: bytes | None = None  # of the answer with the whole object, as it goes over the wire
        self.how = how  # disk or storage: where it came from
        self.fresh = self.stale = 0.0
        self._file = file

    async def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `stop`. Raises StorageFailed when they cannot all be had."""
        if self.data is not None:
            for at in range(start, stop, CHUNK):
                yield self.data[at : min(stop, at + CHUNK)]
            return
        assert self._file is not None
        while start < stop:
            await self._wait(start)
            chunk = await _read_at(self._file.descriptor, min(CHUNK, self._end(stop) - start), start)
            if not chunk:
                raise StorageFailed("the copy on disk is shorter than it was")
            start += len(chunk)
            yield chunk

    async def _wait(self, start: int) -> None:
        pass

    def _end(self, stop: int) -> int:
        return stop


class Arriving(Body):
    """A large object while it is written; readers follow the writer."""

    __slots__ = ("_more", "error", "whole", "written")

    def __init__(self, described: Described, file: File) -> None:
        super().__init__(described, None, file, "storage")
        self.written = 0
        self.whole = False
        self.error: StorageFailed | None = None
        self._more = asyncio.Event()

    def wrote(self, count: int) -> None:
        self.written += count
        self._more.set()
        self._more = asyncio.Event()

    def ended(self, error: StorageFailed | None) -> None:
        self.whole, self.error = error is None, error
        self._more.set()

    async def _wait(self, start: int) -> None:
        while self.written <= start and not self.whole and self.error is None:
            await self._more.wait()
        if self.written <= start and self.error is not None:
            raise self.error

    def _end(self, stop: int) -> int:
        return min(stop, self.written)


async def _read_at(descriptor: int, count: int, at: int) -> bytes:
    """What the page cache has is read at once; for the disk a thread waits. b"" at the end of the file."""
    buffer = bytearray(count)
    try:
        done = os.preadv(descriptor, [buffer], at, os.RWF_NOWAIT)
    except OSError:  # not in the cache (EAGAIN), or a file system without this
        done = 0
    return bytes(buffer[:done]) if done else await asyncio.to_thread(os.pread, descriptor, count, at)
