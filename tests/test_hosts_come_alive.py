"""`host add`, records put in DNS, HTTPS by the CA's chain: with no other command, on real parts.

The drill with several control nodes takes its size from BRANDPROXY_DRILL_HOSTS (default 12; the full size is 500).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Verifier

from brandproxy.certs.vault import facts
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.model import HostState
from brandproxy.store import keys
from brandproxy.webhooks.book import Book
from tests.conftest import free_port
from tests.parts import Knot, Pebble, end, wait_for_port
from tests.receiver import Receiver, receiver
from tests.redis_servers import Server

__all__ = ["receiver"]

_HOSTS = int(os.environ.get("BRANDPROXY_DRILL_HOSTS", "12"))
_TENANTS = 10
_MASTER = "ZHJpbGwtZHJpbGwtZHJpbGwtZHJpbGwtZHJpbGwtMzI="


class World:
    """One data directory with its edge; Pebble rejects nonces, and validates slowly where `sleep`."""

    def __init__(self, folder: Path, sleep: bool) -> None:
        self.folder, self.http, self.https = folder, free_port(), free_port()
        self.knot = Knot(folder / "knot")
        self.pebble = Pebble(folder / "pebble", self.knot.server, self.http, sleep=sleep)
        self.environment: dict[str, str] = {
            **os.environ,
            "BRANDPROXY_DATA": str(folder / "data"),
            "BRANDPROXY_EDGE_DOMAIN": "edge.test",
            "BRANDPROXY_EDGE_HTTP": f"127.0.0.1:{self.http}",
            "BRANDPROXY_EDGE_HTTPS": f"127.0.0.1:{self.https}",
            "BRANDPROXY_EDGE_PUBLIC_HTTP_PORT": str(self.http),
            "BRANDPROXY_EDGE_PUBLIC_HTTPS_PORT": str(self.https),
            "BRANDPROXY_EDGE_WORKERS": "1",
            "BRANDPROXY_DNS_SERVERS": self.knot.server,
            "BRANDPROXY_DNS_PENDING_SECONDS": "1",
            "BRANDPROXY_CERTS_CA": self.pebble.url,
            "BRANDPROXY_CERTS_ACME_TRUST": str(self.pebble.trust),
            "BRANDPROXY_CERTS_CAA": "pebble.test",
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.waiting: list[tuple[int, subprocess.Popen[bytes]]] = []
        self.redis: Server | None = None

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        with (self.folder / "serve.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "brandproxy", "serve", *arguments],
                env={**self.environment, **more}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def control(self) -> subprocess.Popen[bytes]:
        """A control node: one of several on the same Redis, each with a data directory of its own."""
        port = free_port()
        own = {
            "BRANDPROXY_CONTROL_LISTEN": f"127.0.0.1:{port}",
            "BRANDPROXY_DATA": str(self.folder / f"node-{port}"),
        }
        process = self.start("--role", "control", **own)
        self.waiting.append((port, process))
        return process

    def wait(self) -> None:
        for port, process in self.waiting:
            wait_for_port(port, process, 60)

    def run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "brandproxy", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, check=True, text=True).stdout

    def use_redis(self) -> Settings:
        """The store of a fleet; the settings to open it with."""
        self.redis = Server(self.folder / "redis").start()
        self.environment |= {"BRANDPROXY_STORE": self.redis.url, "BRANDPROXY_MASTER_KEY": _MASTER}
        data = self.folder / "drill"
        return Settings(data=data, store=self.redis.url, master_key=_MASTER, edge={"domain": "edge.test"})

    def stop(self) -> None:
        for process in self.processes:
            end(process)
        self.pebble.stop()
        self.knot.stop()
        if self.redis:
            self.redis.kill()


def world_of(folder: Path, sleep: bool) -> Iterator[World]:
    world = World(folder, sleep)
    world.knot.start()
    world.pebble.start()
    try:
        yield world
    finally:
        world.stop()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[World]:
    yield from world_of(tmp_path, sleep=True)


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[World]:
    yield from world_of(tmp_path, sleep=False)


async def test_from_host_add_to_https_verified_by_curl(slow: World, receiver: Receiver) -> None:
    control = free_port()
    slow.environment["BRANDPROXY_OUTBOUND_ALLOW"] = "127.0.0.1"
    secret = slow.run("webhook", "add", receiver.url, "--kind", "host", "--kind", "certificate").split()[-1]
    slow.start(BRANDPROXY_CONTROL_LISTEN=f"127.0.0.1:{control}")
    slow.run("tenant", "add", "acme")
    began = time.monotonic()
    host = json.loads(slow.run("host", "add", "links.acme.test", "--tenant", "acme", "--json"))
    await slow.knot.put(host["name"], "CNAME", f"{host['target']}.")
    root = slow.folder / "root.pem"
    root.write_text(slow.pebble.root())
    curl = shutil.which("curl")
    assert curl
    command = [
        curl, "-sS", "--cacert", root, "--resolve", f"{host['name']}:{slow.https}:127.0.0.1", "-o", "/dev/null",
        "-w", "%{http_code} %{ssl_verify_result}", f"https://{host['name']}:{slow.https}/robots.txt",
    ]  # fmt: skip
    while time.monotonic() < began + 60:
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        await asyncio.sleep(0.25)
    took = time.monotonic() - began
    assert (done.returncode, done.stdout) == (0, "200 0"), done.stderr
    print(f"HTTPS after {took:.1f} s")
    assert took < 30
    assert json.loads(slow.run("host", "show", host["name"], "--json"))["state"] == "live"
    async with asyncio.timeout(10):
        while len(receiver.got) < 4:
            await asyncio.sleep(0.1)
    told = [Verifier(secret).verify(body, headers)["type"] for headers, body in receiver.got]
    assert [kind for kind in told if kind != "certificate.issued"] == [
        "host.pending",
        "host.verified",
        "host.live",
    ]
    assert told.count("certificate.issued") == 1


@pytest.mark.timeout(400)
async def test_three_nodes_order_each_certificate_once_though_one_is_killed(
    quick: World, receiver: Receiver
) -> None:
    quick.environment["BRANDPROXY_CERTS_ORDERS_LIMIT"] = str(_HOSTS * 2)
    quick.environment["BRANDPROXY_CERTS_DOMAIN_LIMIT"] = str(max(50, _HOSTS))
    quick.environment["BRANDPROXY_OUTBOUND_ALLOW"] = "127.0.0.1"
    async with open_context(quick.use_redis(), actor="drill") as context:
        await Book(context).add("", receiver.url, ("host",), machines=False)
        for number in range(_TENANTS):
            await context.registry.add_tenant(f"t{number}")
        quick.start("--role", "edge")
        nodes = [quick.control() for _ in range(3)]
        quick.wait()
        began = time.monotonic()
        for number in range(_HOSTS):
            tenant = f"t{number % _TENANTS}"
            host = await context.registry.add_host(f"links.c{number}.test", tenant)
            await quick.knot.put(host.name, "CNAME", f"{host.target}.")
        await certified(context, _HOSTS // 3)
        end(random.choice(nodes))
        await certified(context, _HOSTS)
        await all_live(context)
        print(f"{_HOSTS} hosts live after {time.monotonic() - began:.0f} s")
        await all_told(receiver)
        print(f"all told after {time.monotonic() - began:.0f} s")
        assert [
            entry.key for entry in await context.store.list("acme/host/") if b'"failures":0' not in entry.value
        ] == []
    log = quick.pebble.log()
    ordered, issued = log.count("Added order"), log.count("Issued certificate")
    print(f"orders {ordered}, certificates {issued}")
    assert issued == _HOSTS
    # An order is lost only when the node died between the CA's answer and the note of it.
    assert _HOSTS <= ordered <= _HOSTS + 8


async def all_told(receiver: Receiver) -> None:
    """Each host's changes arrived, in order; a repetition is known by its id."""
    async with asyncio.timeout(60 + _HOSTS / 5):
        while True:
            told: dict[str, dict[str, str]] = {}
            for headers, body in receiver.got:
                message = json.loads(body)
                told.setdefault(message["data"]["host"], {}).setdefault(headers["webhook-id"], message["type"])
            if len(told) == _HOSTS and all("host.live" in kinds.values() for kinds in told.values()):
                break
            await asyncio.sleep(0.5)
    for host, kinds in told.items():
        assert list(kinds.values()) == ["host.pending", "host.verified", "host.live"], host
    print(f"{len(receiver.got)} webhook messages for {3 * _HOSTS} changes")


async def certified(context: Context, number: int) -> None:
    async with asyncio.timeout(150 + _HOSTS * 2):  # one request the CA leaves unanswered, and the minute behind it
        while True:
            entries = await context.store.list(keys.CERT)
            if sum(facts(entry.value) is not None for entry in entries) >= number:
                return
            await asyncio.sleep(0.2)


async def all_live(context: Context) -> None:
    async with asyncio.timeout(60):
        while {host.state for host in await context.registry.hosts()} != {HostState.LIVE}:
            await asyncio.sleep(0.2)
