"""Before every order: would the CA succeed? What we can see ourselves is never left for the CA to refuse.

1. the host's records are right, at its authoritative servers, now
2. CAA lets this CA issue, by this account and this kind of challenge
3. for HTTP-01: a probe, put in the store like a challenge, is answered at the host's public addresses
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

import httpx

from brandproxy.config import Settings
from brandproxy.core import caa
from brandproxy.core.findings import findings
from brandproxy.core.records import Observation, Verdict, reached, verdict
from brandproxy.errors import Final, Retryable
from brandproxy.model import Host
from brandproxy.onboarding import Looker
from brandproxy.store import Store, keys

_PATIENCE = 6.0  # seconds for a probe to reach all edges (they see changes within 2 s)
_TIMEOUT = 3.0


class NotReady(Final):
    """An order would fail. `code` is a finding's or `challenge-…`."""

    action = "See `brandproxy dns HOST`."

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class DnsUnknown(Retryable):
    """DNS did not answer; nothing is known, nothing is held against the host."""


class Preflight:
    def __init__(self, store: Store, settings: Settings, looker: Looker) -> None:
        self._store, self._settings, self._looker = store, settings, looker

    async def check(self, host: Host, issuer: caa.Issuer) -> None:
        """Raises NotReady with the reason, DnsUnknown."""
        seen = await self._looker.observe(host, [])
        decided = verdict(host, seen)
        if decided is Verdict.UNKNOWN:
            raise DnsUnknown(f"DNS of {host.name} does not answer")
        issuer = replace(issuer, method="dns-01" if host.zone else "http-01")
        for finding in findings(host, seen, issuer, self._settings.edge.domain):
            if finding.fatal:
                raise NotReady(f"{finding.sentence} {finding.fix}", finding.code)
        if not host.zone and self._settings.certs.self_check:
            await self._probe(host, seen)

    async def _probe(self, host: Host, seen: Observation) -> None:
        """Only our edge's own addresses are asked (or a proxy's before it), whatever else the records name."""
        token, answer = f"probe-{secrets.token_urlsafe(16)}", secrets.token_urlsafe(16)
        await self._store.put(keys.challenge(host.name, token), answer.encode())
        try:
            for address in reached(seen):
                await self._ask(host.name, address, token, answer)
        finally:
            await self._store.delete(keys.challenge(host.name, token))

    async def _ask(self, host: str, address: str, token: str, answer: str) -> None:
        at = f"[{address}]" if ":" in address else address
        port = self._settings.edge.public_http_port
        url = f"http://{at}:{port}/.well-known/acme-challenge/{token}"
        end = asyncio.get_running_loop().time() + _PATIENCE
        once = httpx.Limits(max_keepalive_connections=0)  # each look is answered on a connection of its own
        async with httpx.AsyncClient(timeout=_TIMEOUT, limits=once, trust_env=False) as client:
            while True:
                problem = await _fault(client, url, host, answer)
                if not problem:
                    return
                if asyncio.get_running_loop().time() > end:
                    raise NotReady(f"{host}: the challenge URL at {address} {problem[1]}", problem[0])
                await asyncio.sleep(0.3)


async def _fault(client: httpx.AsyncClient, url: str, host: str, answer: str) -> tuple[str, str] | None:
    body = b""
    try:
        async with (
            asyncio.timeout(_TIMEOUT),
            client.stream("GET", url, headers={"host": host, "accept-encoding": "identity"}) as got,
        ):
            async for chunk in got.aiter_raw():
                body += chunk
                if len(body) > len(answer):  # whoever answers it, we do not read on
                    break
    except (httpx.HTTPError, TimeoutError) as error:
        return "challenge-unreachable", f"does not answer: {type(error).__name__}"
    if body == answer.encode():
        return None
    return "challenge-hijacked", f"is answered by somebody else (status {got.status_code})"
