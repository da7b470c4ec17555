"""The writing side. Invariant: when a `Commit` is done without error its record is on disk (`fsync`) or with the
kernel (`os`) and stays readable until its segment is removed. What was not kept is counted in `lost`, exactly.

One writer per `Spool`, on one event loop; one thread writes. What comes while the disk is idle is written at once;
all that comes while it is busy shares the next write (group commit), durable when it returns (O_DSYNC, open(2)).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from prometheus_client import Counter

from brandproxy.core.ids import uuid7
from brandproxy.errors import BadInput, SpoolFull
from brandproxy.scheduling import interrupt_nobody
from brandproxy.spool.segment import HEADER, MAX_RECORD, frame

log = logging.getLogger(__name__)

WRITTEN = Counter("brandproxy_spool_records", "Records made durable", ["spool"])
LOST = Counter("brandproxy_spool_lost", "Records that could not be kept: raise the alarm", ["spool"])

MAX_PENDING = 16 << 20  # bytes waiting for a slow disk before records are refused

_WRITER = re.compile(r"[A-Za-z0-9_.-]{1,80}")


class Commit:
    """One group of records on its way to disk. Await it, or leave a callback with `then` (cheaper)."""

    __slots__ = ("_calls", "_done", "_error")

    def __init__(self) -> None:
        self._calls: list[Callable[[bool], None]] = []
        self._done = False
        self._error: Exception | None = None

    @property
    def lost(self) -> bool:
        return self._error is not None

    def then(self, call: Callable[[bool], None]) -> None:
        """Call `call(written)` on the event loop when the group is durable, or lost."""
        if self._done:
            call(self._error is None)
        else:
            self._calls.append(call)

    def finish(self, error: Exception | None) -> None:
        self._done, self._error = True, error
        for call in self._calls:
            try:
                call(error is None)
            except Exception:
                log.exception("spool: a commit callback failed")
        self._calls.clear()

    def __await__(self) -> Generator[object, None, None]:
        """Raises SpoolFull when the record was lost."""
        if not self._done:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.then(lambda written: None if future.done() else future.set_result(None))
            yield from future
        if self._error is not None:
            raise SpoolFull(str(self._error)) from self._error


class Spool:
    """`max_bytes` bounds the whole directory (all writers); `lost` counts records that were not kept, `waiting`
    those on their way to disk."""

    def __init__(
        self,
        directory: Path,
        writer: str,
        durability: Literal["fsync", "os"] = "fsync",
        max_bytes: int = 4 << 30,
        segment_bytes: int = 16 << 20,
        segment_seconds: float = 60.0,
    ) -> None:
        if not _WRITER.fullmatch(writer):
            raise BadInput(f"spool writer {writer!r} is not a plain name")
        with suppress(OSError):  # a disk that takes no writes: each record is lost and counted, until it does
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lost = self.waiting = 0
        self._lost, self._kept = LOST.labels(directory.name), WRITTEN.labels(directory.name)
        self._file = _Appender(directory, writer, durability, max_bytes, segment_bytes, segment_seconds)
        self._work: SimpleQueue[tuple[list[bytes], Commit] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="spool", daemon=True)
        self._thread.start()
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._commit = Commit()
        self._writing = False
        self._closed = False

    def append(self, *records: bytes) -> Commit:
        """Take records of 1 byte to 1 MiB, to be kept or lost together. Raises SpoolFull when the disk cannot
        follow, or after `close`."""
        for record in records:
            if not 0 < len(record) <= MAX_RECORD:
                raise BadInput(f"a spool record of {len(record)} bytes")
        if self._closed or self._pending_bytes > MAX_PENDING:
            self._count(len(records), "closed" if self._closed else "the disk does not follow")
            raise SpoolFull("the spool takes no records")
        commit = self._commit
        self.waiting += len(records)
        for record in records:
            self._pending.append(frame(record))
            self._pending_bytes += len(record)
        if not self._writing:
            self._flush()
        return commit

    async def close(self) -> None:
        """Write what is pending and seal the segment."""
        self._closed = True
        if self._pending:
            with suppress(SpoolFull):
                await self._commit
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)
        if self.lost:
            log.error("spool: closed; events lost in all: %d", self.lost)

    def _flush(self) -> None:
        records, commit = self._pending, self._commit
        self._pending, self._pending_bytes, self._commit = [], 0, Commit()
        self._writing = True
        self._work.put((records, commit))

    def _write_all(self) -> None:
        """The writing thread. A plain queue: an executor's futures would cost more than the write."""
        interrupt_nobody()  # it would stop the event loop, only to wait for the interpreter's lock the loop holds
        while (work := self._work.get()) is not None:
            records, commit = work
            error: Exception | None = None
            try:
                self._file.append(records)
            except (
                Exception
            ) as fault:  # whatever it is: this thread must go on, or every click would wait for ever
                error = fault
            self._loop.call_soon_threadsafe(self._written, len(records), commit, error)
        self._file.seal()

    def _written(self, count: int, commit: Commit, error: Exception | None) -> None:
        self._writing = False
        self.waiting -= count
        if error is None:
            self._kept.inc(count)
        else:
            self._count(count, str(error))
        commit.finish(error)
        if self._pending and not self._writing:
            self._flush()

    def _count(self, count: int, why: str) -> None:
        if self.lost == 0 or self.lost // 1000 != (self.lost + count) // 1000:
            log.error("spool: events are being lost (%d so far): %s", self.lost + count, why)
        self.lost += count
        self._lost.inc(count)


class _Appender:
    """The file side of a spool; lives on the writing thread. Opened lazily, so an idle writer leaves no file."""

    def __init__(
        self, directory: Path, writer: str, durability: str, max_bytes: int, size: int, seconds: float
    ) -> None:
        self._directory, self._writer = directory, writer
        # Rather than a call of its own for each commit: the thread asks once less for the interpreter's lock.
        self._durable = os.O_DSYNC if durability == "fsync" else 0
        self._max_bytes, self._size, self._seconds = max_bytes, size, seconds
        self._fd = -1
        self._end = 0
        self._opened = 0.0
        self._total, self._looked = 0, 0.0

    def append(self, records: list[bytes]) -> None:
        """Take framed records. Raises OSError or SpoolFull, then none of them stays on disk."""
        data = b"".join(records)
        self._admit(len(data))
        self._rotate()
        try:
            _write_all(self._fd, data)
        except Exception:
            self._undo()
            raise
        self._end += len(data)
        self._total += len(data)

    def seal(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)  # gives up the flock: from here on the segment is sealed
            self._fd = -1

    def _admit(self, size: int) -> None:
        now = time.monotonic()
        if now - self._looked > 1.0 or self._total + size > self._max_bytes:
            self._total, self._looked = _directory_bytes(self._directory), now
        if self._total + size > self._max_bytes:
            raise SpoolFull(f"the spool is at its bound of {self._max_bytes} bytes")

    def _rotate(self) -> None:
        now = time.monotonic()
        if self._fd >= 0 and (self._end >= self._size or now - self._opened >= self._seconds):
            self.seal()
        if self._fd < 0:
            self._open()
            self._opened = now

    def _open(self) -> None:
        """A new segment: locked and complete before it can be seen under its name."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{uuid7(time.time_ns() // 1_000_000)}-{self._writer}.seg"
        fresh = self._directory / f".{name}"
        new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(fresh, new | self._durable, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_all(fd, HEADER)
            os.rename(fresh, self._directory / name)
            _sync_directory(self._directory)
        except OSError:
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise
        self._fd, self._end = fd, len(HEADER)

    def _undo(self) -> None:
        """After a failed write nothing of it may be read later: it is counted as lost. Go on in a new segment."""
        try:
            os.ftruncate(self._fd, self._end)
        except OSError:
            log.exception("spool: a failed write could not be undone")
        self.seal()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _directory_bytes(directory: Path) -> int:
    total = 0
    for entry in os.scandir(directory) if directory.is_dir() else ():
        try:
            total += entry.stat().st_size
        except FileNotFoundError:
            pass  # shipped meanwhile
    return total


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
