"""Real parts on loopback for tests: an authoritative DNS server (knot), a CA (pebble)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from brandproxy.dnsupdate import Updater
from tests.conftest import free_port, need_program

KEY = "tests:hmac-sha256:c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMyYnk="


class Knot:
    """One knot with these zones, changed by updates. `*.edge.test` leads to 127.0.0.1."""

    def __init__(self, folder: Path, zones: tuple[str, ...] = ("test",)) -> None:
        self.port = free_port()
        self._folder = folder
        (folder / "db").mkdir(parents=True)
        name, algorithm, secret = KEY.split(":")
        for zone in zones:
            text = f"$ORIGIN {zone}.\n@ 5 SOA ns.{zone}. root.{zone}. 1 60 60 600 5\n"
            text += f"@ 5 NS ns.{zone}.\nns 5 A 127.0.0.1\n"
            if zone == "test":
                text += "*.edge 5 A 127.0.0.1\n"
            (folder / f"{zone}.zone").write_text(text)
        listed = "".join(f"  - domain: {zone}\n    file: {zone}.zone\n    acl: all\n" for zone in zones)
        (folder / "knot.conf").write_text(
            f"server:\n  listen: 127.0.0.1@{self.port}\n  rundir: {folder}\n  user: root\n"
            "  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n"
            f"log:\n  - target: {folder}/log\n    any: warning\n"
            f"database:\n  storage: {folder}/db\n"
            f"key:\n  - id: {name}\n    algorithm: {algorithm}\n    secret: {secret}\n"
            f"acl:\n  - id: all\n    key: {name}\n    action: update\n"
            f"template:\n  - id: default\n    storage: {folder}\n    zonefile-sync: -1\nzone:\n{listed}"
        )
        self.updater = Updater(("127.0.0.1", self.port), KEY)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        program = need_program("knotd", "knot")
        self._process = subprocess.Popen(
            [program, "-c", self._folder / "knot.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def put(self, name: str, kind: str, *values: str) -> None:
        """Exactly these records at the name (in `test.`)."""
        await self.updater.replace("test", name, kind, *values)


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 15) -> None:
    """Until something accepts TCP there. Fails when the process ends instead."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process group that was started with its own session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
