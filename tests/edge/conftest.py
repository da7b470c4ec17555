"""A real edge in its own processes, on free ports, with certificates of a test CA."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
import trustme

from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core import events
from brandproxy.core.tokens import KeyRing, Payload
from brandproxy.model import Event, HostState
from brandproxy.spool import read, segments
from tests.conftest import free_port

RUN = "from brandproxy.config import load; from brandproxy.edge.workers import run; run(load())"
HOST, OTHER = "links.acme.example", "go.globex.example"


@dataclass
class RunningEdge:
    """`http` and `https` are ports; `rings` mint tokens by tenant; `change` runs work on the store."""

    data: Path
    http: int
    https: int
    ca: trustme.CA
    rings: dict[str, KeyRing]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    output: list[bytes] = field(default_factory=list)

    def start(self, command: Sequence[str] = ("-c", RUN), stderr: IO[bytes] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command], env=self.environment, stdout=subprocess.PIPE, stderr=stderr
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(b"edge:"), line

    def stop(self, signum: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signum)
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    def settings(self) -> Settings:
        return Settings(data=self.data)

    def change(self, work: Callable[[Context], object]) -> None:
        async def run() -> None:
            async with open_context(self.settings()) as context:
                await work(context)  # type: ignore[misc]

        asyncio.run(run())

    def token(self, payload: Payload, tenant: str = "acme") -> str:
        return self.rings[tenant].mint(payload)

    def events(self) -> list[Event]:
        found = segments(self.data / "spool")
        decoded = [events.decode(record) for segment in found for record in read(segment).records]
        return sorted(decoded, key=lambda event: event.at_us)  # two workers, two segments

    def client_tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


def prepare(data: Path, workers: int = 1, **extra: str) -> RunningEdge:
    """Two tenants with a host and a certificate each; nothing started."""
    http, https = free_port(), free_port()
    environment = os.environ | {
        "BRANDPROXY_DATA": str(data),
        "BRANDPROXY_EDGE_HTTP": f"127.0.0.1:{http}",
        "BRANDPROXY_EDGE_HTTPS": f"127.0.0.1:{https}",
        "BRANDPROXY_EDGE_WORKERS": str(workers),
        **extra,
    }
    edge = RunningEdge(data, http, https, trustme.CA(), {}, environment)

    async def fill(context: Context) -> None:
        for tenant, host in (("acme", HOST), ("globex", OTHER)):
            await context.registry.add_tenant(tenant, tenant.title())
            await context.registry.add_host(host, tenant, HostState.LIVE)
            edge.rings[tenant] = KeyRing((await context.registry.tenant(tenant)).keys)

    edge.change(fill)
    for host in (HOST, OTHER):
        write_certificate(edge, host)
    return edge


def write_certificate(edge: RunningEdge, host: str) -> None:
    folder = edge.settings().certs_directory / host
    folder.mkdir(parents=True, exist_ok=True)
    leaf = edge.ca.issue_cert(host)
    leaf.private_key_pem.write_to_path(folder / "privkey.pem")
    (folder / "fullchain.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))


def eventually(check: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether `check` comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError, OSError):
            if check():
                return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    running = prepare(tmp_path_factory.mktemp("edge"), workers=2)
    running.start()
    yield running
    running.stop()
