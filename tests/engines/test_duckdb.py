"""What is DuckDB's alone: one owner, bounded time and memory, crashes, settling beside ingest."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy.engines import EngineBusy, duckdb
from brandproxy.engines.base import QueryTooLong
from brandproxy.engines.duckdb import DuckEngine
from brandproxy.intake import row
from tests.analytics.conftest import some_events

ENDLESS = "SELECT count(*) FROM range(1000000) AS a, range(1000000) AS b WHERE (a.range * b.range) % 7 = 3"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[DuckEngine]:
    opened = DuckEngine(tmp_path / "events.duckdb", "64MB")
    yield opened
    await opened.close()


async def test_a_question_that_takes_too_long_ends_and_frees_its_thread(
    engine: DuckEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb, "_QUERY_SECONDS", 0.2)
    for _ in range(6):  # more than there are threads
        with pytest.raises(QueryTooLong):
            await engine.query(ENDLESS)
    monkeypatch.setattr(duckdb, "_QUERY_SECONDS", 10)
    assert await engine.query("SELECT 1") == [(1,)]


async def test_a_question_nobody_waits_for_ends(engine: DuckEngine) -> None:
    asked = [asyncio.create_task(engine.query(ENDLESS)) for _ in range(6)]
    await asyncio.sleep(0.1)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    async with asyncio.timeout(10):
        assert await engine.query("SELECT 1") == [(1,)]


async def test_a_question_that_needs_too_much_memory_is_refused_and_ingest_goes_on(engine: DuckEngine) -> None:
    with pytest.raises(QueryTooLong, match="memory"):
        await engine.query("SELECT list(range) FROM range(200000000)")
    assert await engine.ingest("s", 0, 5, [row(e) for e in some_events(10)]) == 5


async def test_a_second_owner_is_told(engine: DuckEngine, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from brandproxy.engines.duckdb import DuckEngine as E; E(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "events.duckdb")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert EngineBusy.__name__ in done.stderr
    assert (tmp_path / "events.duckdb").stat().st_mode & 0o777 == 0o600


async def test_settling_goes_on_beside_ingest_and_loses_nothing(
    engine: DuckEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb, "SETTLE_ROWS", 1)
    events = some_events(3000)

    async def settle() -> None:
        for _ in range(8):
            await engine.settle()
            await asyncio.sleep(0)

    async def ingest() -> None:
        for at in range(0, 3000, 100):
            await engine.ingest("s", at, at + 100, [row(e) for e in events[at : at + 100]])

    await asyncio.gather(settle(), ingest())
    await engine.settle()
    found = await engine.query("SELECT id FROM events")
    assert sorted(i for (i,) in found) == sorted(e.id for e in events)
    assert await engine.query("SELECT count(*) FROM recent") == [(0,)]


CRASH = """
import asyncio, os, sys
from pathlib import Path
from brandproxy.engines.duckdb import DuckEngine
from brandproxy.intake import row
from tests.analytics.conftest import some_events

async def main():
    engine = DuckEngine(Path(sys.argv[1]))
    end = await engine.end("s")
    while True:
        end = await engine.ingest("s", end, end + 10, [row(e) for e in some_events(10)])
        print(end, flush=True)

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_9_and_counts_once(tmp_path: Path) -> None:
    file, acknowledged = tmp_path / "events.duckdb", 0
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CRASH, str(file)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(7):
            acknowledged = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        acknowledged = max([acknowledged, *map(int, child.stdout.read().split())])
        child.stdout.close()

    async def look() -> tuple[int, int]:
        engine = DuckEngine(file)
        end, [(count,)] = await engine.end("s"), await engine.query("SELECT count(*) FROM events")
        await engine.close()
        return end, count

    end, count = asyncio.run(look())
    assert end >= acknowledged
    assert count == end


async def test_questions_changes_and_intake_never_meet_a_busy_connection(engine: DuckEngine) -> None:
    rows = [row(event) for event in some_events(20_000)]

    async def ask() -> None:
        for _ in range(60):
            await engine.query("SELECT count(*) FROM events")

    async def change() -> None:
        for _ in range(20):
            await engine.settle()

    async def take() -> None:
        for part in range(0, len(rows), 500):
            await engine.ingest("s", part, part + 500, rows[part : part + 500])

    await asyncio.gather(take(), change(), *(ask() for _ in range(4)))
    assert await engine.query("SELECT count(*) FROM events") == [(len(rows),)]


async def test_closing_waits_for_what_is_at_work(tmp_path: Path) -> None:
    engine = DuckEngine(tmp_path / "closing.duckdb", "64MB")
    rows = [row(event) for event in some_events(5_000)]
    taking = [
        asyncio.create_task(engine.ingest("s", at, at + 1000, rows[at : at + 1000])) for at in range(0, 5000, 1000)
    ]
    await asyncio.sleep(0)
    await engine.close()
    assert await asyncio.gather(*taking) == [1000, 2000, 3000, 4000, 5000]
