"""Bad records in the store stop nothing else: with every kind of them planted, all goes on for the others.

Planted beside a working tenant: for each kind of record, things that are no record at all, and real ones with
each field in turn made wrong. All background work of the control process runs on them, every GET answers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from brandproxy import blocks, roles, sessions
from brandproxy.access import create_key
from brandproxy.admin import api
from brandproxy.analytics.webhooks import events as event_lane
from brandproxy.blocks import KillList
from brandproxy.certs import progress
from brandproxy.config import Outbound, Settings
from brandproxy.context import Context, open_context
from brandproxy.core.watching import Watch
from brandproxy.engines import Engine, open_engine
from brandproxy.intake import row
from brandproxy.leading import FAILURES
from brandproxy.model import BlockKind, Event, HostState, Policy
from brandproxy.onboarding import report as reports
from brandproxy.onboarding.report import Report
from brandproxy.storage import purge
from brandproxy.store import Entry, keys
from brandproxy.webhooks.book import Book, Place, new_batch
from tests.receiver import Receiver, receiver

__all__ = ["receiver"]

NONSENSE = (
    b"", b"null", b"5", b"-1", b"true", b'"x"', b"[]", b"{}", b"[[1,2],[3]]", b"[null]", b"{", b"NaN", b"[1e999]",
    b"\xff\xfe\x00", b"[" * 5000, b'{"a":' * 3000, b"1" * 6000, b'["\\ud800"]', b'{"days": 5, "since": "x"}',
)  # fmt: skip
WRONG = (None, -1, 10**40, 1.5, True, "", "x\0", "\udce9", [], {}, [None], {"x": 1}, [10**40, -5, "x"], "9" * 5000)

PREFIXES = (
    keys.TENANT, keys.HOST, keys.TARGET, keys.ACCESS, keys.ACCESS_USE, keys.SESSION, keys.CERT, keys.CHALLENGE,
    "acme/host/", "acme/account/", "acme/budget/domain/", keys.WATCH, keys.ZONE, keys.WEBHOOK, "webhook-place/",
    "webhook-dead/x/", keys.NOTICE, keys.BLOCK, keys.AUDIT, keys.PURGE, keys.RETENTION, "mailing/beta/",
    keys.SENDER, keys.SENDER_TARGET, keys.DKIM_RECORD, keys.DKIM_RECORD + "x/", keys.DKIM_PUSH + "x/", "ticket/",
    "formertenant/", "upgraded/",
)  # fmt: skip


def spoiled(record: Any) -> Iterator[Any]:
    """The record with each field in turn, at every depth, set to each wrong value, and left out."""
    for name in record if isinstance(record, dict) else range(len(record)) if isinstance(record, list) else ():
        changed = record.copy()
        for value in (*WRONG, *spoiled(record[name])):
            changed[name] = value
            yield changed.copy()
        if isinstance(record, dict):
            del changed[name]
            yield changed


def renamed(key: str, record: Any, number: int) -> tuple[str, Any]:
    """The record under a key of its own, and with that name in it where it names itself."""
    prefix, _, name = key.partition("/")
    fresh = f"bad{number}.example" if prefix in ("host", "watch", "cert") else f"bad{number}"
    text = json.dumps(record).replace(json.dumps(name), json.dumps(fresh))
    if prefix == "acme":
        fresh = f"host/bad{number}.example"
    return f"{prefix}/{fresh}", json.loads(text)


async def plant(context: Context, models: list[Entry]) -> int:
    """Nonsense under every prefix, and every model spoiled in every way; how many."""
    seal, store, count = context.registry.codec.seal, context.store, 0
    for prefix in PREFIXES:
        for number, value in enumerate(NONSENSE):
            await store.put(f"{prefix}none{number}", value)
            await store.put(f"{prefix}sealed{number}", seal.seal(value))
            count += 2
    for entry in models:
        sealed = entry.value.startswith(b"gAAAA")
        try:
            record = json.loads(seal.open(entry.value) if sealed else entry.value)
        except ValueError:
            continue
        for number, bad in enumerate(spoiled(record)):
            key, value = renamed(entry.key, bad, number)
            text = json.dumps(value).encode()
            await store.put(key, seal.seal(text) if sealed else text)
            count += 1
    return count


def click(tenant: str, **fields: Any) -> Event:
    at = fields.pop("at_us", int(time.time() * 1e6))
    return Event(f"{at:032x}", "click", at, tenant, f"links.{tenant}.example", **fields)


async def fill(context: Context, url: str) -> None:
    """Two tenants, and one of each record; those of acme are the models of bad ones."""
    registry, book = context.registry, Book(context)
    for slug in ("acme", "beta"):
        await registry.add_tenant(slug, slug, Policy(keep_days=5, exclude=("a.example/*",)))
        await registry.add_host(f"links.{slug}.example", slug)
        await registry.set_host_state(f"links.{slug}.example", HostState.VERIFIED, "test")
        await book.add(slug, url, ("click", "host.live"), False)
    place = Place((1, "a"), replace(new_batch((0, ""), (1, "b")), attempts=2, error="x"))
    await context.store.put(keys.webhook_place("acme", "events"), json.dumps(asdict(place)).encode())
    await book.bury("acme", new_batch((0, ""), (1, "b")))
    await blocks.add(context.store, BlockKind.DOMAIN, "evil.example", "acme")
    await purge.give(context.store, purge.Purge("acme", time.time(), "media", "a.png"))
    who = (await create_key(context.store, "acme"))[0].principal
    await sessions.begin(context.store, registry.codec.seal, who)
    await context.store.put(keys.retention("acme"), b'{"days": 5, "since": 1}')
    await context.store.put(keys.watch("links.acme.example"), reports.dump(Report(Watch())))
    await progress.write(context.store, "links.acme.example", progress.Progress(rests={"https://ca.example": 1.0}))


@asynccontextmanager
async def running(context: Context, engine: Engine) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in roles._background(context, engine)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "it did not go on"
        await asyncio.sleep(0.1)


def failures() -> float:
    return sum(
        sample.value for metric in FAILURES.collect() for sample in metric.samples if "_total" in sample.name
    )


async def test_with_bad_records_of_every_kind_all_work_goes_on_for_the_others(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_lane, "SETTLED_US", 0)
    settings = Settings(
        data=tmp_path, outbound=Outbound(allow="127.0.0.1"),
        edge={"domain": "edge.example"}, certs={"ca": "dev"}, dns={"servers": "127.0.0.1:9"},
    )  # fmt: skip
    async with open_context(settings) as context:
        await fill(context, receiver.url)
        models = [entry for entry in await context.store.list("") if "beta" not in entry.key]
        count = await plant(context, models)
        assert count > 4000
    begun = failures()
    async with open_context(settings, actor="server") as context:
        engine = open_engine(settings)
        app = roles.build_control(context, engine)
        operator, beta = [(await create_key(context.store, tenant))[1] for tenant in (None, "beta")]
        await engine.ingest("segment", 0, 1, [row(click("beta"))])

        async def delivered(number: int) -> bool:
            return sum(json.loads(body)["type"] == "events" for _, body in receiver.got) >= number

        async def live() -> bool:
            return (await context.registry.host("links.beta.example")).state is HostState.LIVE

        async def looked_at() -> bool:
            return await context.store.get(keys.watch("links.beta.example")) is not None

        async with running(context, engine):
            await until(live)
            await until(looked_at)
            await until(lambda: delivered(1))
            await plant(context, models)  # once more, by the change feed
            await engine.ingest("segment", 1, 2, [row(click("beta"))])
            await until(lambda: delivered(2))
        assert failures() == begun
        await answers(app, (operator, beta))
        await edges(context)
        await engine.close()


async def answers(app: Any, callers: tuple[str, str]) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
        for key in callers:
            for operation in (operation for operation in api.OPERATIONS if operation.method == "GET"):
                path = (
                    operation.path.replace("{slug}", "beta")
                    .replace("{name}", "links.beta.example")
                    .replace("{domain}", "beta.example")
                )
                answer = await client.get(path, headers={"authorization": f"Bearer {key}"})
                barred = operation.operator and key != callers[0]
                assert (path, answer.status_code) == (path, 403 if barred else 200)
            for path in ("/v1/webhooks", "/v1/analytics/summary", "/hosts", "/"):
                answer = await client.get(path, headers={"authorization": f"Bearer {key}"})
                assert (path, answer.status_code) == (path, 200)


async def edges(context: Context) -> None:
    """What an edge reads when it starts."""
    kill = KillList()
    await kill.load(context.store)
    kill.match("beta", "https://shop.example/")
    await context.directory.load(context.store)
    site = context.directory.site("links.beta.example")
    assert site is not None
    assert site.tenant.slug == "beta"
