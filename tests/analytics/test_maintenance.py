"""What is done to stored events: forgetting, retention, judging again, backups."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from brandproxy.analytics import queries, upkeep
from brandproxy.analytics.filters import Filter
from brandproxy.config import Settings
from brandproxy.core import neighbours
from brandproxy.core.machines import RULES
from brandproxy.engines import open_engine
from brandproxy.errors import Conflict
from brandproxy.model import Event, Policy, Tenant
from brandproxy.store import keys

from .conftest import Port, event, put, some_events

A = "/v1/analytics"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def counted(port: Port, **fields: str) -> int:
    where = " AND ".join(f"{name} = ${name}" for name in fields) or "TRUE"
    [(count,)] = await port.engine.query(f"SELECT count(*) FROM events WHERE {where}", fields)
    return int(count)


async def test_a_forgotten_recipient_is_gone_and_others_stay(port: Port) -> None:
    await put(port.engine, some_events(500))
    acme, everyone = await counted(port, tenant="acme", recipient="r1"), await counted(port)
    other = await counted(port, tenant="globex", recipient="r1")
    assert acme
    assert other
    answer = await port.client.delete(f"{A}/recipients/r1", headers=bearer(port.acme))
    assert answer.json() == {"deleted": acme}
    assert await counted(port, tenant="acme", recipient="r1") == 0
    assert await counted(port, tenant="globex", recipient="r1") == other
    assert await counted(port) == everyone - acme
    assert (
        await port.client.delete(f"{A}/recipients/r1?tenant=globex", headers=bearer(port.acme))
    ).status_code == 404
    assert (await port.client.delete(f"{A}/recipients/r1", headers=bearer(port.operator))).status_code == 400


async def test_events_are_kept_as_long_as_their_tenant_says(port: Port) -> None:
    now = int(time.time())
    old = [event((now - days * 86400) * 10**6, tenant=t) for days in (1, 10, 40) for t in ("acme", "globex")]
    await put(port.engine, old)
    await keep(port, 5)
    assert await upkeep.forget_old(port.context, port.engine, now) == 0
    assert await upkeep.forget_old(port.context, port.engine, now + upkeep.GRACE) == 2
    assert (await counted(port, tenant="acme"), await counted(port, tenant="globex")) == (1, 3)
    analytics = port.context.settings.analytics.model_copy(update={"keep_days": 30})
    settings = port.context.settings.model_copy(update={"analytics": analytics})
    operator = replace(port.context, settings=settings)
    assert await upkeep.forget_old(operator, port.engine, now) == 0
    assert await upkeep.forget_old(operator, port.engine, now + upkeep.GRACE) == 1
    assert (await counted(port, tenant="acme"), await counted(port, tenant="globex")) == (1, 2)


async def keep(port: Port, days: int) -> None:
    def change(tenant: Tenant) -> Tenant:
        return replace(tenant, policy=Policy(keep_days=days))

    await port.context.registry.change_tenant("acme", change, "test")


async def trail(port: Port) -> list[dict[str, object]]:
    entries = [json.loads(entry.value) for entry in await port.context.store.list(keys.AUDIT)]
    return [entry for entry in entries if str(entry["what"]).startswith("events.")]


async def test_a_shorter_time_can_be_undone_for_a_day_and_what_it_deletes_is_audited(port: Port) -> None:
    now = int(time.time())
    await put(port.engine, [event((now - days * 86400) * 10**6) for days in (1, 10, 40)])
    await keep(port, 3)
    assert await upkeep.forget_old(port.context, port.engine, now) == 0
    [warned] = await trail(port)
    assert (warned["what"], warned["subject"], warned["events"], warned["days"]) == (
        "events.expiring",
        "acme",
        2,
        3,
    )
    await keep(port, 0)  # undone
    assert await upkeep.forget_old(port.context, port.engine, now + 3 * upkeep.GRACE) == 0
    assert await counted(port) == 3
    await keep(port, 3)  # a day begins anew, also when nobody looked in between
    assert await upkeep.forget_old(port.context, port.engine, now + 3 * upkeep.GRACE) == 0
    assert await upkeep.forget_old(port.context, port.engine, now + 4 * upkeep.GRACE - 1) == 0
    assert await upkeep.forget_old(port.context, port.engine, now + 4 * upkeep.GRACE) == 3
    gone = (await trail(port))[-1]
    assert (gone["what"], gone["subject"], gone["deleted"]) == ("events.expired", "acme", 3)
    assert gone["actor"] == "retention"


async def test_what_one_tenants_record_says_keeps_no_other_from_retention(port: Port) -> None:
    """Also what no record can say any more reaches the engine: its refusal is that tenant's alone."""
    now = int(time.time())
    await put(port.engine, [event((now - 40 * 86400) * 10**6, tenant=t) for t in ("acme", "broken", "globex")])
    for slug in ("broken", "worse"):
        await port.context.store.put(keys.tenant(slug), b'{"slug": 5}')
    await port.context.store.put(keys.retention("acme"), b'[{"days": NaN}]')
    analytics = port.context.settings.analytics.model_copy(update={"keep_days": 30})
    settings = port.context.settings.model_copy(update={"analytics": analytics})
    context = replace(port.context, settings=settings)
    await keep(port, 36_500)
    assert await upkeep.forget_old(context, port.engine, now) == 0
    assert await upkeep.forget_old(context, port.engine, now + upkeep.GRACE) == 1
    assert await counted(port, tenant="acme") == await counted(port, tenant="broken") == 1  # nobody knows its days
    assert await counted(port, tenant="globex") == 0


async def test_an_engine_that_refuses_one_tenant_deletes_for_the_others(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    await put(port.engine, [event((now - 40 * 86400) * 10**6, tenant=t) for t in ("acme", "globex")])
    for slug in ("acme", "globex"):
        await port.context.registry.change_tenant(slug, lambda t: replace(t, policy=Policy(keep_days=5)), "test")
    await upkeep.forget_old(port.context, port.engine, now)
    delete = port.engine.delete

    async def refuse(where: str, params: dict[str, object]) -> int:
        if params.get("tenant") == "acme":
            raise OverflowError("too large")
        return await delete(where, params)

    monkeypatch.setattr(port.engine, "delete", refuse)
    assert await upkeep.forget_old(port.context, port.engine, now + upkeep.GRACE) == 1
    assert (await counted(port, tenant="acme"), await counted(port, tenant="globex")) == (1, 0)


def burst(event: Event, around: list[Event]) -> tuple[str, ...]:
    return ("burst",) if len({e.link for e in (event, *around)}) > 2 else ()


async def test_judging_again_changes_stored_verdicts_and_their_figures(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time() * 1e6)
    scanner = [event(now + n * 1000, message="m1", recipient="r1", link=n) for n in range(4)]
    person = [event(now + n * 5_000_000, message="m2", recipient="r2", link=n, machine=("old",)) for n in range(4)]
    await put(port.engine, [*scanner, *person])
    monkeypatch.setattr(neighbours, "judge", burst)
    answer = await port.client.post(f"{A}/reclassify", headers=bearer(port.operator))
    assert answer.json() == {"seen": 8, "changed": 8}
    rows = await port.engine.query("SELECT message, machine, person, rules FROM events")
    assert {(m, tuple(why), p, r) for m, why, p, r in rows} == {
        ("m1", ("burst",), False, RULES),
        ("m2", (), True, RULES),
    }
    assert (await port.client.post(f"{A}/reclassify", headers=bearer(port.operator))).json()["changed"] == 0
    assert (await port.client.post(f"{A}/reclassify", headers=bearer(port.acme))).status_code == 403


async def test_a_backup_fills_an_empty_engine_with_the_same_figures(port: Port, tmp_path: Path) -> None:
    await put(port.engine, some_events(500))
    folder = Path((await port.client.post(f"{A}/backups", headers=bearer(port.operator))).json()["folder"])
    with pytest.raises(Conflict):
        await port.engine.restore(folder)
    second = open_engine(Settings(data=tmp_path / "second"))
    await second.restore(folder)
    f = Filter(0, int(time.time() * 1e6))
    assert await queries.summary(second, f) == await queries.summary(port.engine, f)
    assert await second.end("segment") == 1
    await second.close()
    assert (await port.client.post(f"{A}/backups", headers=bearer(port.acme))).status_code == 403
