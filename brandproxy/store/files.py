"""The store on one machine: one SQLite file in the data directory, shared by all processes.

Invariant: every write is one IMMEDIATE transaction that also appends to `change`, so the feed and the entries
never disagree, whatever is killed when. The file is 0600; WAL with full sync, so a returned write is on disk.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar
from uuid import uuid4

from brandproxy.errors import BadSettings, Locked, StoreUnavailable
from brandproxy.store.base import FEED_KEPT, Change, CursorLost, Entry, Lease, LockLost, check
from brandproxy.store.lease import Guard, guards, held

log = logging.getLogger(__name__)

T = TypeVar("T")

_FORMAT = 1
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS entry (key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL)"
    " WITHOUT ROWID",
    # seq is the version that the write gave, or used up by deleting. The row 0 is the feed's beginning.
    "CREATE TABLE IF NOT EXISTS change (seq INTEGER PRIMARY KEY, key TEXT NOT NULL)",
    "INSERT INTO change SELECT 0, '' WHERE NOT EXISTS (SELECT * FROM change)",
    "CREATE TABLE IF NOT EXISTS lease"
    " (name TEXT PRIMARY KEY, holder TEXT, fence INTEGER NOT NULL, ends REAL NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {_FORMAT}",
)
_UPSERT = (
    "INSERT INTO entry VALUES (:key, :value, :next) ON CONFLICT DO UPDATE SET value = :value, version = :next"
    " WHERE value IS NOT :value"
)
_REMOVE = "DELETE FROM entry WHERE key = :key"
_POLL = 0.1  # seconds between looks at the feed; changes must be seen within 2 s
_OPEN_FOR = 10.0  # seconds to wait for other processes that make the same file


class Damaged(StoreUnavailable):
    action = "The disk is at fault: restore the file from a backup. A fleet's node makes its copy anew by itself."


class FileStore:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        # One thread: SQLite calls never run on the event loop, and never two at once on the connection.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def get(self, key: str) -> Entry | None:
        check(key)
        sql = "SELECT * FROM entry WHERE key = ?"
        row = await self._run(lambda db: db.execute(sql, (key,)).fetchone())
        return Entry(*row) if row else None

    async def list(self, prefix: str) -> list[Entry]:
        def read(db: sqlite3.Connection) -> list[Entry]:
            rows = db.execute("SELECT * FROM entry WHERE key >= ? ORDER BY key", (prefix,))
            return [Entry(*row) for row in takewhile(lambda row: row[0].startswith(prefix), rows)]

        return await self._run(read)

    async def create(self, key: str, value: bytes) -> bool:
        sql = "INSERT INTO entry VALUES (:key, :value, :next) ON CONFLICT DO NOTHING"
        return await self._write(sql, key, value) is not None

    async def put(self, key: str, value: bytes) -> int:
        sql = "INSERT OR REPLACE INTO entry VALUES (:key, :value, :next)"
        return await self._write(sql, key, value) or 0

    async def replace(self, key: str, value: bytes, version: int) -> bool:
        sql = "UPDATE entry SET value = :value, version = :next WHERE key = :key AND version = :at"
        return await self._write(sql, key, value, version) is not None

    async def delete(self, key: str, version: int | None = None) -> bool:
        sql = "DELETE FROM entry WHERE key = :key AND version = coalesce(:at, version)"
        return await self._write(sql, key, b"", version) is not None

    @asynccontextmanager
    async def lock(self, name: str, ttl: float = 30.0) -> AsyncIterator[Lease]:
        check(name)
        holder = uuid4().hex
        fence = await self._run(lambda db: _grant(db, name, holder, ttl))
        renew = "UPDATE lease SET ends = ?3 WHERE name = ?1 AND holder = ?2 AND ends > ?4"
        release = "UPDATE lease SET holder = NULL, ends = 0 WHERE name = ?1 AND holder = ?2"

        async def renewed() -> bool:
            now = time.time()
            return await self._run(lambda db: db.execute(renew, (name, holder, now + ttl, now)).rowcount > 0)

        async def released() -> object:
            return await self._run(lambda db: db.execute(release, (name, holder)).rowcount)

        async with held(Guard(self, name, holder), Lease(name, fence), ttl, renewed, released) as lease:
            yield lease

    async def cursor(self) -> str:
        return str(await self._run(_last))

    async def watch(self, prefix: str, cursor: str) -> AsyncIterator[Change]:
        at = int(cursor)
        while True:
            rows = await self._run(lambda db, at=at: _changes(db, at))  # type: ignore[misc]
            for at, key, value in rows:
                if key.startswith(prefix):
                    yield Change(str(at), key, value)
            if not rows:
                await asyncio.sleep(_POLL)

    async def apply(
        self, changes: Sequence[tuple[str, bytes | None]], mark: tuple[str, bytes] | None = None
    ) -> None:
        """For a replica: many writes (None deletes) in one transaction, told to watchers where they change
        anything; `mark` is an entry that is written with them and told to nobody."""

        def write(db: sqlite3.Connection) -> None:
            with _transaction(db):
                version = max(_last(db) + 1, time.time_ns() // 1000)
                for key, value in changes:
                    row = {"key": key, "value": value, "next": version}
                    if db.execute(_REMOVE if value is None else _UPSERT, row).rowcount:
                        db.execute("INSERT INTO change VALUES (?, ?)", (version, key))
                        version += 1
                if mark is not None:
                    db.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, 0)", mark)
                _prune(db)

        await self._run(write)

    async def set_aside(self) -> None:
        """Give up a damaged file, kept beside for a look; the next call makes a new one."""

        def rename() -> None:
            self._shut()
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    os.replace(f"{self._path}{suffix}", f"{self._path}.damaged{suffix}")

        await asyncio.get_running_loop().run_in_executor(self._thread, rename)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._shut)
        self._thread.shutdown(wait=True)

    def _shut(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    async def _write(self, sql: str, key: str, value: bytes, at: int | None = None) -> int | None:
        """The version given, or None when the statement's condition did not hold."""
        check(key, value)
        needed = guards(self)

        def write(db: sqlite3.Connection) -> int | None:
            with _transaction(db):
                _check_held(db, needed)
                # Grows over the whole store, also over a file that was restored from a copy.
                version = max(_last(db) + 1, time.time_ns() // 1000)
                if db.execute(sql, {"key": key, "value": value, "next": version, "at": at}).rowcount == 0:
                    return None
                db.execute("INSERT INTO change VALUES (?, ?)", (version, key))
                _prune(db)
                return version

        return await self._run(write)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def call() -> T:
            try:
                if self._db is None:
                    self._db = _open(self._path)
                return work(self._db)
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    self._shut()  # another process may put a whole one in its place
                    raise Damaged(f"store {self._path}: {error}") from error
                raise StoreUnavailable(f"store {self._path}: {error}") from error
            except OSError as error:
                raise StoreUnavailable(f"store {self._path}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


class Reader:
    """Looks into a store's file from where no thread can be waited for: a TLS handshake. One query on the local
    disk; in WAL mode writers do not hold it up."""

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._db: sqlite3.Connection | None = None

    def get(self, key: str) -> bytes | None:
        """The value, or None. Raises StoreUnavailable, also when there is no such file."""
        try:
            if self._db is None:
                self._db = sqlite3.connect(self._uri, uri=True, timeout=0.1)
            row = self._db.execute("SELECT value FROM entry WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._db = None
            raise StoreUnavailable(f"store {self._uri}: {error}") from error
        return row[0] if row else None


def _open(path: Path) -> sqlite3.Connection:
    """Open or make the file. Several processes may do so at once: SQLite answers "locked" to some of them
    without waiting, because changing to WAL and upgrading a read lock cannot wait; they come again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        if error.errno != errno.EROFS or not path.exists():
            raise
        return _open_frozen(path)
    until = time.monotonic() + _OPEN_FOR
    while True:
        db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db)
            return db
        except sqlite3.OperationalError:
            db.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _open_frozen(path: Path) -> sqlite3.Connection:
    """The file as it lies on a disk that takes no writes: nobody changes it, so a copy of it is as good.

    SQLite cannot read a WAL file without writing beside it, hence the copy. Writes fail.
    """
    log.error("store: %s lies on a read-only disk: it is read as it is, and nothing can be changed", path)
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    with TemporaryDirectory(prefix="brandproxy-") as folder:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{folder}/store.db{suffix}")
        with closing(sqlite3.connect(f"{folder}/store.db")) as copied:
            copied.backup(db)
    db.execute("PRAGMA query_only = ON")
    return db


def _prepare(db: sqlite3.Connection) -> None:
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found > _FORMAT:
        raise BadSettings(f"the store file has format {found}; this version reads {_FORMAT}", "Upgrade this node.")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    if found < _FORMAT:
        with _transaction(db):
            for statement in _SCHEMA:
                db.execute(statement)


@contextmanager
def _transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    db.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _grant(db: sqlite3.Connection, name: str, holder: str, ttl: float) -> int:
    now = time.time()
    sql = (
        "INSERT INTO lease VALUES (?1, ?2, 1, ?3) ON CONFLICT DO UPDATE "
        "SET holder = ?2, fence = fence + 1, ends = ?3 WHERE ends < ?4 RETURNING fence"
    )
    with _transaction(db):
        row = db.execute(sql, (name, holder, now + ttl, now)).fetchone()
    if row is None:
        raise Locked(f"lock {name!r} is held")
    return int(row[0])


def _check_held(db: sqlite3.Connection, needed: Sequence[Guard]) -> None:
    sql = "SELECT 1 FROM lease WHERE name = ? AND holder = ? AND ends > ?"
    for guard in needed:
        if db.execute(sql, (guard.lock, guard.holder, time.time())).fetchone() is None:
            raise LockLost(f"lock {guard.lock!r} is not held any more, so nothing was written")


def _last(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT max(seq) FROM change").fetchone()[0])


def _prune(db: sqlite3.Connection) -> None:
    """Look once in a thousand writes: counting rows is not free."""
    if db.execute("SELECT abs(random()) % 1000").fetchone()[0]:
        return
    sql = "DELETE FROM change WHERE seq < (SELECT seq FROM change ORDER BY seq DESC LIMIT 1 OFFSET ?)"
    db.execute(sql, (FEED_KEPT,))


def _changes(db: sqlite3.Connection, at: int) -> list[tuple[int, str, bytes | None]]:
    """Up to 200 changes after `at` with the present values, all of one moment."""
    sql = (
        "SELECT seq, change.key, entry.value FROM change LEFT JOIN entry USING (key)"
        " WHERE seq > ? ORDER BY seq LIMIT 200"
    )
    with _transaction(db, "DEFERRED"):
        if db.execute("SELECT 1 FROM change WHERE seq = ?", (at,)).fetchone() is None:
            raise CursorLost(f"the feed no longer holds change {at}")
        return db.execute(sql, (at,)).fetchall()
