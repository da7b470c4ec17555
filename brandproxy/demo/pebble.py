"""A real ACME CA for the demo, when Debian's `pebble` is installed: it issues what a public CA would, by the same
protocol, after asking the demo's own edge for the HTTP-01 challenge. Its DNS side holds the customer's CNAME.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import httpx

from brandproxy.certs.devca import DevCA
from brandproxy.demo.server import DemoFailed, answers, free_port, tail

_PATIENCE = 15.0  # seconds until both programs answer


def installed() -> bool:
    return all(shutil.which(name) for name in ("pebble", "pebble-challtestsrv"))


class Pebble:
    """`with Pebble(data, http_port):` the CA validates at `http_port`; `environment` points a server at it."""

    def __init__(self, data: Path, http_port: int) -> None:
        self._folder = data / "demo" / "pebble"
        self._data, self._http_port = data, http_port
        self._acme, self._roots, self._dns, self._records = (free_port() for _ in range(4))
        self._running = ExitStack()

    @property
    def environment(self) -> dict[str, str]:
        """Settings for a server of this CA. Its certificates are worth nothing, so its limits are lifted."""
        settings = {
            "EDGE_DOMAIN": "edge.localhost",
            "CERTS_CA": f"https://localhost:{self._acme}/dir",
            "CERTS_ACME_TRUST": str(self._data / "dev-ca.pem"),
            "DNS_SERVERS": f"127.0.0.1:{self._dns}",
            "DNS_PENDING_SECONDS": "0.5",
        }
        limits = dict.fromkeys(("ORDERS_LIMIT", "DOMAIN_LIMIT", "SET_LIMIT", "FAILURE_LIMIT"), "1000000")
        named = settings | {f"CERTS_{name}": value for name, value in limits.items()}
        return {f"BRANDPROXY_{name}": value for name, value in named.items()}

    def __enter__(self) -> Pebble:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._run(
                ["pebble-challtestsrv", "-dns01", f"127.0.0.1:{self._dns}", "-http01", "", "-https01", "",
                 "-tlsalpn01", "", "-management", f"127.0.0.1:{self._records}", "-defaultIPv6", ""],
                self._records,
            )  # fmt: skip
            self._run(["pebble", "-config", self._configure(), "-dnsserver", f"127.0.0.1:{self._dns}"], self._acme)
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def publish(self, host: str, target: str) -> None:
        """What the customer does: create the CNAME."""
        body = {"host": host + ".", "target": target + "."}
        httpx.post(f"http://127.0.0.1:{self._records}/set-cname", json=body, trust_env=False).raise_for_status()

    def save_root(self, path: Path) -> None:
        """The root its leaves chain to, new at each start, as PEM."""
        trusting = ssl.create_default_context(cafile=str(self._data / "dev-ca.pem"))
        with httpx.Client(verify=trusting, trust_env=False) as client:
            path.write_text(client.get(f"https://localhost:{self._roots}/roots/0").raise_for_status().text)

    def _configure(self) -> str:
        listener = DevCA(self._data).issue("localhost", time.time())
        (self._folder / "cert.pem").write_text(listener.chain)
        with os.fdopen(
            os.open(self._folder / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as file:
            file.write(listener.key)
        settings = {
            "listenAddress": f"127.0.0.1:{self._acme}",
            "managementListenAddress": f"127.0.0.1:{self._roots}",
            "certificate": str(self._folder / "cert.pem"),
            "privateKey": str(self._folder / "key.pem"),
            "httpPort": self._http_port,
            "tlsPort": free_port(),
        }
        path = self._folder / "config.json"
        path.write_text(json.dumps({"pebble": settings}))
        return str(path)

    def _run(self, command: list[str], port: int) -> None:
        path = self._folder / f"{command[0]}.log"
        with path.open("wb") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PEBBLE_VA_NOSLEEP": "1"},
            )  # fmt: skip
        self._running.callback(child.wait)
        self._running.callback(child.kill)
        deadline = time.monotonic() + _PATIENCE
        while not answers(port):
            if child.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"{command[0]} does not answer; its log: {path}\n{tail(path)}")
            time.sleep(0.02)
