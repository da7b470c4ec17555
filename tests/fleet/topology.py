"""A fleet on one machine, as plain processes: edges, controls, collectors, Redis with a replica and Sentinels,
ClickHouse (chDB behind its HTTP interface). Everything on loopback and free ports; all of it ends with `stop`.

`python -m tests.fleet.topology` runs one until Ctrl-C, for a look by hand.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

from cryptography.fernet import Fernet

from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.engines.clickhouse import ClickHouseEngine
from brandproxy.model import HostState
from tests.conftest import free_port
from tests.redis_servers import Sentinels

ROOT = Path(__file__).parents[2]
TENANT, HOST = "acme", "links.acme.example"


@dataclass
class Process:
    """One node. Its data directory outlives it, as a machine's disk does."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    port: int
    log: Path
    code: Path = ROOT  # the checkout it runs
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    down_since: float | None = None
    up_since: float = 0.0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                self.command,
                cwd=self.code,
                env=dict(self.environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_up(self, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while not self._answers():
            assert self.child is None or self.child.poll() is None, (
                f"{self.name} ended: {self.log.read_text()[-2000:]}"
            )
            assert time.monotonic() < until, f"{self.name} does not answer: {self.log.read_text()[-2000:]}"
            time.sleep(0.05)
        self.up_since, self.down_since = time.monotonic(), None

    def kill(self) -> None:
        """As a power cut, for the process and its workers."""
        assert self.child is not None
        self.down_since = time.monotonic()
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def stop(self) -> None:
        if self.child is not None and self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGTERM)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()

    def _answers(self) -> bool:
        if not self.port:
            return True
        try:
            urlopen(Request(f"http://127.0.0.1:{self.port}/robots.txt", headers={"Host": HOST}), timeout=2)
        except OSError as error:  # an HTTP status is an answer too
            return hasattr(error, "code")
        return True


class Topology:
    def __init__(self, folder: Path, edges: int = 3, controls: int = 2, collectors: int = 2) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.redis = Sentinels(folder / "redis", "appendonly yes", "repl-diskless-sync-delay 0")
        port = free_port()
        self.clickhouse = Process(
            "clickhouse",
            [sys.executable, "-m", "tests.clickhouse_server", str(port), str(folder / "chdb")],
            os.environ, port, folder / "clickhouse.log",
        )  # fmt: skip
        self.engine_url = f"clickhouse://127.0.0.1:{port}/brandproxy"
        self.shared = {
            "BRANDPROXY_STORE": self.redis.url,
            "BRANDPROXY_MASTER_KEY": Fernet.generate_key().decode(),
            "BRANDPROXY_ANALYTICS_ENGINE": self.engine_url,
            "BRANDPROXY_EDGE_WORKERS": "1",
            "BRANDPROXY_CERTS_CA": "none",
        }
        self.edges = [self._node("edge", n, free_port()) for n in range(edges)]
        self.controls = [self._node("control", n, free_port()) for n in range(controls)]
        self.collectors = [self._node("collector", n, 0) for n in range(collectors)]

    @property
    def nodes(self) -> list[Process]:
        return [*self.edges, *self.controls, *self.collectors]

    def settings(self) -> Settings:
        """An operator's settings, for commands against the fleet."""
        return Settings(
            data=self.folder / "operator",
            store=self.redis.url,
            master_key=self.shared["BRANDPROXY_MASTER_KEY"],  # type: ignore[arg-type]
            analytics={"engine": self.engine_url},  # type: ignore[arg-type]
        )

    async def start(self) -> None:
        self.clickhouse.start()
        async with open_context(self.settings()) as context:
            await furnish(context)
        await asyncio.to_thread(self.clickhouse.wait_until_up)
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            await asyncio.to_thread(node.wait_until_up)

    def stop(self) -> None:
        for node in (*self.nodes, self.clickhouse):
            node.stop()
        self.redis.kill()

    def engine(self) -> ClickHouseEngine:
        return ClickHouseEngine(self.engine_url)

    def _node(self, role: str, number: int, port: int) -> Process:
        data = self.folder / f"{role}{number}"
        data.mkdir()
        own = {
            "BRANDPROXY_DATA": str(data),
            "BRANDPROXY_EDGE_HTTP": f"127.0.0.1:{port}",
            "BRANDPROXY_EDGE_HTTPS": f"127.0.0.1:{free_port()}",
            "BRANDPROXY_CONTROL_LISTEN": f"127.0.0.1:{port}",
        }
        clean = {key: value for key, value in os.environ.items() if not key.startswith("BRANDPROXY_")}
        command = [sys.executable, "-m", "brandproxy", "serve", "--role", role]
        return Process(f"{role}{number}", command, clean | self.shared | own, port, data / "log")


async def furnish(context: Context) -> None:
    await context.registry.add_tenant(TENANT)
    await context.registry.add_host(HOST, TENANT, HostState.LIVE)
    await context.directory.load(context.store)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        topology = Topology(Path(folder))
        try:
            asyncio.run(topology.start())
            for node in topology.nodes:
                print(node.name, node.port, node.log)
            signal.pause()
        except KeyboardInterrupt:
            pass
        finally:
            topology.stop()
