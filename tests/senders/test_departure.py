"""A customer who left cannot be impersonated: keys are revoked at once or as soon as the primary is back, and a
namesake inherits nothing. DNS is a real Knot, updated by RFC 2136."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy import access
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.dkim import REVOKED
from brandproxy.errors import BadSettings, Conflict, NotFound
from brandproxy.model import Sender, SenderState
from brandproxy.onboarding import Watcher
from brandproxy.onboarding.dkim import PublicKeys
from brandproxy.senders.publication import Publication
from brandproxy.senders.watch import SenderWatch
from brandproxy.store import keys
from brandproxy.webhooks.book import Book
from tests.onboarding.test_zones import ZONE, Signer, verifies
from tests.parts import KEY, Knot


@pytest.fixture
async def context(tmp_path: Path, knot: Knot) -> AsyncIterator[Context]:
    dns = {
        "servers": knot.server, "update_server": knot.server, "update_key": KEY,
        "dkim_domain": "dkim.esp.test.", "bounce_host": "Bounces.esp.test.",
    }  # fmt: skip
    settings = Settings(data=tmp_path, edge={"domain": "edge.test"}, dns=dns)
    async with open_context(settings, actor="test") as context:
        for slug in ("acme", "beta"):
            await context.registry.add_tenant(slug)
        yield context


def use_primary(context: Context, server: str) -> None:
    dns = context.settings.dns.model_copy(update={"update_server": server})
    settings = context.settings.model_copy(update={"dns": dns})
    object.__setattr__(context, "settings", settings)
    context.registry._settings = settings


async def signing(context: Context, knot: Knot, domain: str, tenant: str = "acme") -> Sender:
    """A claim whose customer made the records, and whose key is published."""
    claim = await context.registry.senders.add(domain, tenant)
    await PublicKeys(context, domain, tenant=tenant).publish("bp1", Signer("bp1").public)
    await knot.put(f"bp1._domainkey.{domain}", "CNAME", f"bp1.{claim.label}.dkim.esp.test.")
    return claim


async def key_at(knot: Knot, claim: Sender) -> tuple[str, ...]:
    return await knot.look(f"bp1.{claim.label}.dkim.esp.test", "TXT")


async def test_when_a_tenant_is_removed_its_keys_and_bounce_host_end_at_once(context: Context, knot: Knot) -> None:
    claim = await signing(context, knot, "left.test")
    [key] = await key_at(knot, claim)
    assert key.startswith("v=DKIM1; k=rsa; p=")
    assert await knot.look(f"{claim.label}.bounces.esp.test", "CNAME") == ("bounces.esp.test",)
    await context.registry.remove_tenant("acme")
    assert await key_at(knot, claim) == (REVOKED,)
    assert await knot.look(f"{claim.label}.bounces.esp.test", "TXT") == ("v=spf1 -all",)
    assert await context.registry.senders.all() == []
    assert await context.registry.senders.publication.waiting() == []


@pytest.mark.parametrize("how", ["remove", "transfer"])
async def test_when_a_claim_ends_its_key_does_and_the_next_has_names_of_its_own(
    context: Context, knot: Knot, how: str
) -> None:
    senders, domain = context.registry.senders, f"{how}.test"
    claim = await signing(context, knot, domain)
    if how == "remove":
        await senders.remove(domain)
        new = await senders.add(domain, "beta")
    else:
        new = await senders.transfer(domain, "beta")
    assert await key_at(knot, claim) == (REVOKED,)
    await PublicKeys(context, domain, tenant="beta").publish("bp1", Signer("bp1").public)
    assert await key_at(knot, claim) == (REVOKED,)
    assert await key_at(knot, new) != (REVOKED,)
    for _ in range(3):  # the customer's CNAMEs still lead to the old label: they prove nothing for the new tenant
        await SenderWatch(context).check(domain)
    assert (await senders.get(domain, "beta")).state is SenderState.PENDING
    record = (await senders.publication.of(new.label))["bp1"]
    with pytest.raises(Conflict, match="revoked"):
        await senders.publication.put(claim.label, "bp1", record)


async def test_a_primary_that_is_away_is_told_when_it_is_back(context: Context, knot: Knot) -> None:
    claim = await signing(context, knot, "away.test")
    use_primary(context, "127.0.0.1:9")
    await context.registry.remove_tenant("acme")
    publication = context.registry.senders.publication
    assert await publication.retry() == 2
    assert await key_at(knot, claim) != (REVOKED,)
    assert {one.name for one in await publication.waiting()} == {
        f"bp1.{claim.label}.dkim.esp.test", f"{claim.label}.bounces.esp.test",
    }  # fmt: skip
    use_primary(context, "")  # a setting that is gone loses nothing either
    with pytest.raises(BadSettings):
        context.registry.senders.publication.updater()
    assert await context.registry.senders.publication.retry() == 2
    use_primary(context, knot.server)
    publication = context.registry.senders.publication
    assert await publication.retry() == 0
    assert await key_at(knot, claim) == (REVOKED,)


async def test_what_a_process_that_died_left_published_is_swept(
    context: Context, knot: Knot, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await signing(context, knot, "died.test")

    async def died(*_: object) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(Publication, "revoke", died)
        await context.registry.senders.remove("died.test")
    assert await key_at(knot, claim) != (REVOKED,)
    await context.registry.senders.sweep()
    assert await key_at(knot, claim) == (REVOKED,)


async def test_claims_are_proven_by_looks_that_agree_and_the_first_has_it(context: Context, knot: Knot) -> None:
    senders, watch = context.registry.senders, SenderWatch(context)
    mine, other = [await senders.add("proof.test", slug) for slug in ("acme", "beta")]
    await knot.put("bp1._domainkey.proof.test", "CNAME", f"bp1.{mine.label}.dkim.esp.test.")
    await watch.check("proof.test")
    assert (await senders.get("proof.test", "acme")).state is SenderState.PENDING
    await watch.check("proof.test")
    assert (await senders.get("proof.test")).tenant == "acme"
    for selector in ("bp1", "bp2"):  # the owner of the domain moves to the other tenant
        await knot.put(f"{selector}._domainkey.proof.test", "CNAME", f"{selector}.{other.label}.dkim.esp.test.")
    for _ in range(3):
        await watch.check("proof.test")
    assert (await senders.get("proof.test", "acme")).state is SenderState.BROKEN
    assert (await senders.get("proof.test")).tenant == "beta"


async def test_a_namesake_inherits_nothing(context: Context) -> None:
    store, registry = context.store, context.registry
    await access.create_key(store, "acme")
    await access.create_key(store, "beta")
    hook, _ = await Book(context).add("acme", "https://hooks.acme.example/", ("click",), False)
    await store.put(keys.mailing("acme", "x"), b"<p>")
    await store.put(keys.mailing("acme-2", "x"), b"<p>")
    await registry.remove_tenant("acme")
    assert [one.tenant for one in await access.list_keys(store)] == ["beta"]
    assert await Book(context).all() == []
    assert await store.list(f"webhook-place/{hook.id}") == []
    assert [entry.key for entry in await store.list(keys.MAILING)] == [keys.mailing("acme-2", "x")]
    assert [entry.key for entry in await store.list(keys.PURGE)] == [keys.purge("acme", "")]
    with pytest.raises(Conflict, match="removed"):
        await registry.add_tenant("acme")
    with pytest.raises(NotFound):
        await registry.tenant("acme")
    told = [json.loads(entry.value) for entry in await store.list(keys.AUDIT)]
    assert [one["what"] for one in told][-3:] == ["key.revoke", "webhook.remove", "tenant.remove"]


@pytest.mark.parametrize("how", ["leave", "transfer"])
async def test_an_older_installation_is_brought_up_and_its_targets_by_slug_end_with_who_had_them(
    context: Context, knot: Knot, how: str
) -> None:
    registry, store = context.registry, context.store
    await registry.add_host("links.older.test", "acme")
    await registry.senders.remove("older.test")
    for slug in ("acme", "gone", "beta"):  # as a version without senders left it
        name = f"bp1.{slug}.dkim.esp.test"
        await knot.updater.replace("esp.test", name, "TXT", '"v=DKIM1; k=rsa; p=AAAA"')
        await registry.audit("dkim.publish", name, tenant=slug)
    await registry.audit("tenant.remove", "gone")
    await store.delete(keys.upgraded("senders"))
    await registry.bring_up()
    with pytest.raises(Conflict):
        await registry.add_tenant("gone")
    assert await knot.look("bp1.gone.dkim.esp.test", "TXT") == (REVOKED,)
    assert await knot.look("bp1.acme.dkim.esp.test", "TXT") == ("v=DKIM1; k=rsa; p=AAAA",)
    claim = await registry.senders.get("older.test")
    assert claim.by_slug
    await PublicKeys(context, "acme").publish("bp1", Signer("bp1").public)  # at both names
    assert await knot.look("bp1.acme.dkim.esp.test", "TXT") == await key_at(knot, claim)
    await registry.remove_host("links.older.test")
    await (registry.remove_tenant("acme") if how == "leave" else registry.senders.transfer("older.test", "beta"))
    assert await knot.look("bp1.acme.dkim.esp.test", "TXT") == (REVOKED,)
    assert await key_at(knot, claim) == (REVOKED,)
    assert await knot.look("bp1.beta.dkim.esp.test", "TXT") == ("v=DKIM1; k=rsa; p=AAAA",)


async def test_neither_a_former_customers_key_nor_the_next_claimants_signs_for_the_domain(
    context: Context, knot: Knot
) -> None:
    """As receivers see it: dkimpy, through the CNAME that the customer never took away."""
    claim = await context.registry.senders.add(ZONE, "acme")
    name = f"bp1._domainkey.{ZONE}"
    await knot.updater.replace(ZONE, name, "CNAME", f"bp1.{claim.label}.dkim.esp.test.")
    former, next_ = Signer("bp1"), Signer("bp1")
    await PublicKeys(context, ZONE).publish("bp1", former.public)
    assert verifies(knot, former.sign())
    await context.registry.remove_tenant("acme")
    assert not verifies(knot, former.sign())
    await context.registry.senders.add(ZONE, "beta")
    await PublicKeys(context, "beta").publish("bp1", next_.public)
    assert not verifies(knot, former.sign())
    assert not verifies(knot, next_.sign())
    await knot.updater.replace(ZONE, name, "CNAME")


async def test_two_tenants_under_one_registered_domain_do_not_break_each_other(
    context: Context, knot: Knot
) -> None:
    first = await context.registry.add_host("links.two.test", "acme")
    second = await context.registry.add_host("click.two.test", "beta")
    watcher, senders = Watcher(context), SenderWatch(context)
    asked = [await watcher.check(host.name) for host in (first, second)]
    wanted = [{line.wanted.value for line in report.lines} for _, report in asked]
    assert not wanted[0] & wanted[1]
    claim = await context.registry.senders.get("two.test", "beta")
    await knot.put("bp1._domainkey.two.test", "CNAME", f"bp1.{claim.label}.dkim.esp.test.")
    for _ in range(2):
        await senders.check("two.test")
    _, report = await watcher.check(first.name)  # it is asked for nothing that would take the domain from beta
    assert [line.wanted.name for line in report.lines] == ["links.two.test"]
    assert "sender-contested" in [finding.code for finding in report.findings]
    _, report = await watcher.check(second.name)
    assert "right" in [line.state for line in report.lines if "._domainkey." in line.wanted.name]
    assert "sender-contested" not in [finding.code for finding in report.findings]
