"""The edge as an ASGI application: design §5's table, one branch a route.

`Edge.answer` decides without waiting; what waits (durability, assets, the store) stands in `__call__`'s branches.
Nothing of a query string, header or body ever reaches a `Location`: destinations come out of signed tokens.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from functools import lru_cache
from pathlib import Path

from starlette.types import Receive, Scope, Send

from brandproxy.blocks import KillList
from brandproxy.context import Context
from brandproxy.core import machines, tokens
from brandproxy.core.http_request import LONGEST_HOST, host_is_valid
from brandproxy.core.networks import Networks
from brandproxy.directory import Site
from brandproxy.edge import answers, unsubscribe
from brandproxy.edge.answers import Answer, Headers, Visit
from brandproxy.edge.assets import Assets
from brandproxy.edge.challenges import Challenges
from brandproxy.edge.links import Links
from brandproxy.errors import BadInput, BadSettings, SpoolFull
from brandproxy.model import HostState
from brandproxy.spool import Spool

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{1,256}")
_PURPOSES = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
LOCAL = "unix:"  # the peer of a connection on a unix socket: only a proxy of this machine may open it
DISK_PATIENCE = 10.0  # seconds an answer waits for a disk that hangs
MAX_AGENT = 512  # characters of a User-Agent that are kept
_LONGEST = 45  # characters of an address: IPv6 with IPv4 at its end


class Edge:
    """What recipients reach. `wishes` queues one-click unsubscribes; `trusted` are the networks whose
    X-Forwarded-For is believed."""

    def __init__(self, context: Context, spool: Spool, wishes: Spool, assets: Assets) -> None:
        self.context = context
        self.spool = spool
        self.wishes = wishes
        self.assets = assets
        self.links = Links(KillList(), _networks(context.settings.edge.machine_networks))
        self.challenges = Challenges(context.store)
        self.recent = unsubscribe.Recent()
        self.trusted = context.settings.edge.proxies

    async def load(self) -> None:
        """Read what the directory does not hold, and follow its changes."""
        store = self.context.store
        await self.links.kill.load(store)
        await self.challenges.load()
        await self.assets.load(store)
        self.context.directory.changed += [self.links.kill.apply, self.challenges.apply, self.assets.apply]
        self.context.directory.reloaded += [
            self.links.kill.load,
            lambda _store: self.challenges.load(),
            self.assets.load,
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = scope["headers"]
        if sum(name == b"host" for name, _ in headers) != 1:  # RFC 9112 §3.2
            await self.send(send, answers.plain(400, "Bad request\n"))
            return
        path = scope["raw_path"].decode("latin-1")
        peer = scope["client"][0] if scope.get("client") else ""
        told = b",".join([value for name, value in headers if name == b"x-forwarded-for"])
        visit = visit_of(scope["method"], headers, client_address(peer, told, self.trusted))
        site = self.context.directory.site(visit.host)
        if site is None or self.misdirected(site, scope.get("state", {}).get("sni")):
            await self.send(send, answers.misdirected() if site else answers.not_found())
            return
        parts = path.split("/")
        if path.startswith("/.well-known/acme-challenge/"):
            await self.send(send, await self._challenge(site, parts[-1]))
        elif parts[1] == "a" and len(parts) == 4:
            await self._asset(scope, receive, send, site, parts[2])
        elif parts[1] == "u" and len(parts) == 3 and visit.method == "POST":
            await self._unsubscribe(scope, receive, send, site, parts[2], visit)
        else:
            await self.send(send, self.answer(site, parts, visit))

    def answer(self, site: Site, parts: list[str], visit: Visit) -> Answer:
        """What GET and HEAD get on the routes that need no waiting but for the spool."""
        if visit.method not in ("GET", "HEAD"):
            return answers.not_allowed("GET, HEAD, POST" if parts[1] == "u" else "GET, HEAD")
        match parts[1:]:
            case ["c", token]:
                return self.links.click(site, token, visit)
            case ["o", file] if file.endswith(".gif"):
                return self.links.pixel(site, file.removesuffix(".gif"), visit)
            case ["u", token]:
                return self.links.unsubscribe_page(site, token)
            case _:
                return self._standing(site, parts[1:])

    def misdirected(self, site: Site, sni: str | None) -> bool:
        """Whether the TLS connection was opened for a name of another tenant (design §5: 421)."""
        if sni is None or sni == site.host.name:
            return False
        asked = self.context.directory.site(sni)
        return asked is None or asked.tenant.slug != site.tenant.slug

    async def send(self, send: Send, answer: Answer) -> None:
        """Record, then answer. A recipient is never refused because the spool is full."""
        if answer.record is not None:
            try:
                async with asyncio.timeout(DISK_PATIENCE):
                    await self.spool.append(answer.record)
            except SpoolFull:
                pass  # counted and alarmed by the spool
            except TimeoutError:
                log.error("edge: the disk does not follow; one answered before its record was written")
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.wire_headers()})
        await send({"type": "http.response.body", "body": answer.body})

    def _standing(self, site: Site, path: list[str]) -> Answer:
        tenant = site.tenant
        if path == ["robots.txt"]:
            return answers.plain(200, "User-agent: *\nDisallow: /\n")
        if site.host.state is HostState.SUSPENDED:
            return answers.gone(tenant.name)
        match path:
            case [".well-known", "apple-app-site-association"] if tenant.apple_app_site_association:
                return answers.plain(200, tenant.apple_app_site_association, b"application/json")
            case [".well-known", "assetlinks.json"] if tenant.assetlinks:
                return answers.plain(200, tenant.assetlinks, b"application/json")
            case [""]:
                return self.links.home(site)
            case _:
                return answers.not_found(tenant.name)

    async def _challenge(self, site: Site, token: str) -> Answer:
        """Only what was ordered for this very host is answered, so that nobody gets a certificate by way of it."""
        ordered = site.host.state is not HostState.SUSPENDED and _CHALLENGE.fullmatch(token)
        found = await self.challenges.get(site.host.name, token) if ordered else None
        if found is None:
            return answers.plain(404, "No such challenge\n")
        return Answer(200, ((b"content-type", b"application/octet-stream"), answers.NO_STORE), found)

    async def _asset(self, scope: Scope, receive: Receive, send: Send, site: Site, token: str) -> None:
        payload = self.links.open(site, "a", token)
        if isinstance(payload, Answer):
            await self.send(send, payload)
            return
        assert isinstance(payload, tokens.Asset)
        await self.assets.serve(scope, receive, send, site, payload)

    async def _unsubscribe(
        self, scope: Scope, receive: Receive, send: Send, site: Site, token: str, visit: Visit
    ) -> None:
        """RFC 8058: queued on disk, then answered in place; never a redirect (§3.1)."""
        payload = self.links.open(site, "u", token)
        if isinstance(payload, Answer):
            await self.send(send, payload)
            return
        assert isinstance(payload, tokens.Unsubscribe)
        body = await _body(receive)
        if body is None:
            return
        if not unsubscribe.is_one_click(body):
            await self.send(send, answers.plain(400, "Not a one-click unsubscribe\n"))
            return
        kind = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"content-type"), "")
        wish = self.recent.get(token, time.monotonic())
        fresh = wish is None
        try:
            async with asyncio.timeout(DISK_PATIENCE):
                if wish is None:
                    wish = self.wishes.append(unsubscribe.encode(payload.url, body, kind, time.time()))
                    self.recent.add(token, wish, time.monotonic())
                await wish
        except (SpoolFull, TimeoutError):
            # The one answer that asks to come again: this wish would be lost otherwise.
            await self.send(send, answers.plain(503, "Please try again\n"))
            return
        answer = answers.plain(202, "Unsubscribed\n")
        answer.record = self.links.record("u", site, token, visit) if fresh else None
        await self.send(send, answer)


def _networks(path: Path | None) -> Networks | None:
    """Raises BadSettings when the operator's list cannot be read."""
    if path is None:
        return None
    try:
        return Networks(path.read_text().splitlines())
    except (OSError, UnicodeDecodeError, BadInput) as error:
        raise BadSettings(f"edge.machine_networks: {path}: {error}") from error


async def _body(receive: Receive) -> bytes | None:
    """The whole body, None when it broke off; its size and duration are bounded by the connection."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


def host_name(value: bytes) -> str:
    """The name in a Host header, lower-case, without port and final dot (RFC 9110 §7.2); not valid: ""."""
    return _host_name(value) if len(value) <= LONGEST_HOST else ""


@lru_cache(maxsize=4096)
def _host_name(value: bytes) -> str:
    if not host_is_valid(value):
        return ""
    return value.partition(b":")[0].decode("latin-1").lower().rstrip(".")


def visit_of(method: str, headers: Headers, address: str) -> Visit:
    """The request as answers and records see it."""
    visit = Visit(method, "", address, "")
    for name, value in headers:
        if name == b"host":
            visit.host = host_name(value)
        elif name == b"user-agent":
            visit.agent = value[:MAX_AGENT].decode("latin-1")
        elif name in _PURPOSES and (b"prefetch" in value.lower() or b"preview" in value.lower()):
            visit.hints = machines.PREFETCH
    return visit


def client_address(peer: str, told: bytes, trusted: tuple[Network, ...]) -> str:
    """The client's address: the last one in X-Forwarded-For (`told`) that is not a proxy of ours.

    The list grows at its end, so what stands before the first foreign address is the client's own word and is
    never believed; from a peer that is not trusted none of it is. A peer on a unix socket is trusted.
    """
    if peer != LOCAL and not is_trusted(peer, trusted):
        return peer
    peer = "" if peer == LOCAL else peer
    for part in reversed(told.decode("latin-1").split(",")):
        address = part.strip()
        if address and not is_trusted(address, trusted):
            return address if _parsed(address) else peer
        peer = address or peer
    return peer


def is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    ip = _parsed(address) if trusted else None
    return ip is not None and any(ip in network for network in trusted)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    return _cached(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _cached(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
