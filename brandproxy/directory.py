"""The directory: tenants and hosts in memory, kept current from the store's change feed.

The edge and the filters ask it on their hot paths; a question is a dictionary look-up and never waits.
Invariant: what it answers is the newest state it has seen; with the store away it goes on answering from that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from brandproxy.config import Settings
from brandproxy.core.tokens import KeyRing
from brandproxy.errors import Retryable
from brandproxy.model import Host, HostState, Tenant
from brandproxy.store import Change, Store, keys
from brandproxy.store.base import CursorLost
from brandproxy.store.records import BROKEN, tell
from brandproxy.tenants import Codec

log = logging.getLogger(__name__)

_RANK = {HostState.LIVE: 0, HostState.VERIFIED: 1}


@dataclass(frozen=True, slots=True)
class Site:
    """A host with its tenant and the tenant's derived keys: all a click needs."""

    host: Host
    tenant: Tenant
    ring: KeyRing


class Directory:
    """`changed` is called with each Change after it took effect (certificates, blocks: others' keys too);
    `reloaded` when the feed had to be left and everything was read anew."""

    def __init__(self, codec: Codec, settings: Settings) -> None:
        self._codec = codec
        self._settings = settings
        self._edge = settings.edge
        self._tenants: dict[str, tuple[Tenant, KeyRing]] = {}
        self._hosts: dict[str, Host] = {}
        self._of_tenant: dict[str, dict[str, Host]] = {}
        self._sites: dict[str, Site] = {}  # made when first asked for, dropped with every change
        self._cursor = ""
        self.changed: list[Callable[[Change], None]] = []
        self.reloaded: list[Callable[[Store], Awaitable[None]]] = []

    def site(self, name: str) -> Site | None:
        """The site recipients reach under a lower-case host name; None when the name is not proven for anybody.

        A suspended host keeps its site: its links say that they were turned off.
        """
        site = self._sites.get(name)
        if site is None and (host := self._hosts.get(name)) and host.proven:
            site = self.claimed(name)
            if site is not None:
                self._sites[name] = site
        return site

    def claimed(self, name: str) -> Site | None:
        """The site of a host whether proven or not. Never what a recipient is answered from."""
        host = self._hosts.get(name)
        tenant = self._tenants.get(host.tenant) if host else None
        return Site(host, *tenant) if host and tenant else None

    def tenant(self, slug: str) -> Tenant | None:
        found = self._tenants.get(slug)
        return found and found[0]

    def ring(self, slug: str) -> KeyRing | None:
        found = self._tenants.get(slug)
        return found and found[1]

    def slugs(self) -> list[str]:
        """All tenants, by name."""
        return sorted(self._tenants)

    def hosts(self) -> list[Host]:
        return list(self._hosts.values())

    def base_url(self, slug: str) -> str | None:
        """Where a tenant's new links point (design §4, which host a link gets), or None: leave URLs alone.

        1. a live host: https
        2. a verified host, when the tenant allows plain http meanwhile
        3. the operator's fallback host
        """
        tenant = self.tenant(slug)
        if tenant is None:
            return None
        usable = [host for host in self._of_tenant.get(slug, {}).values() if host.state in _RANK]
        for host in sorted(usable, key=lambda host: (_RANK[host.state], host.created_at, host.name)):
            if host.state is HostState.LIVE:
                return https_url(host.name, self._edge.public_https_port)
            if tenant.policy.http_when_verified:
                return http_url(host.name, self._edge.public_http_port)
        if self._edge.fallback_host:
            return https_url(self._edge.fallback_host, self._edge.public_https_port)
        return None

    async def load(self, store: Store) -> None:
        """Read everything. Call before `follow`. What was known stays in force until the new state is whole."""
        cursor = await store.cursor()
        fresh = Directory(self._codec, self._settings)
        for number, entry in enumerate((*await store.list(keys.TENANT), *await store.list(keys.HOST))):
            fresh.apply(Change(cursor, entry.key, entry.value))
            if number % 200 == 0:
                await asyncio.sleep(0)  # a hundred thousand hosts take seconds; recipients do not wait for them
        self._tenants, self._hosts, self._of_tenant = fresh._tenants, fresh._hosts, fresh._of_tenant
        self._sites.clear()
        self._cursor = cursor
        for told in self.reloaded:
            await told(store)

    async def follow(self, store: Store) -> None:
        """Keep current for ever; survives a store that is away."""
        while True:
            try:
                async for change in store.watch("", self._cursor):
                    self._cursor = change.cursor
                    self.apply(change)
                    self._tell(change)
            except CursorLost:
                await self.load(store)
            except Retryable as error:
                log.warning("directory: store is away, answering from memory: %s", error)
                await asyncio.sleep(0.5)

    def _tell(self, change: Change) -> None:
        """One listener that stumbles over a record keeps no other, and no later change, from being heard."""
        for told in self.changed:
            try:
                told(change)
            except Exception:
                log.exception("directory: change of %s", change.key)

    def apply(self, change: Change) -> None:
        """One change into memory. A record that cannot be read is logged and left as it was."""
        try:
            if change.key.startswith(keys.TENANT):
                self._apply_tenant(change.key.removeprefix(keys.TENANT), change.value)
            elif change.key.startswith(keys.HOST):
                self._apply_host(change.key.removeprefix(keys.HOST), change.value)
        except BROKEN as error:
            tell(change.key, change.value or b"", error)

    def _apply_tenant(self, slug: str, value: bytes | None) -> None:
        self._sites.clear()
        if value is None:
            self._tenants.pop(slug, None)
            return
        tenant = self._codec.tenant(keys.tenant(slug), value)
        self._tenants[slug] = (tenant, KeyRing(tenant.keys, tenant.policy.token_max_age))

    def _apply_host(self, name: str, value: bytes | None) -> None:
        host = None if value is None else self._codec.host(keys.host(name), value)
        self._sites.pop(name, None)
        before = self._hosts.pop(name, None)
        if before is not None:
            self._of_tenant[before.tenant].pop(name, None)
        if host is not None:
            self._hosts[name] = host
            self._of_tenant.setdefault(host.tenant, {})[name] = host


def https_url(host: str, port: int) -> str:
    return f"https://{host}" if port == 443 else f"https://{host}:{port}"


def http_url(host: str, port: int) -> str:
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"
