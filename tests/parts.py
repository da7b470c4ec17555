"""Real parts on loopback for tests: an authoritative DNS server (knot), a CA (pebble)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import trustme

from brandproxy.context import Context
from brandproxy.dnsupdate import Updater
from brandproxy.model import Host, HostState
from brandproxy.resolver import Resolver
from tests.conftest import free_port, need_program

EAB_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
KEY = "tests:hmac-sha256:c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMyYnk="


class Knot:
    """One knot with these zones, changed by updates. `*.edge.test` leads to 127.0.0.1."""

    def __init__(self, folder: Path, zones: tuple[str, ...] = ("test",), signed: tuple[str, ...] = ()) -> None:
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
        listed = "".join(
            f"  - domain: {zone}\n    file: {zone}.zone\n    acl: all\n"
            + ("    dnssec-signing: on\n" if zone in signed else "")
            for zone in zones
        )
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

    async def look(self, name: str, kind: str) -> tuple[str, ...]:
        return (await Resolver((("127.0.0.1", self.port),)).look(name, kind)).values


class Unbound:
    """A validating resolver that finds these zones at this port. `anchors`: DS or DNSKEY records it trusts."""

    def __init__(self, folder: Path, dns_port: int, zones: tuple[str, ...], anchors: tuple[str, ...] = ()) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self._conf = folder / "unbound.conf"
        stubs = "".join(f"stub-zone:\n  name: {zone}\n  stub-addr: 127.0.0.1@{dns_port}\n" for zone in zones)
        trusted = "".join(f"  trust-anchor: '{anchor}'\n" for anchor in anchors)
        self._conf.write_text(
            f"server:\n  interface: 127.0.0.1\n  port: {self.port}\n  do-daemonize: no\n  use-syslog: no\n"
            f'  username: ""\n  chroot: ""\n  pidfile: ""\n  directory: "{folder}"\n  logfile: "{folder}/log"\n'
            '  module-config: "validator iterator"\n  do-not-query-localhost: no\n  do-ip6: no\n'
            f'  local-zone: "test." nodefault\n{trusted}{stubs}'
            "remote-control:\n  control-enable: no\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        program = need_program("unbound", "unbound")
        self._process = subprocess.Popen([program, "-c", self._conf])
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


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


async def until_state(context: Context, name: str, state: HostState, seconds: float = 30) -> Host:
    """The host, as soon as it is in this state."""
    async with asyncio.timeout(seconds):
        while (host := await context.registry.host(name)).state is not state:
            await asyncio.sleep(0.05)
    return host


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process group that was started with its own session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class Pebble:
    """A CA of Let's Encrypt's makers, as strict as it comes: nonces rejected now and then, validation slow."""

    def __init__(
        self,
        folder: Path,
        dns: str,
        http_port: int,
        sleep: bool = False,
        nonces: int = 5,
        eab: bool = False,
        always_valid: bool = False,
        lifetime: int = 0,
    ) -> None:
        folder.mkdir(parents=True)
        self.port, self._management = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}/dir"
        self.trust = folder / "trust.pem"
        self._folder, self._dns = folder, dns
        self._environment = {"PEBBLE_WFE_NONCEREJECT": str(nonces), "PEBBLE_VA_NOSLEEP": "" if sleep else "1"}
        self._environment["PEBBLE_VA_ALWAYS_VALID"] = "1" if always_valid else ""
        self._environment["PEBBLE_VA_SLEEPTIME"] = "3"  # seconds at most; 15 by default
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(self.trust))
        listener = ca.issue_cert("127.0.0.1", "localhost")
        listener.private_key_pem.write_to_path(str(folder / "key.pem"))
        listener.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(folder / "cert.pem"),
            "privateKey": str(folder / "key.pem"),
            "httpPort": http_port,
            "tlsPort": free_port(),
            "externalAccountBindingRequired": eab,
            "externalAccountMACKeys": {
                "kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
            },
        }
        if lifetime:  # seconds; five years by default
            settings["certificateValidityPeriod"] = lifetime
        (folder / "config.json").write_text(json.dumps({"pebble": settings}))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = need_program("pebble", "pebble")
        environment = {**os.environ, **{name: value for name, value in self._environment.items() if value}}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-config", self._folder / "config.json", "-dnsserver", self._dns, "-strict"],
                stdout=log, stderr=log, env=environment,
            )  # fmt: skip
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def root(self) -> str:
        """The root that its leaves chain to, PEM; a new one at each start."""
        trusting = ssl.create_default_context(cafile=str(self.trust))
        return httpx.get(f"https://127.0.0.1:{self._management}/roots/0", verify=trusting).text


class ChallengeServer:
    """Stands in for the edge: answers HTTP-01 from `answers(token)` on 127.0.0.1."""

    def __init__(self, answers: Callable[[str], Awaitable[bytes | None]]) -> None:
        self.port = free_port()
        self._answers = answers
        self.asked = 0

    async def __aenter__(self) -> ChallengeServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            self.asked += 1
            found = await self._answers(line.rpartition("/")[2])
            status, body = ("200 OK", found) if found is not None else ("404 Not Found", b"not here")
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
