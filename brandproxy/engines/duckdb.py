"""The engine on one machine: a DuckDB file with one owner process.

Invariants: rows and progress change in one transaction; an event is in exactly one of the two tables. `recent`
takes what arrives, in arrival order; `settled` holds sorted runs of it, so that a question about one tenant
reads a few row groups of each run (DuckDB keeps minimum and maximum per row group). The view `events` is both.

DuckDB blocks while it works, so every call runs in a thread. Rows that exist are changed (settled, deleted,
reclassified) by one at a time, under `_changing`; ingest only appends, so it goes on beside them, and readers
see one consistent state throughout. Memory is capped: what does not fit is spilled beside the file.
"""

# ruff: noqa: S608 (only constants of this module become SQL text)

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from brandproxy.engines.base import COLUMNS, EngineBusy, EngineUnavailable, Params, QueryTooLong, Row
from brandproxy.engines.dialect import Dialect
from brandproxy.errors import Conflict
from brandproxy.model import Event

T = TypeVar("T")

Run = Callable[..., duckdb.DuckDBPyConnection]  # execute(sql, parameters)

_TABLES = ("recent", "settled")
_TYPES = {
    "at_us": "BIGINT", "link": "INTEGER", "sent_at": "BIGINT", "machine": "VARCHAR[]", "rules": "INTEGER",
    "person": "BOOLEAN", "reader": "BIGINT", "seen_us": "BIGINT",
}  # fmt: skip
_TABLE = ", ".join(f"{name} {_TYPES.get(name, 'VARCHAR')} NOT NULL" for name in COLUMNS)
_INSERT = "INSERT INTO recent SELECT " + ", ".join(
    f"unnest(${number}::{_TYPES.get(name, 'VARCHAR')}[])" for number, name in enumerate(COLUMNS, 1)
)
_LIST = ", ".join(COLUMNS)

# Each step brings a file from the version of its index to the next; files of every release stay readable.
_MIGRATIONS = (
    f"""
    CREATE TABLE recent ({_TABLE});
    CREATE TABLE settled ({_TABLE});
    CREATE TABLE progress (source VARCHAR PRIMARY KEY, "end" BIGINT NOT NULL, seen_at BIGINT NOT NULL);
    CREATE VIEW events AS SELECT {_LIST} FROM settled UNION ALL SELECT {_LIST} FROM recent;
    """,
)

SETTLE_ROWS = 2_000_000  # a run: some 16 row groups, so that a tenant is in one or two of them
_PROGRESS_KEPT = 90 * 86400  # seconds; spools are long gone by then
_QUERY_SECONDS = 20.0


class DuckEngine:
    dialect = Dialect()

    def __init__(self, path: Path, memory: str = "512MB") -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        try:
            self._writer = duckdb.connect(str(path), config={"memory_limit": memory})
        except duckdb.IOException as error:
            raise EngineBusy(f"the analytics file is in use: {str(error).splitlines()[0]}") from error
        os.chmod(path, 0o600)
        self._writing = ThreadPoolExecutor(1, "duckdb-write")
        self._reading = ThreadPoolExecutor(4, "duckdb-read")
        self._changing = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()
        self._migrate()

    def _migrate(self) -> None:
        run = self._writer.execute
        run("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
        found = run("SELECT max(version) FROM schema_version").fetchone()
        version = (found and found[0]) or 0
        for number, step in enumerate(_MIGRATIONS[version:], version + 1):
            run(f"BEGIN; {step} DELETE FROM schema_version; INSERT INTO schema_version VALUES ({number}); COMMIT;")

    async def ingest(self, source: str, start: int, end: int, rows: Sequence[Row]) -> int:
        return await self._append(lambda: self._ingest(source, start, end, rows))

    def _ingest(self, source: str, start: int, end: int, rows: Sequence[Row]) -> int:
        known = self._end(source)
        if known != start:
            return known
        if rows:
            self._writer.execute(_INSERT, [list(column) for column in zip(*rows, strict=True)])
        self._writer.execute(
            "INSERT OR REPLACE INTO progress VALUES ($1, $2, $3)", [source, end, int(time.time())]
        )
        return end

    async def end(self, source: str) -> int:
        return await self._append(lambda: self._end(source))

    def _end(self, source: str) -> int:
        found = self._writer.execute('SELECT "end" FROM progress WHERE source = $1', [source]).fetchone()
        return int(found[0]) if found else 0

    async def query(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        cursor = self._writer.cursor()

        def run() -> list[tuple[Any, ...]]:
            with cursor:
                return cursor.execute(sql, dict(params or {})).fetchall()

        work = self._reading.submit(run)
        try:
            async with asyncio.timeout(_QUERY_SECONDS):
                return await asyncio.wrap_future(work)
        except TimeoutError as error:
            raise QueryTooLong(f"the question took more than {_QUERY_SECONDS:g} s") from error
        except duckdb.OutOfMemoryException as error:
            raise QueryTooLong("the question needs more memory than `analytics.memory` allows") from error
        finally:
            if not work.done():  # nobody waits for it any more
                stopping = asyncio.create_task(_stop(cursor, work))
                self._stopping.add(stopping)
                stopping.add_done_callback(self._stopping.discard)

    async def delete(self, where: str, params: Params) -> int:
        def work(run: Run) -> int:
            gone = [run(f"DELETE FROM {table} WHERE {where}", dict(params)).fetchone() for table in _TABLES]
            return sum(found[0] for found in gone if found)

        return await self._change(work)

    async def reclassify(self, events: Sequence[Event]) -> None:
        times = [e.at_us for e in events]
        columns = [[e.id for e in events], [list(e.machine) for e in events], [e.rules for e in events]]

        def work(run: Run) -> None:
            for table in _TABLES:
                # The span of time spares reading the whole table.
                run(
                    f"""UPDATE {table} SET machine = new.machine, rules = new.rules, person = len(new.machine) = 0
                    FROM (SELECT unnest($1::VARCHAR[]) AS id, unnest($2::VARCHAR[][]) AS machine,
                          unnest($3::INTEGER[]) AS rules) AS new
                    WHERE {table}.id = new.id AND at_us BETWEEN $4 AND $5""",
                    [*columns, min(times), max(times)],
                )

        if events:
            await self._change(work)

    async def settle(self) -> None:
        def work(run: Run) -> None:
            run("DELETE FROM progress WHERE seen_at < $1", [int(time.time()) - _PROGRESS_KEPT])
            found = run("SELECT count(*) FROM recent").fetchone()
            if found and found[0] >= SETTLE_ROWS:
                run(f"INSERT INTO settled SELECT {_LIST} FROM recent ORDER BY tenant, campaign, at_us")
                run("DELETE FROM recent")  # what this transaction sees: what arrived meanwhile stays

        await self._change(work)

    async def backup(self, folder: Path) -> None:
        def work(run: Run) -> None:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if any(folder.iterdir()):
                raise Conflict(f"{folder} is not empty", "Name a new folder.")
            for table in ("events", "progress"):
                file = str(folder / f"{table}.parquet").replace("'", "''")
                run(f"COPY (SELECT * FROM {table}) TO '{file}' (FORMAT parquet, COMPRESSION zstd)")

        await self._change(work)

    async def restore(self, folder: Path) -> None:
        def work(run: Run) -> None:
            held = run("SELECT count(*) FROM events").fetchone()
            if held and held[0]:
                raise Conflict("the engine holds events already", "Restore into a new data directory.")
            events, progress = str(folder / "events.parquet"), str(folder / "progress.parquet")
            order = "ORDER BY at_us // 2592000000000, tenant, campaign, at_us"  # runs of about a month
            run(f"INSERT INTO settled SELECT {_LIST} FROM read_parquet($1) {order}", [events])
            run("INSERT INTO progress SELECT * FROM read_parquet($1)", [progress])

        await self._change(work)

    async def close(self) -> None:
        await asyncio.gather(*self._stopping)
        async with self._changing:
            await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        """What runs ends first, even what nobody waits for any more: a connection cannot be closed at work."""
        self._writing.shutdown()
        self._reading.shutdown()
        self._writer.close()

    async def _append(self, work: Callable[[], T]) -> T:
        """Run `work` in the writer's thread as one transaction."""
        return await asyncio.get_running_loop().run_in_executor(self._writing, _transaction, self._writer, work)

    async def _change(self, work: Callable[[Run], T]) -> T:
        """Run `work` as one transaction of its own, beside ingest and alone among changes."""

        def run() -> T:
            with self._writer.cursor() as cursor:
                return _transaction(cursor, lambda: work(cursor.execute))

        async with self._changing:
            return await asyncio.get_running_loop().run_in_executor(self._reading, run)


async def _stop(cursor: duckdb.DuckDBPyConnection, work: Future[Any]) -> None:
    """Interrupt until it has worked: an interrupt that comes before the statement began is lost."""
    while not work.done():
        with suppress(duckdb.Error):
            cursor.interrupt()
        await asyncio.sleep(0.02)


def _transaction(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    try:
        connection.execute("BEGIN")
        try:
            result = work()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return result
    except (duckdb.IOException, duckdb.TransactionException, duckdb.OutOfMemoryException) as error:
        raise EngineUnavailable(f"the analytics file: {str(error).splitlines()[0]}") from error
