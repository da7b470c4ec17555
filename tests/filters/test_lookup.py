"""Whose message it is: the order, and that nobody signs in another's name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy.context import Context
from brandproxy.filters.lookup import Lookup
from brandproxy.filters.pipeline import recipient_reference
from brandproxy.model import HostState, SigningKey, Tenant
from tests.filters.conftest import installation

MAPPING = {"Shop": "acme", "@News.example": "beta", "*": "rest"}


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(tmp_path) as context:
        yield context


@pytest.mark.parametrize(
    ("said", "tenant"),
    [
        ({"known": "gamma", "header": "acme", "user": "shop"}, "gamma"),
        ({"header": "gamma", "sender": "a@news.example"}, "gamma"),
        ({"header": "gamma", "user": "shop"}, "acme"),  # a user of one tenant cannot name another
        ({"header": "gamma", "user": "stranger"}, "gamma"),
        ({"user": "SHOP", "sender": "a@news.example"}, "acme"),
        ({"sender": "a@news.example", "author": "b@acme.example"}, "beta"),
        ({"sender": "bounce@x.News.Example."}, "beta"),
        ({"sender": "bounce@esp.example", "author": "b@acme.example"}, "acme"),
        ({"sender": "a@acme.example"}, "acme"),  # has a host under this domain
        ({"sender": "a@links.acme.example"}, "acme"),
        ({"sender": "a@other.acme.example"}, "rest"),
        ({"sender": "a@example"}, "rest"),
        ({"sender": ""}, "rest"),
        ({"sender": "@"}, "rest"),
        ({}, "rest"),
    ],
)
async def test_the_order(context: Context, said: dict[str, str], tenant: str) -> None:
    rest = {name: value for name, value in said.items() if name != "author"}
    assert Lookup(context.directory, MAPPING).tenant(author=lambda: said.get("author", ""), **rest) == tenant


async def test_a_header_that_is_not_believed_says_nothing(context: Context) -> None:
    assert Lookup(context.directory, {}, believe_header=False).tenant(header="acme") == ""


async def test_a_domain_of_two_tenants_or_of_an_unproven_host_is_nobodys(context: Context) -> None:
    lookup = Lookup(context.directory, {})
    assert lookup.tenant(sender="a@acme.example") == "acme"
    await context.registry.add_tenant("evil")
    await context.registry.add_host("evil.acme.example", "evil")
    await context.registry.add_host("links.victim.example", "evil")
    cursor = await context.store.cursor()
    await context.directory.load(context.store)
    lookup = Lookup(context.directory, {})
    assert lookup.tenant(sender="a@acme.example") == "acme"
    assert lookup.tenant(sender="a@victim.example") == ""
    await context.registry.set_host_state("evil.acme.example", HostState.LIVE, "test")
    async for change in context.store.watch("", cursor):
        context.directory.apply(change)
        for tell in context.directory.changed:
            tell(change)
        if change.key == "host/evil.acme.example":
            break
    assert lookup.tenant(sender="a@acme.example") == ""


def test_a_recipient_is_the_same_person_whatever_the_case_of_his_domain_and_after_key_rotation() -> None:
    old, new = SigningKey(0, b"o" * 32, 1), SigningKey(1, b"n" * 32, 2)
    before, after = Tenant("acme", (old,)), Tenant("acme", (new, old))
    reference = recipient_reference(before, "Bob@Example.org")
    assert reference == recipient_reference(after, "Bob@example.ORG")
    assert reference != recipient_reference(before, "bob@example.org")  # a local part may mind (RFC 5321 §2.4)
    assert reference != recipient_reference(Tenant("beta", (new,)), "Bob@example.org")
    assert len(reference) == 12
