"""Whose message it is: rights come by authentication, hints choose within them, and nobody signs as another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from brandproxy.config import Mail
from brandproxy.context import Context
from brandproxy.filters.lookup import LOGIN, NAMELESS, NOBODY, SENDER, TENANT, Hints, Identity, Lookup, Verdict
from brandproxy.filters.pipeline import recipient_reference
from brandproxy.grants import ANY, TRUSTED, Grant
from brandproxy.model import HostState, SigningKey, Tenant
from tests.filters.conftest import installation

MAIL = {
    "logins": {
        "Shop": "acme", "*@Beta.example": "beta", "boss@beta.example": "acme",
        "agency": {"tenants": ["acme", "beta"], "header": True}, "quiet": ["acme", "beta"],
        "narrow": {"tenants": "acme", "domains": ["esp.example"]},
    },
    "peers": {"192.0.2.0/24": "beta"},
}  # fmt: skip
KEY = Grant(("acme",))


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(tmp_path) as context:
        await context.registry.add_tenant("beta")
        for name in ("links.beta.example", "img.acme.co.uk"):
            await context.registry.add_host(name, "beta" if "beta" in name else "acme")
            await context.registry.set_host_state(name, HostState.LIVE, "test")
        await context.directory.load(context.store)
        yield context


def lookup(context: Context, **mail: Any) -> Lookup:
    return Lookup(context.directory, Mail.model_validate(mail or MAIL))


def hints(header: str = "", sender: str = "", *authors: str) -> Hints:
    return Hints(header, sender, lambda: authors)


@pytest.mark.parametrize(
    ("who", "said", "verdict"),
    [
        # 1. the key, before all else
        (Identity(KEY, "boss@beta.example"), hints("beta"), Verdict("acme")),
        (Identity(TRUSTED), hints("beta", "a@acme.example", "a@acme.example"), Verdict("beta")),
        (Identity(TRUSTED), hints("nowhere"), Verdict("nowhere")),
        # 2. the login, the narrowest pattern first
        (Identity(login="SHOP"), hints("beta", "x@beta.example"), Verdict("acme")),
        (Identity(login="shop-b@beta.example"), hints("acme", "x@acme.example"), Verdict("beta")),
        (Identity(login="BOSS@beta.Example"), hints(), Verdict("acme")),
        (Identity(login="\N{KELVIN SIGN}ing"), hints(), Verdict("", LOGIN)),
        # a login that is not listed is nobody, also where mail without one would be somebody's
        (Identity(login="stranger", listener=TRUSTED, address=ip_address("192.0.2.1")), hints("acme"),
         Verdict("", LOGIN)),
        # a login is no sender domain, a sender domain no login
        (Identity(login="beta.example"), hints(), Verdict("", LOGIN)),
        (Identity(login="@beta.example"), hints(), Verdict("", LOGIN)),
        (Identity(login="x@sub.beta.example"), hints(), Verdict("", LOGIN)),
        (Identity(), hints("", "shop", "shop"), Verdict("", NOBODY)),
        # 3. the listener, 4. the network, 5. nobody's
        (Identity(listener=Grant(("acme",)), address=ip_address("192.0.2.1")), hints("beta"), Verdict("acme")),
        (Identity(address=ip_address("192.0.2.1")), hints("acme", "a@acme.example"), Verdict("beta")),
        (Identity(address=ip_address("::ffff:192.0.2.1")), hints(), Verdict("beta")),
        (Identity(address=ip_address("198.51.100.1")), hints("acme", "a@acme.example"), Verdict("", NOBODY)),
        (Identity(), hints("acme", "a@acme.example", "a@acme.example"), Verdict("", NOBODY)),
        # hints choose within the grant
        (Identity(login="agency"), hints("beta", "a@acme.example"), Verdict("beta")),
        (Identity(login="agency"), hints("gamma", "a@acme.example"), Verdict("", TENANT)),
        (Identity(login="agency"), hints("", "a@x.acme.example"), Verdict("acme")),
        (Identity(login="agency"), hints("", "a@esp.example", "a@links.beta.example"), Verdict("beta")),
        (Identity(login="agency"), hints("", "a@esp.example", "a@esp.example"), Verdict("", NAMELESS)),
        (Identity(login="quiet"), hints("beta", "a@acme.example"), Verdict("acme")),
        (Identity(login="quiet"), hints("acme", "a@co.uk"), Verdict("", NAMELESS)),  # a public suffix is nobody's
        (Identity(login="quiet"), hints("", "a@acme.co.uk"), Verdict("acme")),
        # the author is not another tenant
        (Identity(login="shop"), hints("", "", "a@beta.example"), Verdict("", SENDER)),
        (Identity(login="shop"), hints("", "", "a@acme.example", "b@beta.example"), Verdict("", SENDER)),
        (Identity(login="shop"), hints("", "", "a@ｂeta.example"), Verdict("", SENDER)),
        (Identity(login="shop"), hints("", "", "a@esp.example"), Verdict("acme")),
        (Identity(login="narrow"), hints("", "x@acme.example", "a@news.esp.example"), Verdict("acme")),
        (Identity(login="narrow"), hints("", "", "a@acme.example"), Verdict("", SENDER)),
        # who has a tenant's key at the proxy is that tenant only
        (Identity(KEY, strict=True), hints("", "b@acme.example", "a@acme.example"), Verdict("acme")),
        (Identity(KEY, strict=True), hints("", "", "a@acme.example"), Verdict("acme")),  # a bounce
        (Identity(KEY, strict=True), hints("", "b@acme.example", "a@esp.example"), Verdict("", SENDER)),
        (Identity(KEY, strict=True), hints("", "b@esp.example", "a@acme.example"), Verdict("", SENDER)),
        (Identity(KEY, strict=True), hints("", "b@acme.example"), Verdict("", SENDER)),
        (Identity(KEY, strict=True), hints("", "b@acme.example", ""), Verdict("", SENDER)),
        (Identity(KEY, strict=True), Hints(sender="b@acme.example"), Verdict("acme")),
        (Identity(Grant(("acme",), ("e.example",)), strict=True), hints("", "", "a@e.example"), Verdict("acme")),
        (Identity(Grant(("acme",), (ANY,)), strict=True), hints("", "", "a@beta.example"), Verdict("acme")),
    ],
)  # fmt: skip
async def test_what_decides_and_in_which_order(
    context: Context, who: Identity, said: Hints, verdict: Verdict
) -> None:
    assert lookup(context).decide(who, said) == verdict


async def test_a_domain_of_two_tenants_or_of_an_unproven_host_is_nobodys(context: Context) -> None:
    who = Identity(login="agency")
    mail: Any = {"logins": {"agency": ["acme", "evil"]}}

    def tenant(sender: str) -> str:
        return lookup(context, **mail).decide(who, hints("", sender)).tenant

    await context.registry.add_tenant("evil")
    await context.registry.add_host("evil.acme.example", "evil")
    await context.registry.add_host("links.victim.example", "evil")
    await context.directory.load(context.store)
    assert tenant("a@acme.example") == "acme"
    assert tenant("a@victim.example") == ""
    await context.registry.set_host_state("evil.acme.example", HostState.LIVE, "test")
    await context.directory.load(context.store)
    assert tenant("a@acme.example") == ""
    assert tenant("a@evil.acme.example") == "evil"


async def test_a_host_that_is_proven_counts_from_then_on(context: Context) -> None:
    found = lookup(context)
    strict = Identity(KEY, strict=True)
    assert found.decide(strict, hints("", "", "a@new.example")).reason == SENDER
    cursor = await context.store.cursor()
    await context.registry.add_host("links.new.example", "acme")
    await context.registry.set_host_state("links.new.example", HostState.VERIFIED, "test")
    async for change in context.store.watch("host/", cursor):
        context.directory.apply(change)
        for tell in context.directory.changed:
            tell(change)
        if found.decide(strict, hints("", "", "a@new.example")).tenant == "acme":
            break


def test_a_recipient_is_the_same_person_whatever_the_case_of_his_domain_and_after_key_rotation() -> None:
    old, new = SigningKey(0, b"o" * 32, 1), SigningKey(1, b"n" * 32, 2)
    before, after = Tenant("acme", (old,)), Tenant("acme", (new, old))
    reference = recipient_reference(before, "Bob@Example.org")
    assert reference == recipient_reference(after, "Bob@example.ORG")
    assert reference != recipient_reference(before, "bob@example.org")  # a local part may mind (RFC 5321 §2.4)
    assert reference != recipient_reference(Tenant("beta", (new,)), "Bob@example.org")
    assert len(reference) == 12
