"""Renewal by the CA's windows (RFC 9773), with an injected clock and a directory that has them."""

from __future__ import annotations

import asyncio

from brandproxy.acme import ari_of
from brandproxy.certs.ordering import Orders, _leaf
from brandproxy.core.renewal import DAY, HOUR
from tests.certs.stage import HOST, Stage, stage

__all__ = ["stage"]


async def test_an_instant_in_the_window_is_chosen_kept_across_restarts_and_then_renewed_at(stage: Stage) -> None:
    begin = stage.at + 20 * DAY
    stage.ca.windows["*"] = (begin, begin + 2 * DAY, 6 * HOUR)
    stage.at += 7 * HOUR
    await stage.plan()
    chosen = (await stage.known()).renew_at
    assert begin <= chosen <= begin + 2 * DAY
    for _ in range(5):
        stage.at += 6 * HOUR + 60
        await stage.plan(restarted=True)
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
    stage.at += 12 * HOUR
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
    stage.at += 12 * HOUR
    await stage.plan()
    assert await stage.serial() != old.serial
    assert [order.get("replaces") for order in stage.ca.orders[1:]] == [ari_of(_leaf(old)), None]


async def test_renewals_the_ca_asked_for_are_free_of_its_limits(stage: Stage) -> None:
    before = {entry.key: entry.value for entry in await stage.context.store.list("acme/budget/")}
    stage.ca.windows["*"] = (stage.at - 2, stage.at - 1, 60)
    stage.at += 12 * HOUR
    first = await stage.serial()
    await stage.plan()
    assert await stage.serial() != first
    assert {entry.key: entry.value for entry in await stage.context.store.list("acme/budget/")} == before
