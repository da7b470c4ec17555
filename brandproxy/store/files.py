"""The store on one machine: one SQLite file in the data directory, shared by all processes.

Invariant: every write is one IMMEDIATE transaction that also appends to `change`, so the feed and the entries
never disagree, whatever is killed when. The file is 0600; WAL with full sync, so a returned write is on disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from brandproxy.errors import BadInput, Locked, StoreUnavailable
from brandproxy.store.base import MAX_KEY, MAX_VALUE, Change, CursorLost, Entry, Lease

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS change (seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, value BLOB);
CREATE TABLE IF NOT EXISTS lease (name TEXT PRIMARY KEY, holder TEXT, fence INTEGER NOT NULL, ends REAL NOT NULL);
"""
_KEPT_CHANGES = 50_000  # a watcher further behind than this lists again
_POLL = 0.1  # seconds between looks at the feed; changes must be seen within 2 s


class FileStore:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        # One thread: SQLite calls never run on the event loop, and never two at once on the connection.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def get(self, key: str) -> Entry | None:
        rows = await self._run(lambda db: _rows(db, "SELECT * FROM entry WHERE key = ?", (key,)))
        return Entry(*rows[0]) if rows else None

    async def list(self, prefix: str) -> list[Entry]:
        sql = "SELECT * FROM entry WHERE key >= ? AND key < ? ORDER BY key"
        rows = await self._run(lambda db: _rows(db, sql, (prefix, prefix + "\U0010ffff")))
        return [Entry(*row) for row in rows]

    async def create(self, key: str, value: bytes) -> bool:
        sql = "INSERT INTO entry VALUES (?, ?, 1) ON CONFLICT DO NOTHING"
        return await self._write(key, value, sql, (key, value))

    async def put(self, key: str, value: bytes) -> int:
        sql = "INSERT INTO entry VALUES (?1, ?2, 1) ON CONFLICT DO UPDATE SET value = ?2, version = version + 1"
        await self._write(key, value, sql, (key, value))
        entry = await self.get(key)
        return entry.version if entry else 0

    async def replace(self, key: str, value: bytes, version: int) -> bool:
        sql = "UPDATE entry SET value = ?2, version = version + 1 WHERE key = ?1 AND version = ?3"
        return await self._write(key, value, sql, (key, value, version))

    async def delete(self, key: str, version: int | None = None) -> bool:
        sql = "DELETE FROM entry WHERE key = ?1 AND version = coalesce(?2, version)"
        return await self._write(key, None, sql, (key, version))

    @asynccontextmanager
    async def lock(self, name: str, ttl: float = 30.0) -> AsyncIterator[Lease]:
        holder = uuid4().hex
        fence = await self._run(lambda db: _grant(db, name, holder, ttl))
        renewing = asyncio.create_task(self._renew(name, holder, ttl))
        try:
            yield Lease(name, fence)
        finally:
            renewing.cancel()
            sql = "UPDATE lease SET holder = NULL, ends = 0 WHERE name = ? AND holder = ?"
            await self._run(lambda db: _execute(db, sql, (name, holder)))

    async def cursor(self) -> str:
        rows = await self._run(lambda db: _rows(db, "SELECT coalesce(max(seq), 0) FROM change", ()))
        return str(rows[0][0])

    async def watch(self, prefix: str, cursor: str) -> AsyncIterator[Change]:
        at = int(cursor)
        while True:
            rows = await self._run(lambda db, at=at: _changes(db, at))  # type: ignore[misc]
            for seq, key, value in rows:
                at = seq
                if key.startswith(prefix):
                    yield Change(str(seq), key, value)
            if not rows:
                await asyncio.sleep(_POLL)

    async def close(self) -> None:
        def shut(db: sqlite3.Connection) -> None:
            db.close()
            self._db = None

        if self._db is not None:
            await self._run(shut)
        self._thread.shutdown(wait=True)

    async def _write(self, key: str, value: bytes | None, sql: str, args: tuple[object, ...]) -> bool:
        if not key or len(key.encode()) > MAX_KEY or (value is not None and len(value) > MAX_VALUE):
            raise BadInput(f"key or value out of bounds: {key[:80]!r}")

        def change(db: sqlite3.Connection) -> bool:
            with _transaction(db):
                if db.execute(sql, args).rowcount == 0:
                    return False
                seq = db.execute("INSERT INTO change (key, value) VALUES (?, ?)", (key, value)).lastrowid or 0
                if seq % 1000 == 0:
                    db.execute("DELETE FROM change WHERE seq <= ?", (seq - _KEPT_CHANGES,))
                return True

        return await self._run(change)

    async def _renew(self, name: str, holder: str, ttl: float) -> None:
        sql = "UPDATE lease SET ends = ? WHERE name = ? AND holder = ?"
        while True:
            await asyncio.sleep(ttl / 3)
            await self._run(lambda db: _execute(db, sql, (time.time() + ttl, name, holder)))

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def call() -> T:
            try:
                return work(self._connection())
            except (sqlite3.Error, OSError) as error:
                raise StoreUnavailable(f"store {self._path}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        return self._db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _grant(db: sqlite3.Connection, name: str, holder: str, ttl: float) -> int:
    now = time.time()
    with _transaction(db):
        sql = (
            "INSERT INTO lease VALUES (?1, ?2, 1, ?3) ON CONFLICT DO UPDATE "
            "SET holder = ?2, fence = fence + 1, ends = ?3 WHERE ends < ?4 RETURNING fence"
        )
        row = db.execute(sql, (name, holder, now + ttl, now)).fetchone()
    if row is None:
        raise Locked(f"lock {name!r} is held")
    return int(row[0])


def _changes(db: sqlite3.Connection, at: int) -> list[tuple[int, str, bytes | None]]:
    rows = _rows(db, "SELECT seq, key, value FROM change WHERE seq > ? ORDER BY seq LIMIT 1000", (at,))
    oldest = _rows(db, "SELECT coalesce(min(seq), 1) FROM change", ())[0][0]
    if rows and at < oldest - 1:
        raise CursorLost(f"change {at} is no longer kept")
    return rows


def _rows(db: sqlite3.Connection, sql: str, args: tuple[object, ...]) -> list[tuple]:  # type: ignore[type-arg]
    return db.execute(sql, args).fetchall()


def _execute(db: sqlite3.Connection, sql: str, args: tuple[object, ...]) -> None:
    db.execute(sql, args)
