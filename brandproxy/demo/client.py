"""A recipient and an analyst, as the demo plays them: real TLS to loopback, trusting only the demo's CA."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from brandproxy.demo.server import DemoFailed


class Recipient:
    """Follows links as a browser would, each on a connection of its own, but to loopback, and no redirect."""

    def __init__(self, ca: Path) -> None:
        self._trusting = ssl.create_default_context(cafile=str(ca))

    def get(self, url: str) -> httpx.Response:
        """GET with the link's own name in SNI and Host; the certificate must be valid for it."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with httpx.Client(verify=self._trusting, follow_redirects=False, trust_env=False, timeout=10) as http:
            return http.get(
                f"{parts.scheme}://127.0.0.1:{port}{parts.path}",
                headers={"Host": parts.netloc, "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0"},
                extensions={"sni_hostname": parts.hostname or ""},
            )

    def wait_for(self, url: str, patience: float = 5.0) -> None:
        """Until every edge worker shows a certificate for the link's name. Raises DemoFailed.

        Each answer may come from another worker, and a worker that has just refused the name does so for 0.2 s.
        """
        deadline = time.monotonic() + patience
        good = 0
        while good < 5:
            try:
                self.get(url)
                good += 1
            except httpx.TransportError as error:
                good = 0
                if time.monotonic() > deadline:
                    raise DemoFailed(f"{url}: {error}") from error
            time.sleep(0.1)


class Analyst:
    """Asks the control port's HTTP API."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    def ask(self, path: str, **query: str) -> Any:
        headers = {"Authorization": f"Bearer {self._key}"}
        with httpx.Client(trust_env=False, timeout=10) as http:
            answer = http.get(self._url + path, params=query, headers=headers)
        if answer.status_code != 200:
            raise DemoFailed(f"GET {path} answered {answer.status_code}: {answer.text[:200]}")
        return answer.json()

    def wait_for_events(self, message: str, count: int, patience: float = 15.0) -> list[dict[str, Any]]:
        """The events of one message, as soon as there are `count` of them. Raises DemoFailed."""
        deadline = time.monotonic() + patience
        while True:
            events: list[dict[str, Any]] = self.ask("/v1/analytics/events", message=message, machines="include")[
                "events"
            ]
            if len(events) >= count:
                return events
            if time.monotonic() > deadline:
                raise DemoFailed(f"{count} events expected in analytics, seen {len(events)} in {patience:.0f} s")
            time.sleep(0.1)
