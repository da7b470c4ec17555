"""The questions over HTTP: who sees what, pages, formats, caching, bad input."""

from __future__ import annotations

import asyncio
import csv
import io
import json

import pytest
from openapi_spec_validator import validate

from brandproxy.analytics.api import PATHS
from brandproxy.web import Budget, openapi

from .conftest import Port, event, put, some_events

A = "/v1/analytics"
OPERATIONS = [
    (method, path.format(message="m3", recipient="r3")) for path, item in PATHS.items() for method in item
]
ROUTES = [path for method, path in OPERATIONS if method == "get" and not path.endswith(("live", "timeline"))]


def test_the_openapi_document_is_valid() -> None:
    validate(openapi(PATHS))


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_no_key_no_answer(port: Port, method: str, path: str) -> None:
    for header in ({}, {"Authorization": "Bearer bp_000000000000_x"}, {"Authorization": "Basic eDp5"}):
        answer = await port.client.request(method, path, headers=header)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ROUTES)
async def test_a_tenants_key_sees_only_its_own_rows(port: Port, path: str) -> None:
    events = some_events(400, days=20)
    await put(port.engine, events)
    own = await port.get(path, port.acme)
    named = await port.get(path, port.acme, tenant="acme")
    assert own.status_code == named.status_code == 200
    assert strip(own.json()) == strip((await port.get(path, port.operator, tenant="acme")).json())
    assert "globex" not in own.text
    assert "initech" not in own.text
    assert strip((await port.get(path)).json()) != strip(own.json())
    other = await port.get(path, port.acme, tenant="globex")
    assert other.status_code == 404
    absent = await port.get(path, port.acme, tenant="nobody")
    assert absent.json()["title"] == other.json()["title"]


def strip(answer: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in answer.items() if name not in ("since", "until")}


@pytest.mark.parametrize(
    "params",
    [
        {"kind": "clicks"},
        {"machines": "some"},
        {"since": "yesterday"},
        {"since": "2026-02-30"},
        {"link": "-1"},
        {"link": "1e3"},
        {"campaign": ""},
        {"campaign": "a\0b"},
        {"campain": "x"},
        {"unit": "fortnight"},
        {"zone": "Mars/Olympus"},
        {"zone": "../../etc/passwd"},
    ],
)
async def test_bad_parameters_are_explained(port: Port, params: dict[str, str]) -> None:
    answer = await port.get(f"{A}/timeseries", **params)
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert (await port.client.get(f"{A}/summary?kind=click&kind=open", headers=bearer(port))).status_code == 400


def bearer(port: Port) -> dict[str, str]:
    return {"Authorization": f"Bearer {port.operator}"}


async def test_pages_hold_every_event_once_while_new_ones_arrive(port: Port) -> None:
    events = some_events(250, days=20)
    await put(port.engine, events, "first")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for turn in range(100):
        answer = (await port.get(f"{A}/events", limit=33, machines="include", **cursor)).json()
        seen += [e["id"] for e in answer["events"]]
        await put(port.engine, [event()], f"later{turn}")
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
    assert seen == [e.id for e in sorted(events, key=lambda e: (e.at_us, e.id), reverse=True)]


@pytest.mark.parametrize("cursor", ["x", "!!!", "MQ", "....", "A" * 3000])
async def test_a_foreign_cursor_is_refused(port: Port, cursor: str) -> None:
    for form in ("json", "csv", "ndjson"):
        assert (await port.get(f"{A}/events", cursor=cursor, format=form)).status_code == 400


async def test_exports_hold_the_same_events(port: Port) -> None:
    await put(port.engine, [*some_events(1200, days=20), event(agent='=HYPERLINK("http://x")')])
    lines = (await port.get(f"{A}/events", format="ndjson")).text.splitlines()
    events = [json.loads(line) for line in lines]
    table = await port.get(f"{A}/events", format="csv")
    assert table.headers["content-encoding"] == "gzip"
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["id"] for row in rows] == [e["id"] for e in events]
    assert len(events) > 600
    assert not [value for row in rows for value in row.values() if value.startswith(("=", "@", "+"))]


async def test_a_timeline_tells_what_happened_in_order(port: Port) -> None:
    await put(port.engine, some_events(300, days=20))
    answer = (await port.get(f"{A}/recipients/r3", machines="include")).json()
    times = [e["at_us"] for e in answer["events"]]
    assert times
    assert times == sorted(times)
    assert {e["recipient"] for e in answer["events"]} == {"r3"}


async def test_the_answer_about_a_closed_period_can_be_kept(port: Port) -> None:
    await put(port.engine, some_events(100, days=20))
    path, params = f"{A}/summary", {"since": "2020-01-01", "until": "2020-02-01"}
    first = await port.client.get(path, params=params, headers=bearer(port))
    again = await port.client.get(
        path, params=params, headers=bearer(port) | {"If-None-Match": first.headers["etag"]}
    )
    assert again.status_code == 304
    assert not again.content
    assert "etag" not in (await port.get(path)).headers


async def test_a_key_that_asks_too_often_waits(port: Port) -> None:
    port.app.state.budget = Budget(rate=0.001, burst=3)
    statuses = [(await port.get(f"{A}/summary", port.acme)).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert (await port.get(f"{A}/summary", port.globex)).status_code == 200


async def test_the_live_feed_tells_a_tenant_its_own_events_only(port: Port) -> None:
    from brandproxy.analytics.filters import Filter
    from brandproxy.analytics.live import Live

    live = Live(port.engine, 20)
    stream = live.stream(Filter(0, 1 << 60, tenant="acme"), "key")
    assert (await anext(stream)).startswith(b"retry")
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.6)
    await put(port.engine, [event(tenant="globex"), event(tenant="acme", campaign="spring")])
    told = json.loads((await asyncio.wait_for(waiting, 2)).split(b"data: ")[1])
    assert (told["tenant"], told["campaign"]) == ("acme", "spring")
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_key_listens_so_many_times_at_once_and_no_more(port: Port) -> None:
    from brandproxy.analytics import live as module
    from brandproxy.analytics.filters import Filter
    from brandproxy.web import TooManyRequests

    live, f = module.Live(port.engine, 20), Filter(0, 1 << 60)
    streams = [live.stream(f, "key") for _ in range(20)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(TooManyRequests):
        live.stream(f, "key")
    await anext(other := live.stream(f, "other"))
    await streams[0].aclose()  # type: ignore[attr-defined]
    await anext(again := live.stream(f, "key"))
    for stream in (*streams[1:], other, again):
        await stream.aclose()  # type: ignore[attr-defined]
