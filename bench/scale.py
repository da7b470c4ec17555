"""What a fleet costs, part by part, and how fast a node joins. `make bench-scale`; docs/scale.md explains.

Sizes: BRANDPROXY_SCALE_HOSTS (100,000), BRANDPROXY_SCALE_CERTS (100,000), BRANDPROXY_SCALE_EVENTS (100,000).
Redis is a real server, ClickHouse the real engine through chDB in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil

from bench.report import Row, show
from brandproxy import spool
from brandproxy.certs import Vault
from brandproxy.certs.copies import Folder, copy
from brandproxy.certs.devca import DevCA
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core import events
from brandproxy.core.tokens import Click
from brandproxy.engines import Engine, open_engine
from brandproxy.intake import open_intake
from brandproxy.model import Host, HostState
from brandproxy.relay import Shipper, StreamCollector
from brandproxy.spool import Spool
from brandproxy.store import keys
from brandproxy.store.seal import open_seal
from brandproxy.stream import Stream
from tests.conftest import free_port
from tests.fleet.topology import Process
from tests.redis_servers import Server

HOSTS = int(os.environ.get("BRANDPROXY_SCALE_HOSTS", "100000"))
CERTS = int(os.environ.get("BRANDPROXY_SCALE_CERTS", "100000"))
EVENTS = int(os.environ.get("BRANDPROXY_SCALE_EVENTS", "100000"))
TENANTS = max(1, HOSTS // 50)


class Timer:
    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def both(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


async def many(items: list[Callable[[], Awaitable[object]]], at_once: int = 64) -> None:
    todo = iter(items)

    async def work() -> None:
        for item in todo:
            await item()

    await asyncio.gather(*(work() for _ in range(at_once)))


def memory(server: Server) -> int:
    return int(server.client().info("memory")["used_memory"])


async def furnish(context: Context, server: Server) -> list[Row]:
    """Tenants, hosts and certificates, written as the registry and the vault write them."""
    rows, before, timer = [], memory(server), Timer()
    for number in range(TENANTS):
        await context.registry.add_tenant(f"t{number}")
    wall, _ = timer.both()
    rows.append(Row("store-write", 2 * TENANTS / wall, "writes/s", note="one client, one after the other"))
    rows.append(Row("redis-per-tenant", (memory(server) - before) / TENANTS, "bytes", note="with its audit entry"))
    before = memory(server)
    dump, put = context.registry.codec.dump, context.store.put
    hosts = [
        Host(f"links{n}.customer.example", f"t{n % TENANTS}", f"{n:016x}.edge.example", HostState.LIVE)
        for n in range(HOSTS)
    ]
    await many([lambda h=h: put(keys.host(h.name), dump(h)) for h in hosts])  # type: ignore[misc]
    rows.append(Row("redis-per-host", (memory(server) - before) / HOSTS, "bytes", note="without certificate"))
    before = memory(server)
    ca, vault = DevCA(context.settings.data), Vault(context.store, open_seal(context.settings))
    one = ca.issue("*.customer.example", time.time())  # as large as any, and made once
    made = [replace(one, host=hosts[n].name) for n in range(min(CERTS, HOSTS))]
    await many([lambda c=c: vault.put(c) for c in made])  # type: ignore[misc]
    rows.append(Row("redis-per-certificate", (memory(server) - before) / max(1, len(made)), "bytes"))
    return rows


async def join_as_edge(settings: Settings) -> list[Row]:
    """A new node as a real process, its disk empty: until any host's click is answered over TLS, and what a
    handshake takes while the certificates still go to its disk."""
    http, https, names = free_port(), free_port(), [f"links{n}.customer.example" for n in range(CERTS)]
    environment = os.environ | {
        "BRANDPROXY_DATA": str(settings.data),
        "BRANDPROXY_STORE": settings.store,
        "BRANDPROXY_EDGE_HTTP": f"127.0.0.1:{http}",
        "BRANDPROXY_EDGE_HTTPS": f"127.0.0.1:{https}",
        "BRANDPROXY_EDGE_WORKERS": "1",
    }
    command, timer = [sys.executable, "-m", "brandproxy", "serve", "--role", "edge"], Timer()
    edge = Process("edge", command, environment, http, settings.data / "log")
    edge.start()
    try:
        while not await asyncio.to_thread(shaken, https, names[-1]):
            await asyncio.sleep(0.05)
        rows = [Row("edge-join", timer.both()[0], "s", note="the last host's handshake, disk empty before")]
        took = []
        for name in random.Random(1).sample(names, min(300, CERTS)):
            timer = Timer()
            assert await asyncio.to_thread(shaken, https, name), name
            took.append(timer.both()[0] * 1000)
            await asyncio.sleep(0.02)
        took.sort()
        rows.append(Row("edge-join-handshake-p50", took[len(took) // 2], "ms", note="hosts never asked for"))
        rows.append(Row("edge-join-handshake-max", took[-1], "ms", note="while certificates go to disk"))
        while len(os.listdir(settings.certs_directory)) <= CERTS:  # `.versions` is there too
            await asyncio.sleep(1)
        made = max(path.stat(follow_symlinks=False).st_mtime for path in settings.certs_directory.iterdir())
        rows.append(Row("edge-join-all-on-disk", made - edge_started(edge), "s", note="in the background"))
    finally:
        edge.stop()
    return rows


def shaken(port: int, name: str) -> bool:
    """Whether a handshake for the host succeeds."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as raw, trust.wrap_socket(raw, server_hostname=name):
            return True
    except OSError:
        return False


def edge_started(edge: Process) -> float:
    assert edge.child is not None
    return psutil.Process(edge.child.pid).create_time()


async def join(settings: Settings, server: Server) -> list[Row]:
    """A new node: its copy of the store, its directory, its certificates on disk; then a start with Redis down."""
    rows, timer = [], Timer()
    async with open_context(settings, replica=True) as context:
        rows.append(Row("node-join", timer.both()[0], "s", note=f"{HOSTS} hosts, {CERTS} certificates"))
        timer = Timer()
        vault = Vault(context.store, open_seal(settings))
        await copy(vault, Folder(settings.certs_directory, lambda host: None))
        rows.append(Row("certificates-to-disk", timer.both()[0] / max(1, CERTS) * 1e6, "us/certificate"))
    size = sum(path.stat().st_size for path in settings.data.glob("replica.db*"))
    rows.append(Row("replica-per-host", size / HOSTS, "bytes on disk"))
    server.pause()
    timer = Timer()
    async with open_context(settings, replica=True) as context:
        assert len(context.directory.hosts()) == HOSTS
        rows.append(Row("node-start-redis-down", timer.both()[0], "s"))
    server.resume()
    return rows


def sibling(node: Settings, name: str) -> Settings:
    """Another node of the fleet, its disk empty but for the master key."""
    folder = node.data.with_name(name)
    folder.mkdir()
    (folder / "master.key").write_text((node.data / "master.key").read_text())
    return Settings(data=folder, store=node.store)


async def write_spool(context: Context, folder: Path) -> Row:
    """Stamped records with real tokens, as the edge writes them."""
    ring = context.directory.ring("t0")
    assert ring is not None
    draw, writer = random.Random(1), Spool(folder, "bench", "os")
    for number in range(EVENTS):
        url = f"https://shop.example/sale/{draw.randrange(500)}?utm_source=mail&utm_campaign=spring"
        token = ring.mint(Click(url, "spring", f"m{number % 50}", f"r{number % 20000}", number % 9, 1_700_000_000))
        agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"
        at = int(time.time() * 1e6)
        record = events.stamp(
            "c", at, draw.getrandbits(80), "t0", "links0.customer.example", "GET", "192.0.2.0", "", token, agent
        )
        await writer.append(record) if number % 1000 == 999 else writer.append(record)
    await writer.close()
    size = sum(segment.path.stat().st_size for segment in spool.segments(folder))
    return Row("spool-per-million", size / EVENTS, "MB", note="on each edge until stored")


async def carry(settings: Settings, server: Server, engine: Engine, folder: Path) -> list[Row]:
    rows, before, timer = [], memory(server), Timer()
    shipper = Shipper(folder, Stream(server.url))
    while await shipper.turn():
        pass
    _, cpu = timer.both()
    rows.append(Row("shipper-cpu-per-million", cpu / EVENTS * 1e6, "s", note="on the edges"))
    rows.append(Row("redis-per-million", (memory(server) - before) / EVENTS, "MB", note="only until stored"))
    collector, timer = StreamCollector(engine, Stream(server.url, "bench"), open_intake(settings)), Timer()
    while await collector.turn(wait_ms=10) or await collector.stream.waiting():
        pass
    wall, cpu = timer.both()
    rows.append(Row("collector-cpu-per-million", cpu / EVENTS * 1e6, "s", note="decode, judge, insert"))
    rows.append(Row("collector", EVENTS / wall, "events/s", note="one process, the engine beside it"))
    while spool.segments(folder):
        await shipper.turn()
    await shipper.stream.leave()
    await collector.stream.leave()
    return rows


async def main(argv: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder / "redis", ("appendonly yes",)).start()
        port = free_port()
        command = [sys.executable, "-m", "tests.clickhouse_server", str(port), str(folder / "chdb")]
        clickhouse = Process("clickhouse", command, os.environ, port, folder / "clickhouse.log")
        clickhouse.start()
        control = Settings(data=folder / "control", store=server.url)
        node = Settings(
            data=folder / "node",
            store=server.url,
            analytics={"engine": f"clickhouse://127.0.0.1:{port}/bench"},  # type: ignore[arg-type]
        )
        try:
            async with open_context(control) as context:
                rows = await furnish(context, server)
                (folder / "node").mkdir()
                (folder / "node" / "master.key").write_text((folder / "control" / "master.key").read_text())
                rows += await join_as_edge(sibling(node, "edge"))
                rows += await join(node, server)
                await context.directory.load(context.store)
                rows.append(await write_spool(context, folder / "spool"))
            clickhouse.wait_until_up()
            engine = open_engine(node)
            rows += await carry(node, server, engine, folder / "spool")
            size = await engine.query(
                "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'events'"
            )
            rows.append(
                Row(
                    "clickhouse-per-million", float(size[0][0]) / EVENTS, "MB", note="stored, replicas not counted"
                )
            )
            await engine.close()
        finally:
            clickhouse.stop()
            server.kill()
    show("scale", rows, argv)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
