"""Takeover safety: who may claim which name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from copy import copy
from pathlib import Path

import pytest

from brandproxy.certs.ordering import Orders
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.errors import BadInput, Conflict
from brandproxy.model import Host, HostState
from brandproxy.tenants import UNPROVEN, Registry


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    async with open_context(Settings(data=tmp_path, edge={"domain": "edge.esp.example"}), actor="test") as context:
        for slug in ("acme", "rival"):
            await context.registry.add_tenant(slug)
        yield context


@pytest.mark.parametrize(
    "name",
    ["com", "co.uk", "github.io", "s3.amazonaws.com", "edge.esp.example", "x.edge.esp.example", "a..b", "-a.test",
     "a_b.example", "127.0.0.1", f"{'a' * 64}.example", f"{'a.' * 127}example", "a b.example", "*.acme.example",
     "https://acme.example", "acme.example/x", "ёж", "",
     "xn--a.example", "links.xn--99999999.example", "com.", "CO.UK", "acme.example.."],
)  # fmt: skip
async def test_names_that_no_customer_can_own_are_refused(context: Context, name: str) -> None:
    with pytest.raises(BadInput):
        await context.registry.add_host(name, "acme")


async def test_of_tenants_who_claim_a_name_at_once_one_gets_it(context: Context) -> None:
    claims = [context.registry.add_host("links.acme.co.uk", slug) for slug in ("acme", "rival") * 5]
    done = await asyncio.gather(*claims, return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in done) == 1
    assert all(isinstance(one, Conflict) for one in done if isinstance(one, BaseException))


async def test_a_transfer_starts_over_with_a_new_target(context: Context) -> None:
    host = await context.registry.add_host("links.acme.example", "acme", HostState.LIVE)
    given = await context.registry.transfer_host(host.name, "rival")
    assert (given.tenant, given.state) == ("rival", HostState.PENDING)
    assert given.target != host.target


async def test_a_delegated_zone_belongs_to_one_tenant(context: Context) -> None:
    await context.registry.add_host("links.mail.acme.example", "acme", zone="mail.acme.example")
    await context.registry.add_host("news.mail.acme.example", "acme", zone="mail.acme.example")
    with pytest.raises(Conflict):
        await context.registry.add_host("steal.mail.acme.example", "rival", zone="mail.acme.example")
    for name in ("links", "news"):
        await context.registry.remove_host(f"{name}.mail.acme.example")
    with pytest.raises(Conflict):  # the NS records may still stand
        await context.registry.add_host("links.mail.acme.example", "rival", zone="mail.acme.example")
    await context.registry.release_zone("mail.acme.example")
    await context.registry.add_host("links.mail.acme.example", "rival", zone="mail.acme.example")
    with pytest.raises(Conflict):
        await context.registry.release_zone("mail.acme.example")
    with pytest.raises(BadInput):
        await context.registry.add_host("links.other.example", "acme", zone="mail.acme.example")


@pytest.mark.parametrize("again", ["LINKS.acme.example", "links.acme.example.", " links.acme.example"])
async def test_a_name_spelt_another_way_is_the_same_name(context: Context, again: str) -> None:
    await context.registry.add_host("links.acme.example", "acme")
    with pytest.raises(Conflict):
        await context.registry.add_host(again, "rival")


async def test_an_idn_and_its_a_label_are_the_same_name_and_a_look_alike_is_another(context: Context) -> None:
    await context.registry.add_host("links.bücher.example", "acme")
    for again in ("links.xn--bcher-kva.example", "links.BÜCHER.example", "links.bu\u0308cher.example"):
        with pytest.raises(Conflict):
            await context.registry.add_host(again, "rival")
    look_alike = await context.registry.add_host("links.b\u0443cher.example", "rival")  # Cyrillic u
    assert look_alike.name.startswith("links.xn--")


async def test_claims_of_a_taken_name_leave_no_targets_behind(context: Context) -> None:
    await context.registry.add_host("links.acme.example", "acme")
    for _ in range(3):
        with pytest.raises(Conflict):
            await context.registry.add_host("links.acme.example", "rival")
    assert len(await context.store.list("target/")) == 1


def a_week_later(context: Context) -> Registry:
    later = copy(context.registry)
    later._now = lambda: time.time() + UNPROVEN + 1
    return later


async def test_a_claim_nobody_proves_gives_way_after_a_week(context: Context) -> None:
    squatted = await context.registry.add_host("links.acme.example", "rival")
    claims = [a_week_later(context).add_host("links.acme.example", "acme") for _ in range(5)]
    done = await asyncio.gather(*claims, return_exceptions=True)
    (given,) = [one for one in done if isinstance(one, Host)]
    assert all(isinstance(one, Conflict) for one in done if one is not given)
    assert (given.tenant, given.state) == ("acme", HostState.PENDING)
    assert given.target != squatted.target


@pytest.mark.parametrize("state", [HostState.VERIFIED, HostState.LIVE, HostState.BROKEN, HostState.SUSPENDED])
async def test_a_name_once_proven_gives_way_to_nobody(context: Context, state: HostState) -> None:
    await context.registry.add_host("links.acme.example", "acme", state)
    with pytest.raises(Conflict, match="another tenant's"):
        await a_week_later(context).add_host("links.acme.example", "rival")


async def test_a_claim_that_is_proven_while_another_would_take_it_over_stays(context: Context) -> None:
    there = await context.registry.add_host("links.acme.example", "acme")
    await context.registry.set_host_state(there.name, HostState.VERIFIED, "its CNAME")
    with pytest.raises(Conflict):
        await a_week_later(context).transfer_host(there.name, "rival", there)
    assert (await context.registry.host(there.name)).tenant == "acme"


async def test_a_proof_ends_with_a_transfer_and_with_starting_over(context: Context) -> None:
    registry = context.registry
    host = await registry.add_host("links.acme.example", "acme")
    assert not host.proven
    assert (await registry.set_host_state(host.name, HostState.VERIFIED, "its CNAME")).proven
    assert (await registry.set_host_state(host.name, HostState.BROKEN, "gone")).proven
    assert (await registry.set_host_state(host.name, HostState.SUSPENDED, "abuse")).proven
    assert not (await registry.set_host_state(host.name, HostState.PENDING, "resumed")).proven
    assert not (await registry.set_host_state(host.name, HostState.BROKEN, "never right since")).proven
    assert (await registry.accept_host(host.name, "seen")).proven
    given = await registry.transfer_host(host.name, "rival")
    assert (given.proven, given.accepted) == (False, "")


async def test_no_certificate_is_ordered_for_a_host_that_is_not_proven(context: Context) -> None:
    host = await context.registry.add_host("links.acme.example", "acme")
    orders = Orders(context)
    assert await orders.obtain(host, None, force=True) is None
    verified = await context.registry.set_host_state(host.name, HostState.VERIFIED, "its CNAME")
    await context.registry.set_host_state(host.name, HostState.SUSPENDED, "abuse")
    assert await orders.obtain(verified, None, force=True) is None
    assert await context.store.list("acme/") == []
