"""Sending domains: many tenants may claim one, one at most has it; what a claim was given is never given again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.records import FAILED, Seen, Verdict
from brandproxy.core.senders import MailNames, proof
from brandproxy.errors import BadInput, Conflict, NotFound
from brandproxy.model import Sender, SenderState
from brandproxy.store import keys

MAIL = MailNames("dkim.esp.example", ("bp1", "bp2"), "bounces.esp.example")
NONE = Seen("empty")


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    settings = Settings(
        data=tmp_path, edge={"domain": "edge.esp.example"}, dns={"dkim_domain": "dkim.esp.example"}
    )
    async with open_context(settings, actor="test") as context:
        for slug in ("acme", "rival"):
            await context.registry.add_tenant(slug)
        yield context


def leads(one: str = "", two: str = "") -> dict[str, Seen]:
    return {
        selector: Seen("ok", (f"{selector}.{label}.dkim.esp.example",)) if label else NONE
        for selector, label in (("bp1", one), ("bp2", two))
    }


def test_a_claim_is_proven_by_its_own_label_and_by_nothing_else() -> None:
    mine, older = Sender("acme.example", "acme", "a" * 16), Sender("acme.example", "acme", "a" * 16, by_slug=True)
    assert proof(mine, MAIL, leads("a" * 16, "a" * 16)) is Verdict.PROVEN
    assert proof(mine, MAIL, leads("a" * 16)) is Verdict.PROVEN  # the customer is not done yet
    assert proof(mine, MAIL, leads("b" * 16, "b" * 16)) is Verdict.ABSENT
    assert proof(mine, MAIL, leads("acme", "acme")) is Verdict.ABSENT  # a slug is no proof,
    assert proof(older, MAIL, leads("acme", "acme")) is Verdict.PROVEN  # but for who had it before labels
    assert proof(mine, MAIL, leads("a" * 16, "b" * 16)) is Verdict.UNKNOWN  # two claims at once
    assert proof(mine, MAIL, leads()) is Verdict.ABSENT
    assert proof(mine, MAIL, {"bp1": FAILED, "bp2": NONE}) is Verdict.UNKNOWN
    crossed = {"bp1": Seen("ok", (f"bp2.{'a' * 16}.dkim.esp.example",)), "bp2": NONE}
    assert proof(mine, MAIL, crossed) is Verdict.ABSENT  # another selector's key


async def test_any_number_of_tenants_claim_a_domain_and_one_at_most_has_it(context: Context) -> None:
    senders = context.registry.senders
    claims = [await senders.add("Acme.Example.", slug) for slug in ("acme", "rival")]
    assert len({claim.label for claim in claims}) == 2
    with pytest.raises(Conflict):
        await senders.add("acme.example", "acme")
    await asyncio.gather(*(senders.move(claim, SenderState.PROVEN, "seen") for claim in claims))
    states = [claim.state for claim in await senders.claims("acme.example")]
    assert sorted(states) == ["pending", "proven"]
    winner = await senders.get("acme.example")
    loser = next(claim for claim in claims if claim.label != winner.label)
    with pytest.raises(Conflict, match="proven for another"):
        await senders.accept("acme.example", loser.tenant, "they called")
    await senders.move(winner, SenderState.BROKEN, "gone")
    await senders.accept("acme.example", loser.tenant, "they called")
    await senders.move(loser, SenderState.BROKEN, "gone")  # DNS does not take back the operator's word
    assert (await senders.get("acme.example")).tenant == loser.tenant


async def test_a_transfer_starts_over_with_a_label_of_its_own(context: Context) -> None:
    senders = context.registry.senders
    old = await senders.add("acme.example", "acme")
    await senders.accept("acme.example", "acme", "contract")
    new = await senders.transfer("acme.example", "rival")
    assert (new.tenant, new.state, new.vouched) == ("rival", SenderState.PENDING, False)
    assert new.label != old.label
    with pytest.raises(NotFound):
        await senders.get("acme.example", "acme")
    assert await context.store.get(keys.sender_target(old.label))  # never given out again
    with pytest.raises(Conflict):
        await senders.transfer("acme.example", "rival")
    with pytest.raises(NotFound):
        await senders.transfer("acme.example", "nobody")


async def test_a_label_that_was_given_out_is_not_given_again(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = iter(["0" * 16, "0" * 16, "1" * 16])
    monkeypatch.setattr("brandproxy.senders.claims.secrets.token_hex", lambda _: next(labels))
    first = await context.registry.senders.add("acme.example", "acme")
    await context.registry.senders.remove("acme.example")
    second = await context.registry.senders.add("acme.example", "rival")
    assert (first.label, second.label) == ("0" * 16, "1" * 16)


@pytest.mark.parametrize(
    "domain",
    ["com", "co.uk", "x", "", "edge.esp.example", "a.dkim.esp.example", "10.0.0.1", "*.acme.example", "a b.c"],
)
async def test_domains_that_no_customer_can_own_are_refused(context: Context, domain: str) -> None:
    with pytest.raises(BadInput):
        await context.registry.senders.add(domain, "acme")


async def test_a_host_brings_its_sender_and_every_write_is_in_the_trail(context: Context) -> None:
    registry = context.registry
    await registry.add_host("links.acme.example", "acme")
    await registry.add_host("images.acme.example", "acme")
    await registry.add_host("links.acme.co.uk", "rival")
    found = [(one.domain, one.tenant) for one in await registry.senders.all()]
    assert found == [("acme.co.uk", "rival"), ("acme.example", "acme")]
    await registry.transfer_host("links.acme.example", "rival")
    assert {one.tenant for one in await registry.senders.claims("acme.example")} == {"acme", "rival"}
    await registry.senders.accept("acme.example", "rival", "moved house")
    await registry.senders.transfer("acme.example", "acme")
    await registry.senders.remove("acme.co.uk")
    entries = [json.loads(entry.value) for entry in await context.store.list(keys.AUDIT)]
    told = [(e["what"], e["tenant"]) for e in entries if e["what"].startswith("sender.")]
    assert told == [
        ("sender.add", "acme"), ("sender.add", "rival"), ("sender.add", "rival"), ("sender.accept", "rival"),
        ("sender.transfer", "acme"), ("sender.remove", "rival"),
    ]  # fmt: skip
