"""Every question, written once. Each returns plain values ready for JSON.

SQL is made of constants of this module and bound parameters only; what a caller sent never becomes SQL text.
Uniques count distinct recipients; an event without a recipient reference is counted but has no unique.
"""

from __future__ import annotations

import bisect
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from brandproxy.analytics import periods
from brandproxy.analytics.filters import Filter
from brandproxy.engines import Engine

# ruff: noqa: S608 (see the docstring)

NAMES = {"click": "clicks", "open": "opens", "unsubscribe": "unsubscribes"}
DELAYS = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

# what `top` can group by -> (expression, label shown beside it)
TOP = {
    "link": ("campaign || ' #' || CAST(link AS VARCHAR)", "min(url)"),
    "url": ("url", "url"),
    "domain": ("domain", "domain"),
    "campaign": ("campaign", "campaign"),
    "message": ("message", "message"),
    "recipient": ("recipient", "recipient"),
    "host": ("host", "host"),
    "tenant": ("tenant", "tenant"),
    "device": ("device", "device"),
    "client": ("client", "client"),
    "country": ("country", "country"),
    "reason": ("", ""),  # a list: one row for each reason
}


def iso(us: int) -> str:
    """Microseconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000).isoformat()


def _counts(f: Filter, uniques: bool = True) -> dict[str, str]:
    """Name and SQL: totals and uniques of every kind of the shown events; machine events whatever is shown."""
    found = {}
    for kind, name in NAMES.items():
        found[name] = f"count(*) FILTER (WHERE kind = '{kind}' AND {f.shown})"
        if uniques:
            reader = f"CASE WHEN kind = '{kind}' AND {f.shown} AND reader <> 0 THEN reader END"
            found[f"unique_{name}"] = f"count(DISTINCT {reader})"
    return found | {"machines": "count(*) FILTER (WHERE NOT person)"}


async def summary(engine: Engine, f: Filter) -> dict[str, Any]:
    """Totals, uniques, click-to-open, and seconds from sending to click."""
    where, params = f.where()
    clicked = f"kind = 'click' AND sent_at > 0 AND at_us >= sent_at * 1000000 AND {f.shown}"
    seconds = engine.dialect.floor("at_us - sent_at * 1000000", 1)
    delays = ", ".join(engine.dialect.quantile(share, seconds, clicked) for share in DELAYS.values())
    asked = _counts(f)
    [row] = await engine.query(f"SELECT {', '.join(asked.values())}, {delays} FROM events WHERE {where}", params)
    counts: dict[str, int] = dict(zip(asked, row, strict=False))
    micros = row[len(asked) :]
    waited = {name: None if us is None else round(us / 1e6, 3) for name, us in zip(DELAYS, micros, strict=True)}
    opened = counts["unique_opens"]
    ratio = round(counts["unique_clicks"] / opened, 4) if opened else None
    return {"since": iso(f.since_us), "until": iso(f.until_us), **counts, "click_to_open": ratio, "delay": waited}


async def timeseries(engine: Engine, f: Filter, unit: str, zone: ZoneInfo, uniques: bool = True) -> dict[str, Any]:
    """The same counts per calendar bucket; buckets without events are there with zeros.

    Without uniques a year of a whole fleet is still a matter of tenths of a second.
    """
    since, until = periods.clamp(f.since_us, f.until_us, unit, int(time.time() * 1e6))
    buckets = periods.buckets(engine.dialect, unit, zone, since, until)
    where, params = replace(f, since_us=since, until_us=until).where()
    asked = _counts(f, uniques)
    columns = ", ".join(asked.values())
    rows = await engine.query(
        f"SELECT {buckets.expression} AS bucket, {columns} FROM events WHERE {where} GROUP BY bucket", params
    )
    keys = list(buckets.starts)
    zero = dict.fromkeys(asked, 0)
    points: dict[int, dict[str, Any]] = {k: {"at": at.isoformat(), **zero} for k, at in buckets.starts.items()}
    for key, *row in rows:
        points[keys[max(0, bisect.bisect_right(keys, key) - 1)]].update(zip(asked, row, strict=True))
    return {
        "unit": unit, "zone": zone.key, "since": iso(since), "until": iso(until), "points": list(points.values()),
    }  # fmt: skip


async def top(engine: Engine, f: Filter, by: str, limit: int) -> dict[str, Any]:
    """The groups with most events (clicks, unless the filter names another kind), with uniques and share."""
    if by == "reason":
        return await _top_reasons(engine, f, limit)
    f = f if f.kind else replace(f, kind="click")
    where, params = f.where()
    group, label = TOP[by]
    if by == "link":
        group = "campaign, link"
    rows = await engine.query(
        f"SELECT {group}, {label} AS label, count(*) AS n, count(DISTINCT CASE WHEN reader <> 0 THEN reader END)"
        f" FROM events WHERE {where} AND {f.shown} GROUP BY {group}"
        f" ORDER BY n DESC, {group} LIMIT {int(limit)}",
        params,
    )
    whole = await _count(engine, f)
    items = [_item(by, row, whole) for row in rows]
    return {"by": by, "since": iso(f.since_us), "until": iso(f.until_us), "total": whole, "items": items}


async def _top_reasons(engine: Engine, f: Filter, limit: int) -> dict[str, Any]:
    """An event with two reasons counts under both, so shares may add up to more than one."""
    where, params = f.where()
    f = replace(f, machines="only")
    each = engine.dialect.each("machine")
    rows = await engine.query(
        f"SELECT reason, reason, count(*) AS n, count(DISTINCT CASE WHEN reader <> 0 THEN reader END) FROM"
        f" (SELECT {each} AS reason, reader FROM events WHERE {where} AND NOT person) AS reasons"
        f" GROUP BY reason ORDER BY n DESC, reason LIMIT {int(limit)}",
        params,
    )
    whole = await _count(engine, f)
    items = [_item("reason", row, whole) for row in rows]
    return {"by": "reason", "since": iso(f.since_us), "until": iso(f.until_us), "total": whole, "items": items}


def _item(by: str, row: tuple[Any, ...], whole: int) -> dict[str, Any]:
    *key, label, events, unique = row
    item: dict[str, Any] = {"key": str(key[-1]), "label": label, "events": events, "unique": unique}
    if by == "link":
        item |= {"campaign": key[0], "link": key[1]}
    return item | {"share": round(events / whole, 4) if whole else 0.0}


async def _count(engine: Engine, f: Filter) -> int:
    where, params = f.where()
    [(count,)] = await engine.query(f"SELECT count(*) FROM events WHERE {where} AND {f.shown}", params)
    return int(count)
