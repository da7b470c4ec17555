"""Whose name it is follows its own DNS, against a real server: claims beside the host, and moves between."""

from __future__ import annotations

import asyncio

import pytest

from brandproxy.context import Context
from brandproxy.model import HostState
from brandproxy.onboarding import Watcher
from brandproxy.onboarding.links import make, open_link
from brandproxy.store import keys
from brandproxy.store.seal import open_seal
from brandproxy.webhooks.notices import load
from tests.onboarding.test_watch import watching
from tests.parts import Knot


@pytest.fixture
async def both(context: Context) -> Context:
    await context.registry.add_tenant("rival")
    return context


async def until_tenant(context: Context, name: str, tenant: str, state: HostState) -> None:
    async with asyncio.timeout(20):
        while True:
            host = await context.registry.host(name)
            if (host.tenant, host.state) == (tenant, state):
                return
            await asyncio.sleep(0.05)


async def told(context: Context, kind: str) -> list[str]:
    found = [load(entry.value) for entry in await context.store.list(keys.NOTICE)]
    return [notice.tenant for notice in found if notice.kind == kind]


async def test_a_squatters_claim_keeps_the_owner_out_no_second(both: Context, knot: Knot) -> None:
    name = "first.claims.test"
    squatted = await both.registry.add_host(name, "rival")
    own = await both.registry.add_host(name, "acme")
    async with watching(both):
        await knot.put(name, "CNAME", f"{own.target}.")
        await until_tenant(both, name, "acme", HostState.VERIFIED)
    assert (await both.registry.host(name, "rival")).target == squatted.target
    assert await told(both, "host.contested") == ["rival"]
    await knot.put(name, "CNAME")


async def test_a_customer_moves_to_another_tenant_by_its_cname_alone(both: Context, knot: Knot) -> None:
    name = "moves.claims.test"
    old = await both.registry.add_host(name, "acme")
    new = await both.registry.add_host(name, "rival")
    async with watching(both):
        await knot.put(name, "CNAME", f"{old.target}.")
        await until_tenant(both, name, "acme", HostState.VERIFIED)
        await both.registry.set_host_state(name, HostState.LIVE, "test")
        await knot.put(name, "CNAME", f"{new.target}.")
        await until_tenant(both, name, "rival", HostState.VERIFIED)
        assert (await both.registry.host(name, "acme")).state is HostState.PENDING
        assert await told(both, "host.lost") == ["acme"]
        await knot.put(name, "CNAME", f"{old.target}.")
        await until_tenant(both, name, "acme", HostState.VERIFIED)
    await knot.put(name, "CNAME")


async def test_two_looks_at_the_new_record_and_three_without_the_old_are_needed(both: Context, knot: Knot) -> None:
    name = "votes.claims.test"
    old = await both.registry.add_host(name, "acme", HostState.VERIFIED)
    new = await both.registry.add_host(name, "rival")
    await knot.put(name, "CNAME", f"{new.target}.")
    watcher = Watcher(both)
    for _ in range(2):
        assert (await watcher.check(name))[0].tenant == "acme"
    await watcher.check(name)
    assert (await both.registry.host(name)).tenant == "rival"
    assert (await both.registry.host(name, "acme")).target == old.target
    await knot.put(name, "CNAME")


async def test_a_claims_own_look_takes_the_name_when_its_record_is_there(both: Context, knot: Knot) -> None:
    """What the claim's page and `host check --tenant` do; nobody has to wait for the holder's next look."""
    name = "page.claims.test"
    await both.registry.add_host(name, "acme")
    new = await both.registry.add_host(name, "rival")
    await knot.put(name, "CNAME", f"{new.target}.")
    watcher = Watcher(both)
    assert (await watcher.check(name, "rival"))[0].state is HostState.PENDING
    host, report = await watcher.check(name, "rival")
    assert (host.tenant, host.state) == ("rival", HostState.VERIFIED)
    assert report.target == new.target
    seal = open_seal(both.settings)
    assert (await open_link(seal, both.registry, make(seal, new))).state is HostState.VERIFIED
    await knot.put(name, "CNAME")


@pytest.mark.parametrize("how", ["accepted", "suspended", "both records"])
async def test_the_operators_word_and_a_record_that_stands_outweigh_another_claims(
    both: Context, knot: Knot, how: str
) -> None:
    name = f"{how.split()[0]}.claims.test"
    old = await both.registry.add_host(name, "acme", HostState.VERIFIED)
    new = await both.registry.add_host(name, "rival")
    if how == "accepted":
        await both.registry.accept_host(name, "their contract")
    if how == "suspended":
        await both.registry.set_host_state(name, HostState.SUSPENDED, "abuse")
    if how == "both records":  # names that cannot have a CNAME
        await knot.put(name, "A", "127.0.0.1")
        await knot.put(f"_brandproxy.{name}", "TXT", f'"{old.target}"', f'"{new.target}"')
    else:
        await knot.put(name, "CNAME", f"{new.target}.")
    watcher = Watcher(both)
    for _ in range(5):
        await watcher.check(name)
        await watcher.check(name, "rival")
    assert (await both.registry.host(name)).tenant == "acme"
    assert "acme" in await told(both, "host.contested")
    for kind in ("CNAME", "A"):
        await knot.put(name, kind)
    await knot.put(f"_brandproxy.{name}", "TXT")


async def test_ten_thousand_claims_of_a_name_cost_its_look_nothing(
    both: Context, knot: Knot, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "many.claims.test"
    own = await both.registry.add_host(name, "acme")
    for number in range(10_000):
        await both.store.create(keys.claim(name, f"t{number}"), b"never read")
    lists = 0
    listing = type(both.store).list

    async def counted(self: object, prefix: str) -> object:
        nonlocal lists
        lists += prefix.startswith(keys.CLAIM)
        return await listing(self, prefix)  # type: ignore[arg-type]

    monkeypatch.setattr(type(both.store), "list", counted)
    await knot.put(name, "CNAME", f"{own.target}.")
    watcher = Watcher(both)
    await watcher.check(name)
    assert lists == 0
    await knot.put(name, "CNAME")


async def test_a_word_that_dns_confirms_is_needed_no_longer(both: Context, knot: Knot) -> None:
    name = "confirmed.claims.test"
    host = await both.registry.add_host(name, "acme")
    await both.registry.accept_host(name, "in a hurry")
    watcher = Watcher(both)
    for _ in range(4):
        assert (await watcher.check(name))[0].state is HostState.VERIFIED  # nothing is there, and the word holds
    await knot.put(name, "CNAME", f"{host.target}.")
    for _ in range(2):
        found, _ = await watcher.check(name)
    assert (found.accepted, found.proven) == ("", True)
    await knot.put(name, "CNAME")
