"""The engine of a fleet: ClickHouse over its HTTP interface.

Invariants: an event is one row whatever is repeated, because rows of the same id replace each other
(ReplacingMergeTree, read with FINAL); a range's rows are written before its end, so an end that is there has its
rows. A crash between the two repeats rows, which replace themselves.

    clickhouse://user:password@host1:8123,host2:8123/database?cluster=NAME&tls=1&…

Hosts are tried in order, the one that answered first. `cluster` makes the tables replicated on all its nodes; any
further parameter is a ClickHouse setting sent with every statement, e.g. `insert_quorum=2`. Small writes of many
collectors are gathered by the server (`async_insert`), which answers when they are stored.
"""

# ruff: noqa: S608 (only constants of this module and checked names become SQL text)

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from brandproxy import service_urls
from brandproxy.engines.base import COLUMNS, EngineUnavailable, Params, QueryTooLong, Row
from brandproxy.engines.dialect import ClickHouseDialect, Dialect
from brandproxy.errors import BadSettings, Conflict
from brandproxy.model import Event

_TYPES = {
    "kind": "LowCardinality(String)", "tenant": "LowCardinality(String)", "method": "LowCardinality(String)",
    "device": "LowCardinality(String)", "client": "LowCardinality(String)", "country": "LowCardinality(String)",
    "at_us": "Int64 CODEC(Delta, ZSTD)", "link": "Int32", "sent_at": "Int64", "machine": "Array(String)",
    "rules": "Int32", "person": "Bool", "reader": "Int64", "seen_us": "Int64 CODEC(Delta, ZSTD)",
}  # fmt: skip
_TABLE = ", ".join(f"{name} {_TYPES.get(name, 'String')}" for name in COLUMNS)
_LIST = ", ".join(COLUMNS)
_MONTH = "toYYYYMM(fromUnixTimestamp64Micro(at_us, 'UTC'))"
_PROGRESS_DAYS = 90  # spools are long gone by then
_QUERY_SECONDS = 20
_RECLASSIFY = 500  # events named in one statement
_TIMEOUT_EXCEEDED = "159"
_PARAMETER = re.compile(r"\$([a-z_][a-z0-9_]*)")


class ClickHouseEngine:
    dialect: Dialect = ClickHouseDialect()

    def __init__(self, url: str) -> None:
        """Raises BadSettings."""
        try:
            to = service_urls.clickhouse(url)
        except ValueError as error:
            raise BadSettings(f"analytics.engine: {error}") from error
        self._cluster, self._database, self._hosts = to.cluster, to.database, list(to.hosts)
        self._settings = {
            "final": "1",
            "do_not_merge_across_partitions_select_final": "1",
            "aggregate_functions_null_for_empty": "1",
            "output_format_json_quote_64bit_integers": "0",
            "max_execution_time": str(_QUERY_SECONDS),
            "async_insert": "1",
            "wait_for_async_insert": "1",
            "mutations_sync": "2",
            "lightweight_deletes_sync": "2",
            **to.settings,
        }
        headers = {"X-ClickHouse-User": to.user, "X-ClickHouse-Key": to.password} if to.user else {}
        # No connection is used twice: bytes behind an answer would be read as the next tenant's figures.
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(60, connect=3),
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )
        self._migrated = False
        self._migrating = asyncio.Lock()

    async def ingest(self, source: str, start: int, end: int, rows: Sequence[Row]) -> int:
        known = await self.end(source)
        if known != start:
            return known
        if rows:
            await self._insert("events", _LIST, rows)
        await self._insert("progress", 'source, "end", seen_at', [(source, end, int(time.time()))])
        return end

    async def end(self, source: str) -> int:
        [[found]] = await self._select(
            'SELECT max("end") FROM progress WHERE source = $source', {"source": source}
        )
        return int(found or 0)

    async def query(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self._select(sql, params or {})]

    async def delete(self, where: str, params: Params) -> int:
        [[count]] = await self._select(f"SELECT count(*) FROM events WHERE {where}", params)
        if count:
            await self._run(f"DELETE FROM events {self._everywhere} WHERE {where}", params)
        return int(count)

    async def reclassify(self, events: Sequence[Event]) -> None:
        """Newer rows take the old ones' places."""
        changed = {"machine": "new_machine", "rules": "new_rules", "person": "empty(new_machine)"}
        values = ", ".join(changed.get(name, name) for name in COLUMNS)
        for at in range(0, len(events), _RECLASSIFY):
            some = events[at : at + _RECLASSIFY]
            params = {
                "ids": [e.id for e in some],
                "machines": [list(e.machine) for e in some],
                "verdicts": [e.rules for e in some],
                "since": min(e.at_us for e in some),
                "until": max(e.at_us for e in some),
                "version": time.time_ns() // 1000,
            }
            await self._run(
                f"INSERT INTO events ({_LIST}, version) SELECT {values}, $version FROM (SELECT *,"
                " indexOf($ids, id) AS place, ($machines)[place] AS new_machine,"
                " toInt32(($verdicts)[place]) AS new_rules FROM events"
                " WHERE at_us >= $since AND at_us <= $until AND has($ids, id))",
                params,
            )

    async def settle(self) -> None:
        """ClickHouse merges and forgets by itself."""

    async def backup(self, folder: Path) -> None:
        await asyncio.to_thread(folder.mkdir, 0o700, True, True)
        if await asyncio.to_thread(os.listdir, folder):
            raise Conflict(f"{folder} is not empty", "Name a new folder.")
        for table, columns in (("progress", 'source, "end", seen_at'), ("events", _LIST)):
            content = await self._run(f"SELECT {columns} FROM {table} FORMAT Parquet", {})
            await asyncio.to_thread((folder / f"{table}.parquet").write_bytes, content)

    async def restore(self, folder: Path) -> None:
        [[held]] = await self._select("SELECT count(*) FROM events", {})
        if held:
            raise Conflict("the engine holds events already", "Restore into an empty database.")
        for table, columns in (("events", _LIST), ("progress", 'source, "end", seen_at')):
            content = await asyncio.to_thread((folder / f"{table}.parquet").read_bytes)
            await self._run(f"INSERT INTO {table} ({columns}) FORMAT Parquet", {}, content)

    async def close(self) -> None:
        await self._http.aclose()

    @property
    def _everywhere(self) -> str:
        return f"ON CLUSTER {self._cluster}" if self._cluster else ""

    def schema(self) -> list[str]:
        """Statements that make an empty database ready, harmless when it is."""

        def engine(kind: str, table: str, version: str) -> str:
            if not self._cluster:
                return f"{kind}({version})"
            path = f"/clickhouse/tables/{{shard}}/{self._database}/{table}"
            return f"Replicated{kind}('{path}', '{{replica}}', {version})"

        name, everywhere = self._database, self._everywhere
        return [
            f"CREATE DATABASE IF NOT EXISTS {name} {everywhere}",
            f"CREATE TABLE IF NOT EXISTS {name}.events {everywhere}"
            f" ({_TABLE}, version UInt64 DEFAULT 0,"
            " INDEX moment at_us TYPE minmax, INDEX seen seen_us TYPE minmax)"
            f" ENGINE = {engine('ReplacingMergeTree', 'events', 'version')} PARTITION BY {_MONTH}"
            " ORDER BY (tenant, campaign, at_us, id)",
            f'CREATE TABLE IF NOT EXISTS {name}.progress {everywhere} (source String, "end" Int64, seen_at Int64)'
            f" ENGINE = {engine('ReplacingMergeTree', 'progress', '`end`')} ORDER BY source"
            f" TTL toDateTime(seen_at) + INTERVAL {_PROGRESS_DAYS} DAY",
        ]

    async def _select(self, sql: str, params: Params) -> list[list[Any]]:
        await self._migrate()
        text = await self._send(*_bind(f"{sql} FORMAT JSONCompactEachRow", params))
        return [json.loads(line) for line in text.splitlines() if line]

    async def _run(self, sql: str, params: Params, body: bytes = b"") -> bytes:
        await self._migrate()
        return await self._send(*_bind(sql, params), body)

    async def _insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        body = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
        await self._run(f"INSERT INTO {table} ({columns}) FORMAT JSONCompactEachRow", {}, body)

    async def _migrate(self) -> None:
        async with self._migrating:
            if not self._migrated:
                for statement in self.schema():
                    await self._send(statement, {}, database="")
                self._migrated = True

    async def _send(
        self, sql: str, params: Mapping[str, str], body: bytes = b"", database: str | None = None
    ) -> bytes:
        """The statement goes in the URL when there are rows to send with it, otherwise in the body."""
        database = self._database if database is None else database
        asked = {**self._settings, **params, **({"database": database} if database else {})}
        asked, content = ({**asked, "query": sql}, body) if body else (asked, sql.encode())
        trouble = "no host given"
        for host in list(self._hosts):
            try:
                answer = await self._http.post(host, params=asked, content=content)
            except httpx.HTTPError as error:
                trouble = f"{type(error).__name__}: {error}"
                self._hosts.append(self._hosts.pop(0))
                continue
            if answer.status_code == 200:
                return answer.content
            if answer.headers.get("x-clickhouse-exception-code") == _TIMEOUT_EXCEEDED:
                raise QueryTooLong(f"the question took more than {_QUERY_SECONDS} s")
            trouble = f"{answer.status_code} {answer.text[:300]}"
            break
        raise EngineUnavailable(f"ClickHouse: {trouble}")


def _bind(sql: str, params: Params) -> tuple[str, dict[str, str]]:
    """`$name` as ClickHouse's `{name:Type}`, and the values in its text form."""
    text = _PARAMETER.sub(lambda found: f"{{{found[1]}:{_type(params[found[1]])}}}", sql)
    return text, {f"param_{name}": _escaped(value) for name, value in params.items()}


def _type(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"Array({_type(value[0]) if value else 'String'})"
    return {bool: "Bool", int: "Int64", float: "Float64"}.get(type(value), "String")


def _escaped(value: Any) -> str:
    """The TabSeparated form; inside arrays, the quoted one."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(_quoted(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _backslashed(value) if isinstance(value, str) else str(value)


def _quoted(value: Any) -> str:
    if isinstance(value, list | tuple):
        return _escaped(value)
    return "'" + _backslashed(value).replace("'", "\\'") + "'" if isinstance(value, str) else str(value)


def _backslashed(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\0", "\\0")
