"""Real Redis for tests: one server, one behind Sentinel, a cluster; free ports, always stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.conftest import free_port, need_program

DEADLINE = 30.0
# BRANDPROXY_DRILL=full: every kind of Redis, every node killed, 300 clicks a second, pauses of a minute.
FULL = os.environ.get("BRANDPROXY_DRILL") == "full"


@dataclass
class Server:
    """One redis-server process. `options` are configuration lines without their dashes."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = 0
    sentinel: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> Server:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", 'save ""', *self.options]
        file = self.folder / "redis.conf"
        if not (self.sentinel and file.exists()):  # a Sentinel keeps its state in its configuration
            file.write_text("\n".join(line for line in lines if not (self.sentinel and line.startswith("save"))))
        with (self.folder / "log").open("ab") as log:
            program = [need_program("redis-server", "redis-server"), str(file)]
            self.process = subprocess.Popen(
                program + ["--sentinel"] * self.sentinel, stdout=log, stderr=log, start_new_session=True
            )
        until(lambda: self.client().ping(), f"redis-server on {self.port}: {self.folder / 'log'}")
        return self

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)

    def kill(self) -> None:
        """As a power cut: nothing is said to anybody."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)


def until(check, what: str, deadline: float = DEADLINE) -> None:  # type: ignore[no-untyped-def]
    """Wait until `check` is true; Redis errors mean not yet."""
    end = time.monotonic() + deadline
    while True:
        try:
            if check():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < end, f"gave up waiting for {what}"
        time.sleep(0.05)


class Sentinels:
    """A master with one replica, and three Sentinels that agree by two."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.master = Server(folder / "a", options).start()
        self.replica = Server(folder / "b", (*options, f"replicaof 127.0.0.1 {self.master.port}")).start()
        monitor = (
            f"sentinel monitor main 127.0.0.1 {self.master.port} 2",
            "sentinel down-after-milliseconds main 1000",
            "sentinel failover-timeout main 5000",
        )
        self.sentinels = [Server(folder / f"s{n}", monitor, sentinel=True).start() for n in range(3)]
        until(self._known, "Sentinels to know the replica and each other")

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{server.port}" for server in self.sentinels)
        return f"redis+sentinel://{places}/main/0"

    def client(self) -> redis.Redis:
        return self.current().client()

    def current(self) -> Server:
        _, port = self.sentinels[0].client().sentinel_get_master_addr_by_name("main")
        return self.master if int(port) == self.master.port else self.replica

    def kill(self) -> None:
        for server in (*self.sentinels, self.master, self.replica):
            server.kill()

    def _known(self) -> bool:
        states = [server.client().sentinel_master("main") for server in self.sentinels]
        return all(s["num-slaves"] == 1 and s["num-other-sentinels"] == 2 for s in states) and (
            self.replica.client().info("replication")["master_link_status"] == "up"
        )


class Cluster:
    """Three masters, no replicas."""

    def __init__(self, folder: Path) -> None:
        options = ("cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout 2000")
        self.nodes = [
            Server(folder / f"n{n}", (*options, f"cluster-port {free_port()}")).start() for n in range(3)
        ]
        bounds = [(0, 5460), (5461, 10922), (10923, 16383)]
        for epoch, (node, (first, last)) in enumerate(zip(self.nodes, bounds, strict=True), 1):
            node.client().execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            node.client().execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
        for node in self.nodes[1:]:
            bus = next(line.split()[1] for line in node.options if line.startswith("cluster-port"))
            self.nodes[0].client().execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
        until(self._agreed, "the cluster to form")

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def flush(self) -> None:
        for node in self.nodes:
            node.client().flushall()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def _agreed(self) -> bool:
        infos = [node.client().execute_command("CLUSTER INFO") for node in self.nodes]
        return all(i["cluster_state"] == "ok" and i["cluster_known_nodes"] == "3" for i in infos)
