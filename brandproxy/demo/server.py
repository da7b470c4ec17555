"""A server of the demo's own: `brandproxy serve` as a child, on free loopback ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from brandproxy.errors import Final

_PATIENCE = 30.0  # seconds until the ports must answer


class DemoFailed(Final):
    """A step of the demo did not hold; the message names it."""

    action = "See the log named above; report it with that log."


@dataclass(frozen=True, slots=True)
class Ports:
    http: int
    https: int
    control: int

    def environment(self) -> dict[str, str]:
        return {
            "BRANDPROXY_EDGE_HTTP": f"127.0.0.1:{self.http}",
            "BRANDPROXY_EDGE_HTTPS": f"127.0.0.1:{self.https}",
            "BRANDPROXY_EDGE_PUBLIC_HTTP_PORT": str(self.http),
            "BRANDPROXY_EDGE_PUBLIC_HTTPS_PORT": str(self.https),
            "BRANDPROXY_CONTROL_LISTEN": f"127.0.0.1:{self.control}",
        }


def choose_ports(known: bool) -> Ports:
    """Free ports; with `known` those that people remember, where they are free."""
    return Ports(*(free_port(port if known else 0) for port in (8080, 8443, 8090)))


class Server:
    """`with Server(data, ports):` runs the server for the block; Ctrl-C and errors end it too."""

    def __init__(self, data: Path, ports: Ports, environment: Mapping[str, str]) -> None:
        self.log = data / "demo" / "server.log"
        self._ports = ports
        self._environment = {**environment, **ports.environment(), "BRANDPROXY_PARENT": str(os.getpid())}
        self.child: subprocess.Popen[bytes]

    def __enter__(self) -> Server:
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "brandproxy", "serve"],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        waiting = [self._ports.http, self._ports.https, self._ports.control]
        while waiting:
            if self.child.poll() is not None:
                raise DemoFailed(f"the server ended at once; its log: {self.log}\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"the server does not answer on {waiting}; its log: {self.log}\n{tail(self.log)}")
            if "edge: " in self.log.read_text():  # its workers are ours and ready, whoever held the port before
                waiting = [port for port in waiting if not answers(port)]
            time.sleep(0.05)


def tail(path: Path, lines: int = 12) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def answers(port: int) -> bool:
    with _socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port(wanted: int = 0) -> int:
    """`wanted` when nobody has it, else any port of 127.0.0.1 that is free at this moment."""
    for port in (wanted, 0):
        with _socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoFailed("no free port on 127.0.0.1")


@contextmanager
def _socket() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(1)
        yield made
