"""What can go wrong while renewing: the old certificate stays, and one sentence says why.

The certificate at hand was given long ago and is due; the clock is injected.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from brandproxy.certs import progress
from brandproxy.certs.budget import Budget, OverBudget
from brandproxy.certs.devca import DevCA
from brandproxy.certs.ordering import Orders
from brandproxy.certs.vault import Certificate, Vault, certificate
from brandproxy.context import Context
from brandproxy.core.renewal import DAY, HOUR
from brandproxy.errors import Locked, StoreUnavailable
from brandproxy.model import Host, HostState
from tests.certs.acme_fixtures import World, challenge, world

__all__ = ["world"]

HOST = "links.acme.test"


class Stage:
    """A live host with an old certificate, and orders by a clock that the test moves."""

    def __init__(self, world: World, context: Context, host: Host) -> None:
        self.world, self.context, self.host = world, context, host
        self.at = time.time()
        self.orders = Orders(context, lambda: self.at)
        self.old: Certificate

    async def begin(self) -> None:
        own = DevCA(self.context.settings.data).issue(self.host.name, self.at - 80 * DAY)
        self.old = certificate(self.host.name, own.chain, own.key, self.world.pebble.url)
        await self.orders.vault.put(self.old)
        await progress.write(
            self.context.store, self.host.name, progress.Progress(serial=self.old.serial, renew_at=1)
        )

    async def expect(self, code: str, *words: str) -> None:
        """This try fails in that way, and nothing else changes."""
        assert await self.orders.obtain(self.host, self.old) is None
        known = await self.world.progress(self.context, self.host.name)
        assert known.code == code, known.error
        assert all(word in known.error for word in words), known.error
        assert known.next_at > self.at
        assert await self.orders.vault.get(self.host.name) == self.old
        assert (await self.context.registry.host(self.host.name)).state is HostState.LIVE

    async def succeed(self) -> Certificate:
        self.at += 2 * DAY
        fresh = await self.orders.obtain(self.host, self.old)
        known = await self.world.progress(self.context, self.host.name)
        assert fresh is not None, known.error
        assert await self.orders.vault.get(self.host.name) == fresh
        assert (known.failures, known.error, known.pending) == (0, "", None)
        return fresh

    def orders_made(self) -> int:
        return self.world.pebble.log().count("Added order")


@pytest.fixture
async def stage(world: World) -> AsyncIterator[Stage]:
    async with world.context() as context:
        host = await world.host(context, HOST, HostState.LIVE)
        stage = Stage(world, context, host)
        await stage.begin()
        yield stage
        stage.orders.accounts.close()
        await world.knot.put(HOST, "CNAME")
        await world.knot.put("acme.test", "CAA")


async def test_a_ca_that_is_down_for_a_week_is_waited_for(stage: Stage) -> None:
    stage.world.pebble.stop()
    end, tries = stage.at + 7 * DAY, 0
    while stage.at < end:
        await stage.expect("ca-away", "is away")
        stage.at = (await stage.world.progress(stage.context, HOST)).next_at + 1
        tries += 1
    assert 7 < tries < 40
    stage.world.pebble.start()
    await stage.succeed()


async def test_a_second_ca_is_asked_when_the_first_stays_away(world: World) -> None:
    async with world.context(ca="https://127.0.0.1:9/dir", fallback=world.pebble.url) as context:
        stage = Stage(world, context, await world.host(context, HOST, HostState.LIVE))
        await stage.begin()
        for _ in range(2):
            await stage.expect("ca-away")
            stage.at += 2 * HOUR
        fresh = await stage.succeed()
        assert fresh.ca == world.pebble.url
        await world.knot.put(HOST, "CNAME")


async def test_records_that_lie_stop_the_order_before_it_is_made(stage: Stage) -> None:
    await stage.world.knot.put(HOST, "CNAME", "elsewhere.test.")
    await stage.expect("cname-elsewhere", "elsewhere.test", "Change it to")
    await stage.world.knot.put(HOST, "CNAME")
    stage.at += 2 * DAY
    await stage.expect("cname-missing")
    assert stage.orders_made() == 0
    await stage.world.knot.put(HOST, "CNAME", f"{stage.host.target}.")
    await stage.succeed()


async def test_dns_that_drips_is_left_after_a_while_and_asked_again_ever_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drip(*_: object) -> None:
        await asyncio.sleep(30)

    with monkeypatch.context() as patch:
        patch.setattr("brandproxy.onboarding.looking._LONGEST", 0.05)
        patch.setattr("brandproxy.onboarding.looking.Looker._observe", drip)
        waits = []
        for _ in range(8):
            await stage.expect("dns-failing")
            known = await stage.world.progress(stage.context, HOST)
            waits.append(known.next_at - stage.at)
            assert known.failures == 0
            stage.at = known.next_at + 1
    assert waits == pytest.approx([60, 120, 240, 480, 960, 1920, 3600, 3600], abs=5)
    await stage.succeed()
    assert stage.orders_made() == 1


async def test_caa_that_forbids_stops_the_order_and_says_what_to_add(stage: Stage) -> None:
    await stage.world.knot.put("acme.test", "CAA", '0 issue "other.test"')
    await stage.expect("caa-forbids", "acme.test", 'CAA 0 issue "pebble.test"')
    assert stage.orders_made() == 0
    await stage.world.knot.put("acme.test", "CAA", '0 issue "pebble.test"')
    await stage.succeed()


async def test_a_challenge_url_answered_by_somebody_else_stops_the_order(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brandproxy.certs.preflight._PATIENCE", 0.5)

    async def hijacker(token: str) -> bytes:
        return b"parked domain"

    stage.world.answers = hijacker
    await stage.expect("challenge-hijacked", "somebody else")
    assert stage.orders_made() == 0
    stage.world.answers = None
    await stage.succeed()


async def test_a_challenge_hijacked_after_our_check_is_told_in_the_cas_words(stage: Stage) -> None:
    async def hijacker(token: str) -> bytes | None:
        if not token.startswith("probe-"):
            return b"parked domain"
        return await challenge(stage.context, token)

    stage.world.answers = hijacker
    await stage.expect("unauthorized", "could not validate")
    stage.world.answers = None
    await stage.succeed()


async def test_a_clock_that_is_wrong_orders_nothing_and_heals(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("brandproxy.acme.network.time", SimpleNamespace(time=lambda: time.time() + DAY))
        await stage.expect("clock", "clock")
    assert stage.orders_made() == 0
    await stage.succeed()


async def test_a_store_that_is_full_keeps_the_order_for_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: Vault, fresh: Certificate) -> None:
        raise StoreUnavailable("store: database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Vault, "put", full)
        with pytest.raises(StoreUnavailable):
            await stage.orders.obtain(stage.host, stage.old)
    assert await stage.orders.vault.get(HOST) == stage.old
    stage.at -= 2 * DAY
    await stage.succeed()
    assert stage.orders_made() == 1


async def test_an_order_left_by_a_node_that_died_is_gone_on_with(stage: Stage) -> None:
    release = asyncio.Event()

    async def slow(token: str) -> bytes | None:
        if not token.startswith("probe-"):
            await release.wait()
        return await challenge(stage.context, token)

    stage.world.answers = slow
    dying = asyncio.create_task(stage.orders.obtain(stage.host, stage.old))
    while (await stage.world.progress(stage.context, HOST)).pending is None:
        await asyncio.sleep(0.02)
    with pytest.raises(Locked):
        await Orders(stage.context).obtain(stage.host, stage.old)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    release.set()
    stage.world.answers = None
    stage.at -= 2 * DAY
    await stage.succeed()
    assert stage.orders_made() == 1


async def test_a_host_removed_while_its_order_runs_leaves_no_certificate(stage: Stage) -> None:
    async def removing(token: str) -> bytes | None:
        found = await challenge(stage.context, token)
        if not token.startswith("probe-") and await stage.context.store.get(f"host/{HOST}"):
            await stage.context.registry.remove_host(HOST)
        return found

    stage.world.answers = removing
    assert await stage.orders.obtain(stage.host, stage.old) is None
    assert await stage.orders.vault.hosts() == []
    assert await stage.context.store.list("acme/host/") == []


async def test_limits_are_kept_by_all_nodes_together_and_across_restarts(stage: Stage) -> None:
    settings = stage.context.settings.certs.model_copy(update={"orders_limit": 8, "domain_limit": 3})
    url, now = "https://ca.test/dir", stage.at
    nodes = [Budget(stage.context.store, settings) for _ in range(3)]

    async def take(number: int, renewal: bool = False, at: float = now) -> bool:
        host = f"h{number}.d{number}.test"
        try:
            await nodes[number % 3].take(url, host, (host,), renewal, at)
        except OverBudget:
            return False
        return True

    taken = await asyncio.gather(*(take(number) for number in range(12)))
    assert sum(taken) == 6  # a quarter of 8 is kept for renewals
    assert [await take(number, True) for number in range(12, 16)] == [True, True, False, False]
    assert [await take(number, True, now + 3 * HOUR + 1) for number in range(16, 19)] == [True] * 3
    fresh = Budget(stage.context.store, settings)
    for number in range(3):
        await fresh.take(url, f"s{number}.same.test", (f"s{number}",), True, now + 6 * HOUR + 2)
    with pytest.raises(OverBudget, match=r"under same\.test"):
        await fresh.take(url, "s3.same.test", ("s3",), True, now + 6 * HOUR + 2)
    for number in range(3):  # the same names again: no certificates of the domain are used up
        await fresh.take(url, f"s{number}.same.test", (f"s{number}",), True, now + 9 * HOUR + 3, again=True)
