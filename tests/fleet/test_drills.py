"""The whole topology under load, while everything in it fails in turn: no fault reaches a recipient, and every
answered click is counted exactly once. The default size
suits every test run; the full one, which kills every node and takes five minutes, is

    make test ARGS=tests/fleet BRANDPROXY_DRILL=full
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
import pytest_asyncio

from brandproxy import blocks
from brandproxy.context import Context, open_context
from brandproxy.core.tokens import Click, KeyRing
from brandproxy.engines import Engine
from brandproxy.errors import Retryable
from brandproxy.model import BlockKind, HostState
from tests.fleet.load import Load, get
from tests.fleet.topology import HOST, TENANT, Process, Topology
from tests.redis_servers import FULL

RATE = 300.0 if FULL else 30.0  # clicks a second
SECONDS = 60.0 if FULL else 2.0  # that Redis is paused, and that its memory is full
BETWEEN = min(2.0, SECONDS / 4)  # seconds of calm between faults

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("fleet")]


@dataclass
class Fleet:
    topology: Topology
    context: Context
    engine: Engine


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    topology = Topology(tmp_path_factory.mktemp("fleet"))
    try:
        asyncio.run(topology.start())
        yield topology
    finally:
        topology.stop()


@pytest_asyncio.fixture
async def fleet(topology: Topology) -> AsyncIterator[Fleet]:
    engine = topology.engine()
    async with open_context(topology.settings()) as context:
        yield Fleet(topology, context, engine)
    await engine.close()


async def restart(node: Process) -> None:
    node.kill()
    await asyncio.sleep(BETWEEN)
    node.start()
    await asyncio.to_thread(node.wait_until_up)


async def kill_redis_master(topology: Topology) -> None:
    """Sentinels make the replica master; the old one comes back as its replica."""
    old = topology.redis.current()
    old.kill()
    async with asyncio.timeout(30):
        while topology.redis.current() is old:
            await asyncio.sleep(0.1)
    await asyncio.sleep(BETWEEN)
    await asyncio.to_thread(old.start)


async def pause_redis(topology: Topology, seconds: float) -> None:
    servers = [topology.redis.master, topology.redis.replica, *topology.redis.sentinels]
    for server in servers:
        server.pause()
    await asyncio.sleep(seconds)
    for server in servers:
        server.resume()


async def fill_memory(topology: Topology, seconds: float) -> None:
    servers = (topology.redis.master, topology.redis.replica)
    for server in servers:
        server.client().config_set("maxmemory", "1mb")
    await asyncio.sleep(seconds)
    for server in servers:
        server.client().config_set("maxmemory", "0")


async def counted(engine: Engine) -> dict[str, int]:
    rows = await engine.query(
        "SELECT recipient, count(*) FROM events WHERE campaign = $c GROUP BY recipient", {"c": "drill"}
    )
    return dict(rows)


async def test_no_fault_reaches_a_recipient_and_every_answered_click_counts_once(fleet: Fleet) -> None:
    topology = fleet.topology
    ring = fleet.context.directory.ring(TENANT)
    assert ring is not None
    load, stop = Load(topology.edges, ring, RATE), asyncio.Event()
    clicking = asyncio.create_task(load.run(stop))
    await asyncio.sleep(BETWEEN)
    for node in topology.nodes if FULL else (topology.edges[0], topology.controls[0], topology.collectors[0]):
        await restart(node)
        await asyncio.sleep(BETWEEN)
    await kill_redis_master(topology)
    await asyncio.sleep(BETWEEN)
    await pause_redis(topology, SECONDS)
    await asyncio.sleep(BETWEEN)
    await fill_memory(topology, SECONDS)
    await asyncio.sleep(BETWEEN)
    stop.set()
    await clicking
    assert load.failed == []
    found: dict[str, int] = {}
    until = time.monotonic() + 60 + 2 * SECONDS
    while not load.answered <= found.keys():
        missing = load.answered - found.keys()
        assert time.monotonic() < until, (
            f"{len(missing)} of {len(load.answered)} clicks missing: {sorted(missing)[:5]}"
        )
        await asyncio.sleep(0.5)
        with suppress(Retryable):
            found = await counted(fleet.engine)
    assert set(found.values()) == {1}
    slow = sorted(load.seconds)
    print(
        f"\n{len(load.answered)} clicks answered, {load.interrupted} interrupted by their edge's death,"
        f" 99th percentile {slow[int(len(slow) * 0.99)] * 1000:.0f} ms, slowest {slow[-1] * 1000:.0f} ms"
    )


async def everywhere(fleet: Fleet, status: int, token: str, what: str, host: str = HOST) -> float:
    """Seconds until every edge answers the click with `status`."""
    started = time.monotonic()
    for edge in fleet.topology.edges:
        while not (await get(edge.port, f"/c/{token}", host)).startswith(f"HTTP/1.1 {status}"):
            assert time.monotonic() - started < 20, f"{what} never reached {edge.name}"
            await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_changes_are_in_force_on_every_edge_within_two_seconds(fleet: Fleet) -> None:
    registry, took = fleet.context.registry, {}
    ring = fleet.context.directory.ring(TENANT)
    assert ring is not None

    async def changed(what: str, change: Awaitable[object], status: int, token: str) -> None:
        await change
        took[what] = await everywhere(fleet, status, token, what)

    async def round_of(name: str) -> None:
        link = ring.mint(Click("https://shop.example/", campaign=name))
        await everywhere(fleet, 302, link, "the start")
        block = await blocks.add(fleet.context.store, BlockKind.CAMPAIGN, name)
        took[f"{name}: block"] = await everywhere(fleet, 410, link, "block")
        await changed(f"{name}: unblock", blocks.remove(fleet.context.store, block.id), 302, link)

    await round_of("calm")
    await registry.add_tenant("globex")
    await registry.add_host("go.globex.example", "globex", HostState.LIVE)
    link = KeyRing((await registry.tenant("globex")).keys).mint(Click("https://shop.example/"))
    took["tenant and host"] = await everywhere(fleet, 302, link, "tenant and host", "go.globex.example")
    rotated = await registry.rotate_key(TENANT)
    fresh, newest = rotated.keys[0], KeyRing(rotated.keys)
    link = newest.mint(Click("https://shop.example/"))
    took["rotate"] = await everywhere(fleet, 302, link, "rotate")
    await changed("revoke", registry.revoke_key(TENANT, fresh.number), 410, link)
    await pause_redis(fleet.topology, SECONDS)
    await retried(lambda: fleet.context.store.put("audit/after", b"{}"))
    await round_of("healed")
    print("\n" + ", ".join(f"{what} {seconds * 1000:.0f} ms" for what, seconds in took.items()))
    assert max(took.values()) < 2, took


async def retried(call: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await call()
                return
            except Retryable:
                await asyncio.sleep(0.1)
