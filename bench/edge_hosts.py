"""100,000 hosts on one edge: start-up, memory, and clicks on warm and cold certificates beside ten hosts.

A click here is a connection of its own with a full handshake; times are the client's. Certificates come from a
pool, hard-linked under each host's name: an edge builds and keeps a context of its own for each all the same.
`HOSTS` sets the number.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import quantiles

import psutil
import trustme

from bench.report import Row, show
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.tokens import Click, KeyRing
from brandproxy.model import Host, HostState, Tenant
from brandproxy.store import keys
from tests.conftest import free_port

HOSTS = int(os.environ.get("HOSTS", "100000"))
FEW, PER_TENANT, WARM, CLICKS = 10, 10, 1000, 1500


def main(argv: list[str]) -> None:
    rows: list[Row] = []
    base = 0.0
    for count in (FEW, HOSTS):
        with tempfile.TemporaryDirectory() as name:
            rows += measure(Path(name), count)
        memory = next(row.value for row in reversed(rows) if row.case == f"memory-{count}")
        if count == FEW:
            base = memory
        else:
            rows.append(Row("memory-per-host", (memory - base) * 1024 / count, "KiB/host", note="known, not warm"))
    few, many = (next(r.value for r in rows if r.case == f"warm-p99-{n}") for n in (FEW, HOSTS))
    rows.append(Row("warm-p99", many, "ms", f"{FEW} hosts", many / few))
    show("bench-edge-hosts", rows, argv)


def measure(folder: Path, count: int) -> list[Row]:
    tokens = asyncio.run(fill(folder, count))
    https = free_port()
    environment = os.environ | {
        "BRANDPROXY_DATA": str(folder),
        "BRANDPROXY_EDGE_HTTP": f"127.0.0.1:{free_port()}",
        "BRANDPROXY_EDGE_HTTPS": f"127.0.0.1:{https}",
        "BRANDPROXY_EDGE_WORKERS": "1",
    }
    code = "from brandproxy.config import load; from brandproxy.edge.workers import run; run(load())"
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"edge:")
        started = time.monotonic() - start
        (worker,) = psutil.Process(process.pid).children()
        memory = worker.memory_info().rss / 2**20
        draw = random.Random(1)
        cold = [click(https, n, tokens) for n in draw.sample(range(count), min(CLICKS, count))]
        few = draw.sample(range(count), min(WARM, count))
        for n in few:
            click(https, n, tokens)
        warm = [click(https, draw.choice(few), tokens) for _ in range(CLICKS)]
        grown = (worker.memory_info().rss / 2**20 - memory) * 1024 / min(CLICKS + WARM, count)
    finally:
        process.terminate()
        process.wait(30)
    note = f"{count:,} hosts, {len(tokens):,} tenants"
    return [
        Row(f"start-up-{count}", started, "s", note=note),
        Row(f"memory-{count}", memory, "MiB", note="one worker, no certificate warm"),
        Row(f"memory-warm-{count}", grown, "KiB/context", note="growth over the clicks by warmed hosts"),
        Row(f"cold-p99-{count}", p99(cold), "ms", note=f"median {quantiles(cold, n=2)[0]:.2f} ms"),
        Row(f"warm-p99-{count}", p99(warm), "ms", note=f"median {quantiles(warm, n=2)[0]:.2f} ms"),
    ]


def p99(samples: list[float]) -> float:
    return quantiles(samples, n=100)[98] if len(samples) > 1 else samples[0]


def host(number: int) -> str:
    return f"links{number}.tenant{number // PER_TENANT}.example"


def click(port: int, number: int, tokens: list[str]) -> float:
    """Milliseconds from connecting to the redirect."""
    start = time.perf_counter()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as raw:
        sock = context.wrap_socket(raw, server_hostname=host(number))
        token = tokens[number // PER_TENANT]
        sock.sendall(f"GET /c/{token} HTTP/1.1\r\nHost: {host(number)}\r\nConnection: close\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 302 ")
        sock.close()
    return (time.perf_counter() - start) * 1000


async def fill(folder: Path, count: int) -> list[str]:
    """Tenants, hosts and certificates; a click token for each tenant."""
    async with open_context(Settings(data=folder)) as context:
        first = await context.registry.add_tenant("first")
        entries = list(records(context, count, first))
    tokens = [token for token, _ in entries]
    with sqlite3.connect(folder / "store.db") as db:
        for _, rows in entries:
            db.executemany("INSERT INTO entry VALUES (?, ?, 1)", rows)
    pool = Path(folder / "pool")
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    for number in range(50):
        leaf = authority.issue_cert(f"*.tenant{number}.example", key_type=trustme.KeyType.ECDSA)
        (pool / str(number)).mkdir(parents=True)
        leaf.private_key_pem.write_to_path(pool / str(number) / "privkey.pem")
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        (pool / str(number) / "fullchain.pem").write_bytes(chain)
    for number in range(count):
        target = folder / "certs" / host(number)
        target.mkdir(parents=True)
        for name in ("fullchain.pem", "privkey.pem"):
            os.link(pool / str(number % 50) / name, target / name)
    return tokens


def records(context: Context, count: int, tenant: Tenant) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """(token, store rows) by tenant; all share one signing key, to spare time here"""
    codec = context.registry.codec
    token = KeyRing(tenant.keys).mint(Click("https://www.shop.example/", "spring", "m", "r", 1, 1_790_000_000))
    for number in range((count + PER_TENANT - 1) // PER_TENANT):
        slug = f"tenant{number}"
        rows = [(keys.tenant(slug), codec.dump(replace(tenant, slug=slug)))]
        for n in range(number * PER_TENANT, min(count, (number + 1) * PER_TENANT)):
            name = host(n)
            rows.append((keys.host(name), codec.dump(Host(name, slug, f"x{n}.edge.invalid", HostState.LIVE))))
        yield token, rows


if __name__ == "__main__":
    main(sys.argv[1:])
