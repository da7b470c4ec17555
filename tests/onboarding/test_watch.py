"""Hosts follow their records by themselves, against a real DNS server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from brandproxy.certs.devca import DevCA
from brandproxy.certs.vault import Vault
from brandproxy.context import Context
from brandproxy.core.records import Verdict
from brandproxy.errors import Conflict
from brandproxy.model import HostState
from brandproxy.onboarding import Watcher
from brandproxy.store import keys
from brandproxy.store.seal import open_seal
from tests.parts import Knot, until_state


@asynccontextmanager
async def watching(context: Context, nodes: int = 1) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(context.directory.follow(context.store))]
    tasks += [asyncio.create_task(Watcher(context).run()) for _ in range(nodes)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_host_is_verified_when_its_cname_appears_and_broken_when_it_goes(
    context: Context, knot: Knot
) -> None:
    host = await context.registry.add_host("links.acme.test", "acme")
    async with watching(context):
        await asyncio.sleep(0.5)
        assert (await context.registry.host(host.name)).state is HostState.PENDING
        await knot.put(host.name, "CNAME", f"{host.target}.")
        await until_state(context, host.name, HostState.VERIFIED)
        await context.registry.set_host_state(host.name, HostState.LIVE, "test")
        await knot.put(host.name, "CNAME")
        broken = await until_state(context, host.name, HostState.BROKEN)
        assert "no CNAME" in broken.reason
        async with asyncio.timeout(2):  # new mail no longer uses it
            while context.directory.base_url("acme") is not None:
                await asyncio.sleep(0.02)
        await knot.put(host.name, "CNAME", f"{host.target}.")
        await until_state(context, host.name, HostState.VERIFIED)
        await knot.put(host.name, "CNAME")
    trail = [json.loads(entry.value) for entry in await context.store.list(keys.AUDIT)]
    moves = [(entry["before"], entry["after"]) for entry in trail if entry["what"] == "host.state"]
    assert moves == [("pending", "verified"), ("verified", "live"), ("live", "broken"), ("broken", "verified")]
    assert {entry["actor"] for entry in trail if entry["what"] == "host.state"} == {"dns-watch", "test"}


async def test_a_dns_server_that_is_away_breaks_nothing(
    context: Context, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brandproxy.resolver._TIMEOUT", 0.1)
    gone = Knot(tmp_path_factory.mktemp("gone") / "knot")
    host = await context.registry.add_host("away.acme.test", "acme", HostState.VERIFIED)
    watcher = Watcher(context)
    watcher.looker.resolver._fixed = (("127.0.0.1", gone.port),)
    for _ in range(5):
        after, report = await watcher.check(host.name)
        assert report.watch.verdict is Verdict.UNKNOWN
        assert after.state is HostState.VERIFIED
    assert report.fatal[0].code == "dns-failing"


async def test_one_observation_alone_moves_nothing(context: Context, knot: Knot) -> None:
    host = await context.registry.add_host("flap.acme.test", "acme", HostState.VERIFIED)
    watcher = Watcher(context)
    for expected in (HostState.VERIFIED, HostState.VERIFIED, HostState.BROKEN):
        assert (await watcher.check(host.name))[0].state is expected


async def test_a_suspended_host_is_lifted_by_the_operator_only(context: Context, knot: Knot) -> None:
    host = await context.registry.add_host("bad.acme.test", "acme")
    await knot.put(host.name, "CNAME", f"{host.target}.")
    await context.registry.set_host_state(host.name, HostState.SUSPENDED, "abuse")
    async with watching(context):
        await asyncio.sleep(1)
        assert (await context.registry.host(host.name)).state is HostState.SUSPENDED
        await context.registry.set_host_state(host.name, HostState.PENDING, "resumed")
        await until_state(context, host.name, HostState.VERIFIED)
    await knot.put(host.name, "CNAME")


async def test_nodes_share_the_looks(context: Context, knot: Knot, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    check = Watcher.check

    async def counted(self: Watcher, name: str) -> object:
        looks.append(name)
        return await check(self, name)

    monkeypatch.setattr(Watcher, "check", counted)
    hosts = [
        (await context.registry.add_host(f"h{n}.acme.test", "acme", HostState.SUSPENDED)).name for n in range(20)
    ]
    for name in hosts:
        await context.registry.set_host_state(name, HostState.VERIFIED, "test")
    watcher = [Watcher(context) for _ in range(3)]
    for node in watcher:
        node._pace = node._pace.__class__(60, 60)
    await context.directory.load(context.store)
    tasks = [asyncio.create_task(node.run()) for node in watcher]
    await asyncio.sleep(2)
    for task in tasks:
        task.cancel()
    assert sorted(looks) == sorted(hosts)


async def test_a_look_that_was_under_way_at_a_transfer_proves_nothing_for_the_new_owner(
    context: Context, knot: Knot
) -> None:
    await context.registry.add_tenant("rival")
    host = await context.registry.add_host("given.acme.test", "acme")
    await knot.put(host.name, "CNAME", f"{host.target}.")
    watcher = Watcher(context)
    await watcher.check(host.name)
    look = watcher.looker.report

    async def meanwhile(*args: Any) -> Any:
        found = await look(*args)
        await context.registry.transfer_host(host.name, "rival")
        return found

    watcher.looker.report = meanwhile  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await watcher.check(host.name)
    after = await context.registry.host(host.name)
    assert (after.tenant, after.state) == ("rival", HostState.PENDING)
    await knot.put(host.name, "CNAME")


@pytest.mark.parametrize("how", ["transfer", "resume", "removed and added"])
async def test_votes_of_before_count_for_nothing_when_a_host_starts_over(
    context: Context, knot: Knot, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await context.registry.add_host("over.acme.test", "acme")
    await knot.put(host.name, "CNAME", f"{host.target}.")
    watcher, registry = Watcher(context), context.registry
    for _ in range(4):
        await watcher.check(host.name)
    if how == "transfer":
        await registry.add_tenant("rival")
        await registry.transfer_host(host.name, "rival")
    elif how == "resume":
        await registry.set_host_state(host.name, HostState.SUSPENDED, "abuse")
        await registry.set_host_state(host.name, HostState.PENDING, "resumed")
    else:
        await registry.remove_host(host.name)
        await registry.add_host(host.name, "acme")
    monkeypatch.setattr("brandproxy.resolver._TIMEOUT", 0.05)
    watcher.looker.resolver._fixed = (("127.0.0.1", 9),)  # and now DNS is away
    for _ in range(3):
        assert (await watcher.check(host.name))[0].state is HostState.PENDING
    await knot.put(host.name, "CNAME")


async def test_a_host_that_comes_back_after_its_certificate_ended_is_not_live(
    context: Context, knot: Knot
) -> None:
    host = await context.registry.add_host("old.acme.test", "acme", HostState.BROKEN)
    await knot.put(host.name, "CNAME", f"{host.target}.")
    ended = DevCA(context.settings.data).issue(host.name, time.time() - 200 * 86400)
    await Vault(context.store, open_seal(context.settings)).put(ended)
    watcher = Watcher(context)
    for _ in range(2):
        after, _ = await watcher.check(host.name)
    assert after.state is HostState.VERIFIED
    await knot.put(host.name, "CNAME")


async def test_a_slow_zone_holds_up_no_other(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = [await context.registry.add_host(f"h{n}.tarpit.test", "acme") for n in range(100)]
    quick = [await context.registry.add_host(f"links.c{n}.test", "acme") for n in range(5)]
    looks: list[str] = []

    async def check(self: Watcher, name: str) -> None:
        if name.endswith("tarpit.test"):
            await asyncio.sleep(60)
        looks.append(name)

    monkeypatch.setattr(Watcher, "check", check)
    await context.directory.load(context.store)
    async with watching(context):
        await asyncio.sleep(1.5)
    assert {host.name for host in quick} <= set(looks)
    assert len(slow) == 100


async def test_a_zone_slower_than_patience_is_no_vote(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brandproxy.onboarding.looking._LONGEST", 0.05)
    host = await context.registry.add_host("drip.acme.test", "acme", HostState.LIVE)
    watcher = Watcher(context)

    async def drip(*_: object) -> None:
        await asyncio.sleep(5)

    watcher.looker._observe = drip  # type: ignore[assignment]
    for _ in range(4):
        after, report = await watcher.check(host.name)
    assert (after.state, report.watch.verdict) == (HostState.LIVE, Verdict.UNKNOWN)
    assert [finding.code for finding in report.fatal] == ["dns-failing"]


async def test_looks_planned_by_a_clock_that_was_wrong_are_made_now(context: Context) -> None:
    host = await context.registry.add_host("clock.acme.test", "acme")
    await context.directory.load(context.store)
    ahead = Watcher(context, lambda: time.time() + 30 * 86400)
    await ahead.check(host.name)
    assert ahead._due_hosts() == []
    for node in (Watcher(context), ahead):
        node._now = time.time
        assert [due.name for due in node._due_hosts()] == [host.name]
    assert await node._claim(host)
