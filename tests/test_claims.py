"""Takeover safety: who may claim which name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy.certs.ordering import Orders
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.errors import BadInput, Conflict, NotFound
from brandproxy.model import Host, HostState
from brandproxy.store import keys
from brandproxy.webhooks.notices import load


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


async def test_any_number_of_tenants_claim_a_name_each_with_a_target_of_its_own(context: Context) -> None:
    claims = [context.registry.add_host("links.acme.co.uk", slug) for slug in ("acme", "rival") * 5]
    done = await asyncio.gather(*claims, return_exceptions=True)
    made = [one for one in done if isinstance(one, Host)]
    assert sorted(host.tenant for host in made) == ["acme", "rival"]
    assert all(isinstance(one, Conflict) for one in done if isinstance(one, BaseException))
    assert len({host.target for host in made}) == 2
    assert await context.registry.contested(made[0])


async def test_a_transfer_starts_over_with_a_new_target(context: Context) -> None:
    host = await context.registry.add_host("links.acme.example", "acme", HostState.LIVE)
    given = await context.registry.transfer_host(host.name, "rival")
    assert (given.tenant, given.state) == ("rival", HostState.PENDING)
    assert given.target != host.target


async def test_a_delegated_zone_that_was_proven_belongs_to_one_tenant(context: Context) -> None:
    registry = context.registry
    first = await registry.add_host("links.mail.acme.example", "acme", zone="mail.acme.example")
    await registry.add_host("news.mail.acme.example", "acme", zone="mail.acme.example")
    await registry.hold_zone(first)
    with pytest.raises(Conflict):
        await registry.add_host("steal.mail.acme.example", "rival", zone="mail.acme.example")
    for name in ("links", "news"):
        await registry.remove_host(f"{name}.mail.acme.example")
    with pytest.raises(Conflict):  # the NS records may still stand
        await registry.add_host("links.mail.acme.example", "rival", zone="mail.acme.example")
    await registry.release_zone("mail.acme.example")
    await registry.add_host("links.mail.acme.example", "rival", zone="mail.acme.example")
    with pytest.raises(Conflict):
        await registry.release_zone("mail.acme.example")
    with pytest.raises(BadInput):
        await registry.add_host("links.other.example", "acme", zone="mail.acme.example")


async def test_a_zones_claim_without_proof_keeps_nobody_out_and_the_operator_decides(context: Context) -> None:
    registry = context.registry
    squatted = await registry.add_host("links.mail.acme.example", "rival", zone="mail.acme.example")
    host = await registry.add_host("news.mail.acme.example", "acme", zone="mail.acme.example")
    for claimed in (squatted, host):
        with pytest.raises(Conflict, match="name none of them"):  # NS records say nothing of whom
            await registry.hold_zone(claimed)
    assert (await registry.accept_host(host.name, "their contract")).proven
    await registry.hold_zone(host)
    with pytest.raises(Conflict):
        await registry.hold_zone(squatted)


async def test_a_zones_claim_whose_hosts_are_gone_is_forgotten_unless_proven(context: Context) -> None:
    await context.registry.add_host("links.mail.acme.example", "rival", zone="mail.acme.example")
    await context.registry.remove_host("links.mail.acme.example")
    host = await context.registry.add_host("links.mail.acme.example", "acme", zone="mail.acme.example")
    await context.registry.hold_zone(host)


async def test_a_zone_from_before_proofs_were_kept_counts_as_proven(context: Context) -> None:
    await context.store.put(keys.zone("mail.acme.example"), b"acme")
    with pytest.raises(Conflict):
        await context.registry.add_host("links.mail.acme.example", "rival", zone="mail.acme.example")
    await context.registry.hold_zone(
        await context.registry.add_host("links.mail.acme.example", "acme", zone="mail.acme.example")
    )


@pytest.mark.parametrize("again", ["LINKS.acme.example", "links.acme.example.", " links.acme.example"])
async def test_a_name_spelt_another_way_is_the_same_name(context: Context, again: str) -> None:
    await context.registry.add_host("links.acme.example", "acme")
    with pytest.raises(Conflict, match="already"):
        await context.registry.add_host(again, "acme")


async def test_an_idn_and_its_a_label_are_the_same_name_and_a_look_alike_is_another(context: Context) -> None:
    await context.registry.add_host("links.bücher.example", "acme")
    for again in ("links.xn--bcher-kva.example", "links.BÜCHER.example", "links.bu\u0308cher.example"):
        with pytest.raises(Conflict, match="already"):
            await context.registry.add_host(again, "acme")
    look_alike = await context.registry.add_host("links.b\u0443cher.example", "rival")  # Cyrillic u
    assert look_alike.name.startswith("links.xn--")


async def test_claiming_again_leaves_no_targets_behind(context: Context) -> None:
    await context.registry.add_host("links.acme.example", "acme")
    for _ in range(3):
        with pytest.raises(Conflict):
            await context.registry.add_host("links.acme.example", "acme")
    assert len(await context.store.list("target/")) == 1


async def take(context: Context, tenant: str, name: str = "links.acme.example") -> Host:
    claim = await context.registry.claim(name, tenant)
    assert claim is not None
    return await context.registry.take_host(claim, "its CNAME")


@pytest.mark.parametrize("state", [HostState.VERIFIED, HostState.LIVE, HostState.SUSPENDED])
async def test_a_name_whose_proof_stands_gives_way_to_nobody(context: Context, state: HostState) -> None:
    await context.registry.add_host("links.acme.example", "acme", HostState.VERIFIED)
    await context.registry.set_host_state("links.acme.example", state, "test")
    claim = await context.registry.add_host("links.acme.example", "rival")
    assert (claim.state, claim.proven) == (HostState.PENDING, False)
    with pytest.raises(Conflict):
        await take(context, "rival")
    assert (await context.registry.host("links.acme.example")).tenant == "acme"
    assert context.directory.base_url("rival") is None


async def test_the_first_proof_takes_a_name_that_somebody_else_claimed_before(context: Context) -> None:
    squatted = await context.registry.add_host("links.acme.example", "rival")
    await context.registry.add_host("links.acme.example", "acme")
    won = await take(context, "acme")
    assert (won.tenant, won.proven, won.state) == ("acme", True, HostState.VERIFIED)
    beside = await context.registry.host("links.acme.example", "rival")
    assert (beside.target, beside.proven) == (squatted.target, False)


async def test_who_took_down_its_record_gives_way_to_the_tenant_whose_record_is_there(context: Context) -> None:
    """A customer moves from one tenant to another without the operator."""
    registry = context.registry
    before = await registry.add_host("links.acme.example", "acme", HostState.LIVE)
    await registry.add_host(before.name, "rival")
    await context.store.put(keys.cert(before.name), b"{}")
    await registry.set_host_state(before.name, HostState.BROKEN, "gone")
    won = await take(context, "rival")
    lost = await registry.host(before.name, "acme")
    assert (won.tenant, lost.target, lost.proven, lost.state) == ("rival", before.target, False, HostState.PENDING)
    assert await context.store.get(keys.cert(before.name)) is None  # the next one gets its own
    told = [load(entry.value) for entry in await context.store.list(keys.NOTICE)]
    assert [notice.tenant for notice in told if notice.kind == "host.lost"] == ["acme"]
    assert not any("rival" in str(notice.data) for notice in told if notice.tenant == "acme")
    trail = [json.loads(entry.value) for entry in await context.store.list(keys.AUDIT)]
    assert [(e["before"], e["after"]) for e in trail if e["what"] == "host.take"] == [("acme", "rival")]
    assert "rival" not in str([e for e in trail if e.get("tenant") == "acme"])
    await registry.set_host_state(before.name, HostState.BROKEN, "gone again")
    assert (await take(context, "acme")).target == before.target  # and back: the same claim, a new tenure


async def test_a_claim_is_told_that_another_has_the_name(context: Context) -> None:
    registry = context.registry
    await registry.add_host("links.acme.example", "acme")
    for slug in ("rival", "late"):
        if slug == "late":
            await registry.add_tenant("late")
        await registry.add_host("links.acme.example", slug)
    await registry.set_host_state("links.acme.example", HostState.VERIFIED, "its CNAME")
    told = [load(entry.value) for entry in await context.store.list(keys.NOTICE)]
    assert sorted(notice.tenant for notice in told if notice.kind == "host.contested") == ["late", "rival"]


async def test_removing_the_host_lets_the_oldest_claim_be_looked_at_and_serves_nobody(context: Context) -> None:
    registry = context.registry
    await registry.add_host("links.acme.example", "acme", HostState.LIVE)
    claim = await registry.add_host("links.acme.example", "rival")
    await registry.remove_host("links.acme.example", "acme")
    there = await registry.host("links.acme.example")
    assert (there.tenant, there.target, there.proven) == ("rival", claim.target, False)
    await registry.remove_host("links.acme.example", "rival")
    with pytest.raises(NotFound):
        await registry.host("links.acme.example")
    assert await context.store.list("claim/") == []


async def test_a_transfer_ends_the_former_tenants_claim(context: Context) -> None:
    registry = context.registry
    await registry.add_host("links.acme.example", "acme", HostState.LIVE)
    claimed = await registry.add_host("links.acme.example", "rival")
    given = await registry.transfer_host("links.acme.example", "rival")
    assert given.target != claimed.target
    assert [host.tenant for host in await registry.everything()] == ["rival"]
    with pytest.raises(NotFound):
        await registry.host("links.acme.example", "acme")


async def test_the_operator_vouches_for_one_of_several_claims_by_name(context: Context) -> None:
    registry = context.registry
    await registry.add_host("links.acme.example", "rival")
    await registry.add_host("links.acme.example", "acme")
    with pytest.raises(Conflict, match="several"):
        await registry.accept_host("links.acme.example", "seen")
    accepted = await registry.accept_host("links.acme.example", "seen", tenant="acme")
    assert (accepted.tenant, accepted.accepted, accepted.proven) == ("acme", "seen", True)
    assert await registry.host("links.acme.example") == accepted
    with pytest.raises(Conflict):
        await take(context, "rival")  # the operator's word outweighs a record


async def test_a_change_of_hands_whose_node_died_is_whole_to_everybody(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = context.registry
    await registry.add_host("links.acme.example", "acme", HostState.BROKEN)
    await registry.add_host("links.acme.example", "rival")

    class DiedError(Exception):
        pass

    async def dies(*_: object, **__: object) -> None:
        raise DiedError

    for broken in ("replace", "delete"):
        with monkeypatch.context() as patch:
            patch.setattr(context.store, broken, dies)
            with pytest.raises(DiedError):
                await take(context, "rival")
        owner = "acme" if broken == "replace" else "rival"
        assert (await registry.host("links.acme.example")).tenant == owner
        everything = await registry.everything()
        assert sorted(host.tenant for host in everything) == ["acme", "rival"]
        assert len({host.target for host in everything}) == 2
    await registry.tell(await registry.host("links.acme.example"))  # as the webhooks' lane does
    told = [load(entry.value) for entry in await context.store.list(keys.NOTICE)]
    assert [notice.tenant for notice in told if notice.kind == "host.lost"] == ["acme"]


async def test_claims_of_a_name_whose_place_nobody_has_are_put_right(context: Context) -> None:
    await context.registry.add_host("links.acme.example", "acme")
    await context.registry.add_host("links.acme.example", "rival")
    await context.store.delete(keys.host("links.acme.example"))  # a node died here
    await context.registry.mend_claims()
    there = await context.store.get(keys.host("links.acme.example"))
    assert there is not None
    assert await context.store.list("claim/") == []


async def test_a_tenant_with_claims_is_not_removed(context: Context) -> None:
    await context.registry.add_host("links.acme.example", "acme")
    await context.registry.add_host("links.acme.example", "rival")
    with pytest.raises(Conflict):
        await context.registry.remove_tenant("rival")


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
