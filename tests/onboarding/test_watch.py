"""Hosts follow their records by themselves, against a real DNS server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from brandproxy.context import Context
from brandproxy.core.records import Verdict
from brandproxy.model import HostState
from brandproxy.onboarding import Watcher
from brandproxy.store import keys
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
