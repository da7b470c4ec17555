"""Tenants, hosts and API keys: claims are atomic, secrets are sealed, changes are audited and followed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from brandproxy import access
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.tokens import Click
from brandproxy.errors import BadToken, Conflict, NotFound
from brandproxy.model import HostState, Policy
from brandproxy.store import keys


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    async with open_context(Settings(data=tmp_path), actor="test") as opened:
        yield opened


async def test_a_tenant_survives_the_store_with_its_key_sealed(context: Context) -> None:
    made = await context.registry.add_tenant("acme", "Acme", Policy(opens=True, exclude=("a.com/*",)))
    assert await context.registry.tenant("acme") == made
    entry = await context.store.get(keys.tenant("acme"))
    assert entry is not None
    assert made.keys[0].secret not in entry.value
    assert b"acme" not in entry.value
    assert (context.settings.data / "master.key").stat().st_mode & 0o777 == 0o600


async def test_a_slug_is_taken_once_and_a_name_claimed_once_by_a_tenant(context: Context) -> None:
    await context.registry.add_tenant("acme")
    await context.registry.add_tenant("rival")
    with pytest.raises(Conflict):
        await context.registry.add_tenant("acme")
    claims = [context.registry.add_host("links.acme.com", t) for t in ("acme", "rival", "acme", "rival")]
    done = await asyncio.gather(*claims, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in done) == 2
    assert all(isinstance(result, Conflict) for result in done if isinstance(result, BaseException))


async def test_a_host_of_nobody_is_refused(context: Context) -> None:
    with pytest.raises(NotFound):
        await context.registry.add_host("links.acme.com", "ghost")


async def test_every_host_gets_a_target_of_its_own_that_stays_taken(context: Context) -> None:
    await context.registry.add_tenant("acme")
    first = await context.registry.add_host("links.acme.com", "acme")
    await context.registry.remove_host("links.acme.com")
    again = await context.registry.add_host("links.acme.com", "acme")
    assert first.target != again.target
    assert len(await context.store.list(keys.TARGET)) == 2


async def test_rotation_keeps_old_links_and_revocation_ends_them(context: Context) -> None:
    await context.registry.add_tenant("acme")
    await context.directory.load(context.store)
    ring = context.directory.ring("acme")
    assert ring is not None
    old = ring.mint(Click("https://acme.com/"))

    await context.registry.rotate_key("acme")
    await context.directory.load(context.store)
    ring = context.directory.ring("acme")
    assert ring is not None
    assert ring.open("c", old) == Click("https://acme.com/")
    assert ring.mint(Click("https://acme.com/")) != old

    await context.registry.revoke_key("acme", 0)
    await context.directory.load(context.store)
    ring = context.directory.ring("acme")
    assert ring is not None
    with pytest.raises(BadToken, match="revoked"):
        ring.open("c", old)


async def test_the_directory_follows_changes_within_two_seconds(context: Context) -> None:
    following = asyncio.create_task(context.directory.follow(context.store))
    await context.registry.add_tenant("acme")
    await context.registry.add_host("links.acme.com", "acme")
    async with asyncio.timeout(2):
        while context.directory.claimed("links.acme.com") is None:
            await asyncio.sleep(0.02)
        assert context.directory.site("links.acme.com") is None  # claimed is not proven
        await context.registry.set_host_state("links.acme.com", HostState.LIVE, "test")
        while context.directory.base_url("acme") is None:
            await asyncio.sleep(0.02)
        await context.registry.remove_host("links.acme.com")
        while context.directory.site("links.acme.com") is not None:
            await asyncio.sleep(0.02)
    following.cancel()


async def test_what_is_read_anew_after_a_lost_feed_is_in_force(context: Context) -> None:
    await context.registry.add_tenant("acme")
    await context.registry.add_host("links.acme.com", "acme", HostState.LIVE)
    await context.directory.load(context.store)
    assert context.directory.site("links.acme.com") is not None
    await context.registry.set_host_state("links.acme.com", HostState.SUSPENDED, "abuse")
    await context.directory.load(context.store)
    site = context.directory.site("links.acme.com")
    assert site is not None
    assert site.host.state is HostState.SUSPENDED


async def test_a_link_gets_a_host_that_can_answer_or_none(context: Context) -> None:
    registry, directory = context.registry, context.directory
    await registry.add_tenant("acme")
    await registry.add_host("one.acme.com", "acme")
    await registry.add_host("two.acme.com", "acme")

    async def base() -> str | None:
        await directory.load(context.store)
        return directory.base_url("acme")

    assert await base() is None
    await registry.set_host_state("one.acme.com", HostState.VERIFIED, "test")
    assert await base() is None
    await registry.change_tenant(
        "acme", lambda t: replace(t, policy=replace(t.policy, http_when_verified=True)), "tenant.set"
    )
    assert await base() == "http://one.acme.com"
    await registry.set_host_state("two.acme.com", HostState.LIVE, "test")
    assert await base() == "https://two.acme.com"
    await registry.set_host_state("two.acme.com", HostState.SUSPENDED, "test")
    await registry.set_host_state("one.acme.com", HostState.BROKEN, "test")
    assert await base() is None


async def test_a_tenant_with_hosts_is_not_removed(context: Context) -> None:
    await context.registry.add_tenant("acme")
    await context.registry.add_host("links.acme.com", "acme")
    with pytest.raises(Conflict, match=r"links\.acme\.com"):
        await context.registry.remove_tenant("acme")
    await context.registry.remove_host("links.acme.com")
    await context.registry.remove_tenant("acme")
    assert await context.registry.tenants() == []


async def test_every_change_leaves_an_audit_entry_with_its_reason(context: Context) -> None:
    await context.registry.add_tenant("acme")
    await context.registry.add_host("links.acme.com", "acme")
    await context.registry.set_host_state("links.acme.com", HostState.BROKEN, "CNAME is gone")
    entries = [json.loads(entry.value) for entry in await context.store.list(keys.AUDIT)]
    assert [entry["what"] for entry in entries] == ["tenant.add", "host.add", "sender.add", "host.state"]
    assert entries[-1]["reason"] == "CNAME is gone"
    assert {entry["actor"] for entry in entries} == {"test"}


async def test_an_api_key_opens_what_it_was_made_for_and_nothing_else(context: Context) -> None:
    _, operator = await access.create_key(context.store, None)
    made, acme = await access.create_key(context.store, "acme", "panel")
    assert (await access.authenticate(context.store, f"Bearer {operator}")).sees("anyone")
    who = await access.authenticate(context.store, f"bearer {acme}")
    assert who.sees("acme")
    assert not who.sees("rival")
    stored = [entry.value for entry in await context.store.list(keys.ACCESS)]
    assert not any(acme.split("_", 2)[2].encode() in value for value in stored)
    await access.revoke_key(context.store, made.id)
    for wrong in (f"Bearer {acme}", "", "Bearer", "Bearer bp_x_y", f"Basic {operator}", f"Bearer {operator}x",
                  "Bearer bp__", "Bearer bp_../x_y", "Bearer bp_é_é"):  # fmt: skip
        with pytest.raises(access.AccessDenied):
            await access.authenticate(context.store, wrong)
