"""The analytics engine's written contract (brandproxy/engines/base.py), held by both homes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from brandproxy.analytics import queries
from brandproxy.analytics.filters import Filter
from brandproxy.config import Settings
from brandproxy.engines import COLUMNS, Engine, copying, open_engine
from brandproxy.engines.base import EngineUnavailable
from brandproxy.engines.clickhouse import ClickHouseEngine
from brandproxy.errors import BadSettings, Conflict, Retryable
from brandproxy.intake import row
from brandproxy.model import Event
from tests.analytics.conftest import event, some_events

AWKWARD = ["", "'", "\\", "\\'", "a\tb\nc\r", "ä€😀", '"', "$name {x:String}", "%", "NULL", "\\N"]


async def put(engine: Engine, events: list[Event], source: str = "s", start: int = 0, end: int = 1) -> int:
    return await engine.ingest(source, start, end, [row(e) for e in events])


async def ids(engine: Engine) -> list[str]:
    return sorted(found[0] for found in await engine.query("SELECT id FROM events"))


async def test_rows_come_back_as_they_were(engine: Engine) -> None:
    events = [
        event(campaign=text, message=text, recipient=text, url=text, agent=text, machine=(text,), link=n)
        for n, text in enumerate(AWKWARD)
    ]
    await put(engine, events)
    found = await engine.query(f"SELECT {', '.join(COLUMNS)} FROM events ORDER BY link")
    assert [tuple(r)[:-1] for r in found] == [tuple(row(e))[:-1] for e in events]  # but for when it was taken in


async def test_values_asked_for_are_values_whatever_they_look_like(engine: Engine) -> None:
    await put(engine, [event(campaign=text) for text in AWKWARD])
    for text in AWKWARD:
        found = await engine.query("SELECT campaign FROM events WHERE campaign = $c", {"c": text})
        assert found == [(text,)]


async def test_a_range_delivered_twice_counts_once(engine: Engine) -> None:
    events = some_events(50)
    assert await engine.end("s") == 0
    assert await put(engine, events[:30], start=0, end=300) == 300
    assert await put(engine, events[:30], start=0, end=300) == 300
    assert await put(engine, events, start=0, end=500) == 300, "another cut: nothing is written"
    assert await put(engine, events[30:], start=300, end=500) == 500
    assert await engine.end("s") == 500
    assert await ids(engine) == sorted(e.id for e in events)


async def test_a_range_without_rows_moves_the_end(engine: Engine) -> None:
    assert await engine.ingest("s", 0, 70, []) == 70
    assert await engine.end("s") == 70
    assert await engine.end("another") == 0


async def test_progress_and_rows_survive_a_restart(engine_url: str, tmp_path: Path) -> None:
    events = some_events(20)
    first = open_engine(Settings(data=tmp_path, analytics={"engine": engine_url}))  # type: ignore[arg-type]
    await put(first, events, end=200)
    await first.close()
    again = open_engine(Settings(data=tmp_path, analytics={"engine": engine_url}))  # type: ignore[arg-type]
    assert await again.end("s") == 200
    assert await ids(again) == sorted(e.id for e in events)
    await again.close()


async def test_deleting_tells_how_many_went(engine: Engine) -> None:
    events = some_events(100)
    await put(engine, events)
    doomed = [e for e in events if e.tenant == "acme" and e.recipient == "r3"]
    assert doomed
    condition, params = "tenant = $tenant AND recipient = $recipient", {"tenant": "acme", "recipient": "r3"}
    assert await engine.delete(condition, params) == len(doomed)
    assert await engine.delete(condition, params) == 0
    assert await ids(engine) == sorted(e.id for e in events if e not in doomed)


async def test_events_judged_again_keep_everything_else(engine: Engine) -> None:
    from dataclasses import replace

    events = some_events(40)
    await put(engine, events)
    judged = [replace(e, machine=("burst", "it's"), rules=9) for e in events[:15]] + [
        replace(e, machine=(), rules=9) for e in events[15:20]
    ]
    await engine.reclassify(judged)
    wanted = {e.id: e for e in (*judged, *events[20:])}
    found = await engine.query(f"SELECT {', '.join(COLUMNS)} FROM events ORDER BY id")
    assert [tuple(r)[:-1] for r in found] == [tuple(row(wanted[i]))[:-1] for i in sorted(wanted)]


async def test_a_backup_fills_an_empty_engine_of_either_home(
    engine: Engine, clickhouse: str, tmp_path: Path
) -> None:
    events = some_events(60)
    await put(engine, events, source="segment", end=600)
    await engine.backup(tmp_path / "backup")
    with pytest.raises(Conflict):
        await engine.restore(tmp_path / "backup")
    targets = [f"duckdb:{tmp_path}/restored.duckdb", f"{clickhouse}/r{time.time_ns()}"]
    for url in targets:
        other = open_engine(Settings(data=tmp_path, analytics={"engine": url}))  # type: ignore[arg-type]
        await other.restore(tmp_path / "backup")
        assert await ids(other) == sorted(e.id for e in events)
        assert await other.end("segment") == 600
        await other.close()


async def test_both_homes_answer_every_question_alike(engine: Engine, tmp_path: Path) -> None:
    """DuckDB's answers are proven against a plain count in tests/analytics; here each home against DuckDB."""
    from zoneinfo import ZoneInfo

    now = int(time.time() * 1e6)
    events = some_events(400, seed=5, until_us=now)
    judge = open_engine(Settings(data=tmp_path, analytics={"engine": f"duckdb:{tmp_path}/judge.duckdb"}))  # type: ignore[arg-type]
    for home in (engine, judge):
        await put(home, events)
    asked = Filter(now - 61 * 86_400_000_000, now + 1)
    filters = [asked, Filter(asked.since_us, asked.until_us, tenant="acme", machines="only"),
               Filter(asked.since_us, asked.until_us, tenant="nobody", machines="include")]  # fmt: skip
    for f in filters:
        assert await queries.summary(engine, f) == await queries.summary(judge, f)
        for unit in ("hour", "day", "week", "month"):
            zone = ZoneInfo("Asia/Kolkata")
            assert await queries.timeseries(engine, f, unit, zone) == await queries.timeseries(
                judge, f, unit, zone
            )
        for by in (*queries.TOP, "reason"):
            assert await queries.top(engine, f, by, 20) == await queries.top(judge, f, by, 20)
    await judge.close()


async def test_rows_whose_end_was_not_written_count_once(clickhouse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the two writes, after which the range comes back cut otherwise."""
    engine, events = ClickHouseEngine(f"{clickhouse}/c{time.time_ns()}"), some_events(30)
    insert = engine._insert

    async def only_rows(table: str, columns: str, rows: object) -> None:
        if table == "progress":
            raise EngineUnavailable("gone")
        await insert(table, columns, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "_insert", only_rows)
    with pytest.raises(EngineUnavailable):
        await put(engine, events[:20], end=200)
    monkeypatch.undo()
    assert await engine.end("s") == 0
    assert await put(engine, events, end=300) == 300
    assert await ids(engine) == sorted(e.id for e in events)
    await engine.close()


async def test_history_moves_to_another_engine_also_after_breaking_off(
    engine: Engine, clickhouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_BATCH", 17)
    events = some_events(100)
    await put(engine, events)
    target = open_engine(Settings(data=tmp_path, analytics={"engine": f"{clickhouse}/m{time.time_ns()}"}))  # type: ignore[arg-type]

    def break_off(done: int, _of: int) -> None:
        if done > 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await copying.copy(engine, target, break_off)
    told: list[tuple[int, int]] = []
    assert await copying.copy(engine, target, lambda *at: told.append(at)) == 100
    assert told[-1] == (100, 100)
    assert await ids(target) == sorted(e.id for e in events)
    await put(target, some_events(1, seed=9), source="other")
    with pytest.raises(Conflict):
        await copying.copy(engine, target, lambda *_: None)
    await target.close()


@pytest.mark.parametrize("url", ["clickhouse://", "clickhouse://host/a-b", "clickhouse://h/d?cluster=x;y"])
def test_a_wrong_url_is_told(url: str) -> None:
    with pytest.raises(BadSettings):
        ClickHouseEngine(url)
    with pytest.raises(ValueError):
        Settings(analytics={"engine": url})  # type: ignore[arg-type]


async def test_a_server_that_is_away_is_retryable() -> None:
    engine = ClickHouseEngine("clickhouse://127.0.0.1:1,127.0.0.1:2/x")
    with pytest.raises(Retryable):
        await engine.end("s")
    await engine.close()


_REPLICATED = """
import chdb, os, sys
engine = chdb.connect(sys.argv[1] + "/db?config-file=" + sys.argv[1] + "/config.xml")
for statement in sys.stdin.read().split(";"):
    engine.query(statement)
print(engine.query("SELECT count() FROM system.tables WHERE database = 'bp' AND engine LIKE 'Replicated%'"))
sys.stdout.flush()
os._exit(0)  # closing waits for a Keeper's answer that never comes
"""


def test_the_replicated_tables_are_made_by_the_engine(tmp_path: Path) -> None:
    """One process has no Keeper but the one of ClickHouse's own tests, in memory: enough to make the tables (with
    all checks of columns, keys and codecs), not to fill them. A cluster's name means nothing to one process."""
    (tmp_path / "config.xml").write_text(
        "<clickhouse><zookeeper><implementation>testkeeper</implementation></zookeeper>"
        "<macros><shard>1</shard><replica>one</replica></macros></clickhouse>"
    )
    statements = ClickHouseEngine("clickhouse://h/bp?cluster=main").schema()
    assert all(" ON CLUSTER main" in statement for statement in statements)
    text = ";".join(statements).replace(" ON CLUSTER main", "")
    made = subprocess.run(
        [sys.executable, "-c", _REPLICATED, str(tmp_path)], input=text, capture_output=True, text=True, timeout=60
    )
    assert made.stdout.split() == ["2"], made.stderr
