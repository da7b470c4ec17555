"""bench-analytics: the questions of a dashboard, p95, on DuckDB while 2,000 events/s go in, beside SQLite and
PostgreSQL answering the same questions at rest.

    make bench-analytics ARGS="--events 50000000 --no-peers"

A year of events of 1,000 tenants, sizes by Zipf; every question is about a tenant, campaign or month drawn with
the same weights. The peers get the indexes one would give them: (tenant, at_us) and (tenant, campaign, at_us).
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import math
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from bench.report import Row, show
from brandproxy.analytics import queries
from brandproxy.analytics.filters import Filter
from brandproxy.core.ids import uuid7
from brandproxy.engines import COLUMNS
from brandproxy.engines import Row as EventRow
from brandproxy.engines.dialect import Dialect
from brandproxy.engines.duckdb import SETTLE_ROWS, DuckEngine

START = 1_767_225_600_000_000  # 2026-01-01
SPAN = 365 * 86400 * 1_000_000
MONTH = 30 * 86400 * 1_000_000
CHUNK = 500_000
INGEST = 2000  # events a second while our engine is measured
INTEGERS = ("at_us", "link", "sent_at", "rules", "person", "reader", "seen_us")

# One chunk of events, in the order of their times: half a million rows a statement.
GENERATE = """
INSERT INTO recent SELECT
  lpad(to_hex(at_us // 1000), 12, '0') || '7' || right(md5(i::VARCHAR), 19), kind, at_us, 't' || tenant,
  'links.t' || tenant || '.example', 't' || tenant || '-c' || camp, 'm' || (rcp * 31 + camp), 'r' || rcp, link,
  CASE WHEN kind = 'click' THEN 'https://www.shop' || (tenant % 50) || '.example/products/' || camp || '/item-'
       || link || '?utm_source=mail' ELSE '' END,
  at_us // 1000000 - (r1 * 86400)::BIGINT, '198.51.' || (rcp % 200) || '.0',
  'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/' || (rcp % 40 + 90), 'GET',
  CASE WHEN r2 < 0.2 THEN ['agent'] ELSE []::VARCHAR[] END, 1, r2 >= 0.2,
  (hash('t' || tenant, 'r' || rcp) >> 1)::BIGINT,
  CASE WHEN kind = 'click' THEN 'www.shop' || (tenant % 50) || '.example' ELSE '' END, 'desktop', 'Chrome', '',
  at_us
FROM (SELECT i, $start + ($span::DOUBLE * (i + random() * 50000) / $all)::BIGINT AS at_us,
        exp(random() * ln(1000))::INT AS tenant, (random() * random() * 20)::INT + (i * 24 // $all) * 20 AS camp,
        (random() * random() * 200000)::INT AS rcp, (random() * random() * 20)::INT AS link, random() AS r1,
        random() AS r2,
        CASE WHEN random() < 0.4 THEN 'click' WHEN random() < 0.98 THEN 'open' ELSE 'unsubscribe' END AS kind
      FROM range($from, $to) AS r(i))
"""


def generate(engine: DuckEngine, count: int) -> None:
    run = engine._writer.execute
    gathered = 0
    for at in range(0, count, CHUNK):
        upto = min(count, at + CHUNK)
        run(GENERATE, {"start": START, "span": SPAN, "all": count, "from": at, "to": upto})
        gathered += upto - at
        if gathered >= SETTLE_ROWS:
            asyncio.run(settled(engine))
            gathered = 0
    run("CHECKPOINT")


async def settled(engine: DuckEngine) -> None:
    engine._changing = asyncio.Lock()  # bound to this run's loop
    await engine.settle()


class Plain(Dialect):
    """SQLite and PostgreSQL: integers divide as integers."""

    def floor(self, value: str, step: int) -> str:
        return f"({value}) / {step} * {step}"

    def quantile(self, share: float, value: str, where: str) -> str:
        return "NULL"  # neither is asked for percentiles: SQLite has none


class Sqlite:
    """The peer everybody has."""

    name, dialect = "sqlite", Plain()

    def __init__(self, file: Path, table: Path) -> None:
        self._db = sqlite3.connect(file)
        types = ", ".join(f"{c} {'INTEGER' if c in INTEGERS else 'TEXT'}" for c in COLUMNS)
        self._db.executescript(
            f"PRAGMA journal_mode=WAL; PRAGMA cache_size=-512000; CREATE TABLE events ({types})"
        )
        with table.open(newline="") as source:
            rows = csv.reader(source)
            self._db.executemany(f"INSERT INTO events VALUES ({', '.join('?' * len(COLUMNS))})", rows)
        self._db.executescript(
            "CREATE INDEX a ON events (tenant, at_us); CREATE INDEX b ON events (tenant, campaign, at_us); ANALYZE"
        )

    async def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, dict(params or {})).fetchall()


class Postgres:
    """A private server of our own; asked through one psql that stays open."""

    name, dialect = "postgresql", Plain()

    def __init__(self, psql: subprocess.Popen[str], table: Path) -> None:
        self._psql = psql
        types = ", ".join(f"{c} {'bigint' if c in INTEGERS else 'text'}" for c in COLUMNS)
        types = types.replace("person bigint", "person boolean")
        self._ask(f"CREATE UNLOGGED TABLE events ({types});")
        self._ask(f"COPY events FROM '{table}' (FORMAT csv);")
        self._ask("CREATE INDEX ON events (tenant, at_us); CREATE INDEX ON events (tenant, campaign, at_us);")
        self._ask("VACUUM ANALYZE events;")

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        self._psql.stdin.write(sql + "\n\\echo ==done==\n")
        self._psql.stdin.flush()
        lines = list(iter(self._psql.stdout.readline, "==done==\n"))
        return [tuple(int(v) if v.isdigit() else v or None for v in line[:-1].split("\t")) for line in lines]

    async def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        given = {
            k: str(v) if isinstance(v, int) else "'" + v.replace("'", "''") + "'"
            for k, v in (params or {}).items()
        }
        return self._ask(re.sub(r"\$(\w+)", lambda found: given[found[1]], sql) + ";")


@contextmanager
def postgres(folder: Path, table: Path) -> Iterator[Postgres]:
    """Runs as `nobody` when we are root, which PostgreSQL refuses to be."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    become = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []
    data = folder / "pg"
    data.mkdir()
    for path in (folder, data, table):
        shutil.chown(path, "nobody") if become else None
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    subprocess.run([*become, found / "initdb", "-D", data / "d", "-A", "trust", "-U", "bench"], **quiet)  # type: ignore[call-overload]
    options = f"-c listen_addresses= -k {data} -c shared_buffers=512MB -c work_mem=64MB -c max_wal_size=4GB"
    subprocess.run(
        [*become, found / "pg_ctl", "-D", data / "d", "-w", "-o", options, "-l", data / "log", "start"], **quiet
    )  # type: ignore[call-overload]
    try:
        command = ["psql", "-h", data, "-U", "bench", "-d", "postgres", "-qAtX", "-F", "\t"]
        psql = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        yield Postgres(psql, table)
        psql.stdin.close()  # type: ignore[union-attr]
        psql.wait(10)
    finally:
        subprocess.run([*become, found / "pg_ctl", "-D", data / "d", "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]


class Questions:
    """The same draw of tenants, campaigns and months for everybody."""

    def __init__(self) -> None:
        self._draw = random.Random(6)

    def _tenant(self) -> int:
        return max(1, round(math.exp(self._draw.random() * math.log(1000))))

    def _month(self) -> Filter:
        since = START + self._draw.randrange(SPAN - MONTH)
        return Filter(since, since + MONTH, tenant=f"t{self._tenant()}")

    def _campaign(self) -> Filter:
        tenant, part = self._tenant(), self._draw.randrange(24)
        number = int(self._draw.random() * self._draw.random() * 20) + part * 20
        return Filter(START, START + SPAN, tenant=f"t{tenant}", campaign=f"t{tenant}-c{number}")

    def all(self, engine: Any) -> dict[str, Callable[[], Awaitable[Any]]]:
        day, berlin = "day", ZoneInfo("Europe/Berlin")
        year = Filter(START + SPAN - 80 * 86400 * 1_000_000, START + SPAN)
        return {
            "summary": lambda: queries.summary(engine, self._month()),
            "daily-uniques": lambda: queries.timeseries(engine, self._month(), day, berlin),
            "top-links": lambda: queries.top(engine, self._campaign(), "link", 20),
            "fleet-hourly": lambda: queries.timeseries(engine, year, "hour", ZoneInfo("UTC"), uniques=False),
        }


async def p95(ask: Callable[[], Awaitable[Any]], times: int) -> tuple[float, float]:
    """(median, p95) in milliseconds."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        await ask()
        taken.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0)
    return median(taken), sorted(taken)[max(0, math.ceil(0.95 * len(taken)) - 1)]


async def ingesting(engine: DuckEngine, took: list[float]) -> None:
    """INGEST events a second, in a batch every quarter of a second."""
    template = (await engine.query("SELECT * FROM events LIMIT 500"))[:500]
    for number in range(1 << 30):
        begun = time.perf_counter()
        at = START + SPAN + number
        rows = [EventRow(*row)._replace(id=uuid7(at // 1000), at_us=at, seen_us=at) for row in template]
        await engine.ingest(f"s{number}", 0, 1, rows)
        took.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(max(0.0, len(template) / INGEST - (time.perf_counter() - begun)))


async def measure_ours(engine: DuckEngine, times: int) -> tuple[dict[str, tuple[float, float]], list[float]]:
    engine._changing = asyncio.Lock()
    took: list[float] = []
    background = asyncio.create_task(ingesting(engine, took))
    await asyncio.sleep(1)
    found = {}
    for case, ask in Questions().all(engine).items():
        found[case] = await p95(ask, times if case != "fleet-hourly" else max(3, times // 8))
    background.cancel()
    return found, took


async def measure_peer(peer: Sqlite | Postgres, times: int) -> dict[str, tuple[float, float]]:
    return {c: await p95(ask, times if c != "fleet-hourly" else 2) for c, ask in Questions().all(peer).items()}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench-analytics", description=__doc__)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--times", type=int, default=40, help="questions of each kind")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-analytics-") as name:
        folder = Path(name)
        engine = DuckEngine(folder / "events.duckdb")
        generate(engine, asked.events)
        ours, took = asyncio.run(measure_ours(engine, asked.times))
        size = (folder / "events.duckdb").stat().st_size
        theirs = {} if asked.no_peers else peers(engine, folder, max(4, asked.times // 4))
    rows = []
    for case, (middle, high) in ours.items():
        rows.append(Row(case, high, "ms p95", note=f"median {middle:.0f} ms"))
        for peer, figures in theirs.items():
            other = figures[case][1]
            rows.append(Row(case, high, "ms p95", peer, high / other, f"{peer} {other:,.0f} ms"))
    rows.append(Row("ingest-batch", sorted(took)[int(len(took) * 0.95)], "ms p95", note=f"500 events, {INGEST}/s"))
    rows.append(Row("bytes-an-event", size / asked.events, "bytes", note=f"{asked.events:,} events"))
    show("analytics", rows, ["--json"] if asked.json else [])


def peers(engine: DuckEngine, folder: Path, times: int) -> dict[str, dict[str, tuple[float, float]]]:
    table = folder / "events.csv"
    flat = ", ".join("array_to_string(machine, ';')" if c == "machine" else c for c in COLUMNS)
    flat = flat.replace("person", "person::INTEGER")
    upto = {"until": START + SPAN}
    engine._writer.execute(
        f"COPY (SELECT {flat} FROM events WHERE at_us < $until) TO '{table}' (HEADER false)", upto
    )
    engine._writer.close()
    found = {"sqlite": asyncio.run(measure_peer(Sqlite(folder / "events.sqlite", table), times))}
    if list(Path("/usr/lib/postgresql").glob("*/bin")):
        with postgres(folder, table) as server:
            found["postgresql"] = asyncio.run(measure_peer(server, times))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
