"""Every figure equals a plain count over the raw events."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brandproxy.analytics import queries
from brandproxy.analytics.filters import Filter
from brandproxy.config import Settings
from brandproxy.engines import Engine, open_engine
from brandproxy.model import Event

from .conftest import put, some_events

NOW = int(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp() * 1e6)  # a night of clock changes lies before it
EVENTS = some_events(1500, seed=7, until_us=NOW)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo")


@contextmanager
def loop_and_engine(path: Path) -> Iterator[tuple[asyncio.AbstractEventLoop, Engine]]:
    loop = asyncio.new_event_loop()
    engine = open_engine(Settings(data=path))
    loop.run_until_complete(put(engine, EVENTS))
    yield loop, engine
    loop.run_until_complete(engine.close())
    loop.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.AbstractEventLoop, Engine]]:
    with loop_and_engine(tmp_path_factory.mktemp("figures")) as both:
        yield both


moments = st.integers(NOW - 61 * 86_400_000_000, NOW + 86_400_000_000)
maybe = st.sampled_from


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    first, last = sorted((draw(moments), draw(moments)))
    return Filter(
        first,
        last,
        tenant=draw(maybe(["", "", "acme", "globex", "nobody"])),
        campaign=draw(maybe(["", "", "spring"])),
        message=draw(maybe(["", "", "", "m3"])),
        recipient=draw(maybe(["", "", "", "r1"])),
        host=draw(maybe(["", "", "go.acme.example"])),
        link=draw(maybe([None, None, None, 0, 2])),
        kind=draw(maybe(["", "", "click", "open", "unsubscribe"])),
        machines=draw(maybe(["exclude", "include", "only"])),
    )


def inside(f: Filter, e: Event) -> bool:
    wanted = {"tenant": f.tenant, "campaign": f.campaign, "message": f.message, "recipient": f.recipient}
    wanted |= {"host": f.host, "kind": f.kind}
    return (
        f.since_us <= e.at_us < f.until_us
        and all(getattr(e, name) == value for name, value in wanted.items() if value)
        and (f.link is None or e.link == f.link)
    )


def shown(f: Filter, e: Event) -> bool:
    return f.machines == "include" or bool(e.machine) == (f.machines == "only")


def naive(f: Filter, events: list[Event]) -> dict[str, int]:
    counts = {}
    for kind in ("click", "open", "unsubscribe"):
        chosen = [e for e in events if shown(f, e) and e.kind == kind]
        counts[kind + "s"] = len(chosen)
        counts[f"unique_{kind}s"] = len({(e.tenant, e.recipient) for e in chosen if e.recipient})
    return counts | {"machines": sum(1 for e in events if e.machine)}


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(f=filters())
def test_summary_equals_a_plain_count(filled: tuple[asyncio.AbstractEventLoop, Engine], f: Filter) -> None:
    loop, engine = filled
    found = loop.run_until_complete(queries.summary(engine, f))
    events = [e for e in EVENTS if inside(f, e)]
    expected = naive(f, events)
    assert {name: found[name] for name in expected} == expected
    waited = sorted(
        e.at_us - e.sent_at * 10**6
        for e in events
        if shown(f, e) and e.kind == "click" and 0 < e.sent_at * 10**6 <= e.at_us
    )
    for name, share in queries.DELAYS.items():
        value = round(waited[max(0, ceil(share * len(waited)) - 1)] / 1e6, 3) if waited else None
        assert found["delay"][name] == value


def start_of(e: Event, unit: str, zone: ZoneInfo) -> datetime:
    local = datetime.fromtimestamp(e.at_us / 1e6, zone)
    if unit == "hour":
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return (local.astimezone(UTC) - into).astimezone(zone)
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if unit == "week":
        day -= timedelta(days=local.weekday())
    if unit == "month":
        day = day.replace(day=1)
    return day.astimezone(UTC).astimezone(zone)


@quick
@given(f=filters(), unit=st.sampled_from(["hour", "day", "week", "month"]), zone=st.sampled_from(ZONES))
def test_timeseries_equals_a_plain_count_in_every_zone(
    filled: tuple[asyncio.AbstractEventLoop, Engine], f: Filter, unit: str, zone: str
) -> None:
    loop, engine = filled
    found = loop.run_until_complete(queries.timeseries(engine, f, unit, ZoneInfo(zone)))
    groups: dict[str, list[Event]] = {}
    for e in EVENTS:
        if inside(f, e):
            groups.setdefault(start_of(e, unit, ZoneInfo(zone)).isoformat(), []).append(e)
    points = {point.pop("at"): point for point in found["points"]}
    assert set(groups) <= set(points)
    for at, point in points.items():
        assert point == naive(f, groups.get(at, []))


@quick
@given(
    f=filters(),
    by=st.sampled_from(["url", "domain", "campaign", "message", "recipient", "host", "tenant", "link"]),
)
def test_top_equals_a_plain_count(filled: tuple[asyncio.AbstractEventLoop, Engine], f: Filter, by: str) -> None:
    loop, engine = filled
    found = loop.run_until_complete(queries.top(engine, f, by, 500))
    kind = f.kind or "click"
    chosen = [e for e in EVENTS if inside(f, e) and shown(f, e) and e.kind == kind]
    domain = {e.url: e.url.split("/")[2] if e.url else "" for e in chosen}

    def key(e: Event) -> object:
        if by == "link":
            return (e.campaign, e.link)
        return domain[e.url] if by == "domain" else getattr(e, by)

    counted = Counter(key(e) for e in chosen)
    items = {(i["campaign"], i["link"]) if by == "link" else i["key"]: i for i in found["items"]}
    assert {name: item["events"] for name, item in items.items()} == counted
    assert found["total"] == len(chosen)
    for name, item in items.items():
        assert item["unique"] == len({(e.tenant, e.recipient) for e in chosen if key(e) == name and e.recipient})
    assert [i["events"] for i in found["items"]] == sorted(counted.values(), reverse=True)


@quick
@given(f=filters())
def test_reasons_equal_a_plain_count(filled: tuple[asyncio.AbstractEventLoop, Engine], f: Filter) -> None:
    loop, engine = filled
    found = loop.run_until_complete(queries.top(engine, f, "reason", 100))
    counted = Counter(reason for e in EVENTS if inside(f, e) for reason in e.machine)
    assert {i["key"]: i["events"] for i in found["items"]} == counted


def test_the_figures_stay_when_events_are_settled(tmp_path: Path) -> None:
    from brandproxy.engines import duckdb

    draw = random.Random(3)
    with pytest.MonkeyPatch.context() as patch, loop_and_engine(tmp_path) as (loop, engine):
        f = Filter(0, NOW)
        before = loop.run_until_complete(queries.summary(engine, f))
        patch.setattr(duckdb, "SETTLE_ROWS", draw.randrange(1, 1000))
        loop.run_until_complete(engine.settle())
        assert loop.run_until_complete(engine.query("SELECT count(*) FROM recent")) == [(0,)]
        assert loop.run_until_complete(queries.summary(engine, f)) == before
