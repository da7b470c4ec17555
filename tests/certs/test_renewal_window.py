"""Renewal by the CA's windows (RFC 9773), with an injected clock and a directory that has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy.acme import ari_of
from brandproxy.certs import progress
from brandproxy.certs.ordering import Orders, _leaf
from brandproxy.certs.upkeep import Upkeep
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.renewal import DAY, HOUR
from brandproxy.model import Host, HostState
from tests.certs.fake_ca import FakeCA

HOST = "links.acme.test"


class Stage:
    def __init__(self, context: Context, ca: FakeCA, host: Host) -> None:
        self.context, self.ca, self.host = context, ca, host
        self.at = time.time()

    async def plan(self, *, restarted: bool = False) -> Upkeep:
        """One round of everything the control role would begin now."""
        upkeep = Upkeep(self.context, lambda: self.at)
        await upkeep.load()
        for _ in range(2):
            for host, step in await upkeep.plan():
                await upkeep.work(host, step)
        upkeep.orders.accounts.close()
        return upkeep

    async def known(self) -> progress.Progress:
        return await progress.read(self.context.store, HOST)

    async def serial(self) -> str:
        found = await Orders(self.context).vault.get(HOST)
        assert found is not None
        return found.serial


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr("brandproxy.certs.preflight.Preflight.check", nothing)  # DNS is not what is tested here
    stage: Stage
    with FakeCA(tmp_path, 45 * DAY, lambda: stage.at) as ca:
        settings = Settings(data=tmp_path / "data", certs={"ca": ca.url, "acme_trust": ca.trust})
        async with open_context(settings, actor="test") as context:
            await context.registry.add_tenant("acme")
            host = await context.registry.add_host(HOST, "acme", HostState.LIVE)
            await context.directory.load(context.store)
            stage = Stage(context, ca, host)
            await stage.plan()
            yield stage


async def test_an_instant_in_the_window_is_chosen_kept_across_restarts_and_then_renewed_at(stage: Stage) -> None:
    begin = stage.at + 20 * DAY
    stage.ca.windows["*"] = (begin, begin + 2 * DAY, 6 * HOUR)
    stage.at += 7 * HOUR
    await stage.plan()
    chosen = (await stage.known()).renew_at
    assert begin <= chosen <= begin + 2 * DAY
    for _ in range(5):
        stage.at += 6 * HOUR + 60
        await stage.plan()
        assert (await stage.known()).renew_at == chosen
    first = await stage.serial()
    stage.at = chosen - 10
    await stage.plan()
    assert await stage.serial() == first
    stage.at = chosen + 1
    await stage.plan()
    assert await stage.serial() != first


async def test_retry_after_is_honoured(stage: Stage) -> None:
    stage.ca.windows["*"] = (stage.at + 20 * DAY, stage.at + 21 * DAY, 5 * HOUR)
    stage.at += 7 * HOUR
    await stage.plan()
    asked = len(stage.ca.asked)
    await asyncio.gather(*(stage.plan() for _ in range(3)))
    assert len(stage.ca.asked) == asked


async def test_a_window_moved_into_the_past_renews_at_once(stage: Stage) -> None:
    stage.ca.windows["*"] = (stage.at + 20 * DAY, stage.at + 21 * DAY, 60)
    stage.at += 7 * HOUR
    await stage.plan()
    first = await stage.serial()
    stage.ca.windows["*"] = (stage.at - 2 * DAY, stage.at - DAY, 60)  # the CA is about to revoke
    stage.at += 2 * HOUR
    await stage.plan()
    assert await stage.serial() != first


async def test_the_new_order_names_what_it_replaces_and_does_without_when_refused(stage: Stage) -> None:
    assert "replaces" not in stage.ca.orders[0]
    old = await Orders(stage.context).vault.get(HOST)
    assert old is not None
    stage.ca.windows["*"] = (stage.at - 2, stage.at - 1, 60)
    stage.ca.refuse_replaces = True
    stage.at += 7 * HOUR
    await stage.plan()
    assert await stage.serial() != old.serial
    assert [order.get("replaces") for order in stage.ca.orders[1:]] == [ari_of(_leaf(old)), None]


async def test_renewals_the_ca_asked_for_are_free_of_its_limits(stage: Stage) -> None:
    before = {entry.key: entry.value for entry in await stage.context.store.list("acme/budget/")}
    stage.ca.windows["*"] = (stage.at - 2, stage.at - 1, 60)
    stage.at += 7 * HOUR
    first = await stage.serial()
    await stage.plan()
    assert await stage.serial() != first
    assert {entry.key: entry.value for entry in await stage.context.store.list("acme/budget/")} == before
