"""Random histories: whatever tenants, operators, the primary and crashes do in whatever order, nothing that was
published by or for a former holder stays usable, and no name is ever given to two.

`BRANDPROXY_HISTORIES=1000` runs that many; the suite a few.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core import dkim
from brandproxy.core.records import NOTHING, Seen
from brandproxy.core.senders import Sending, mail_records, selector_name
from brandproxy.dnsupdate import UpdateAway
from brandproxy.errors import BrandproxyError, Conflict
from brandproxy.model import SenderState
from brandproxy.onboarding.dkim import PublicKeys
from brandproxy.resolver import Resolver
from brandproxy.senders import mail_names
from brandproxy.senders.publication import Publication
from brandproxy.senders.watch import SenderWatch
from brandproxy.store import keys

HISTORIES = int(os.environ.get("BRANDPROXY_HISTORIES", "12"))
STEPS = 40
SLUGS, DOMAINS, SELECTORS = ("acme", "beta", "gamma"), ("acme.example", "shop.example"), ("bp1", "bp2")
ZONE, BOUNCES = "dkim.esp.example", "bounces.esp.example"


class Crash(Exception):
    """The process died here."""


@dataclass
class World:
    """DNS as all see it, the primary that may be away, and what was ever given to whom."""

    random: random.Random
    dns: dict[tuple[str, str], str] = field(default_factory=dict)
    away: bool = False
    given: dict[str, tuple[str, str]] = field(default_factory=dict)  # label -> tenant, domain
    published: dict[str, str] = field(default_factory=dict)  # key -> label it was published for
    updates: int = 0  # records that were ever made
    fuse: int = -1  # store writes until the process dies; negative: it lives

    async def replace(self, zone: str, name: str, kind: str, *values: str) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise UpdateAway("away")
        self.dns.pop((name, kind), None)
        if values:
            self.updates += 1
            self.dns[name, kind] = values[0].strip('"').rstrip(".")
        if self.random.random() < 0.1:
            raise UpdateAway("the answer was lost")

    async def look(self, name: str, kind: str) -> Seen:
        value = self.dns.get((name, kind))
        return Seen("ok", (value,)) if value else NOTHING


class Dying:
    """The store, of a process that dies before a write."""

    def __init__(self, store: Any, world: World) -> None:
        self._store, self._world = store, world

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._write(method) if name in ("create", "put", "replace", "delete") else method

    def _write(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any) -> Any:
            if self._world.fuse == 0:
                raise Crash
            self._world.fuse -= 1
            return await method(*args)

        return call


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], None]:
    def patch(world: World) -> None:
        async def look(self: Resolver, name: str, kind: str) -> Seen:
            return await world.look(name, kind)

        async def everywhere(*_: object) -> bool:
            return True

        async def zone(*_: object) -> str:
            return "esp.example"

        monkeypatch.setattr(Resolver, "look", look)
        monkeypatch.setattr(Resolver, "everywhere", everywhere)
        monkeypatch.setattr(Publication, "zone", zone)
        monkeypatch.setattr(Publication, "updater", lambda self: world)
        monkeypatch.setattr(  # few labels, so that they would collide
            "brandproxy.senders.claims.secrets.token_hex", lambda _: f"{world.random.randrange(1 << 9):016x}"
        )

    return patch


class History:
    def __init__(self, context: Context, world: World) -> None:
        self.context, self.world, self.random = context, world, world.random
        self.registry = context.registry
        self.registry.store = Dying(context.store, world)
        self.watch = SenderWatch(context)
        self.crashed = False  # since the last sweep

    async def add_tenant(self) -> None:
        slug = self.random.choice(SLUGS) + self.random.choice(("", *(f"-{n}" for n in range(2, 30))))
        former = await self.context.store.get(keys.former_tenant(slug)) is not None
        try:
            await self.registry.add_tenant(slug)
            assert not former, "a removed tenant's slug was given out again"
        except Conflict:
            pass

    async def tenant(self) -> str:
        found = [tenant.slug for tenant in await self.registry.tenants()]
        return self.random.choice(found or ["nobody"])

    async def remove_tenant(self) -> None:
        await self.registry.remove_tenant(await self.tenant())

    async def claim(self) -> None:
        await self.registry.senders.add(self.random.choice(DOMAINS), await self.tenant())

    async def remove(self) -> None:
        await self.registry.senders.remove(self.random.choice(DOMAINS), await self.tenant())

    async def transfer(self) -> None:
        await self.registry.senders.transfer(self.random.choice(DOMAINS), await self.tenant())

    async def accept(self) -> None:
        await self.registry.senders.accept(self.random.choice(DOMAINS), await self.tenant(), "said so")

    async def publish(self) -> None:
        key = base64.b64encode(ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
        claims = await self.registry.senders.all()
        claim = self.random.choice(claims)
        self.world.published[key] = claim.label
        public = PublicKeys(self.context, claim.domain, self.registry, claim.tenant)
        await public.publish(self.random.choice(SELECTORS), f"v=DKIM1; k=ed25519; p={key}")
        assert self.world.updates

    async def withdraw(self) -> None:
        claim = self.random.choice(await self.registry.senders.all())
        public = PublicKeys(self.context, claim.domain, self.registry, claim.tenant)
        await public.withdraw(self.random.choice(SELECTORS))

    async def customer(self) -> None:
        """The domain's owner follows one tenant's list; records of before are overwritten, never cleaned up."""
        claim = self.random.choice(await self.registry.senders.all())
        for record in mail_records(Sending(claim, mail_names(self.context.settings.dns))):
            if self.random.random() < 0.8:
                self.world.dns[record.name, record.type] = record.value

    async def look(self) -> None:
        for domain in DOMAINS:
            await self.watch.check(domain)

    async def away(self) -> None:
        self.world.away = not self.world.away

    async def retry(self) -> None:
        await self.registry.senders.publication.retry()

    async def step(self) -> None:
        steps = [
            self.add_tenant, self.add_tenant, self.remove_tenant, self.claim, self.claim, self.claim, self.remove,
            self.transfer, self.accept, self.accept, self.publish, self.publish, self.publish, self.withdraw,
            self.customer, self.look, self.look, self.away, self.retry,
        ]  # fmt: skip
        together = self.random.sample(steps, self.random.choice((1, 1, 2, 3)))
        self.world.fuse = self.random.randrange(12) if self.random.random() < 0.15 else -1
        done = await asyncio.gather(*(one() for one in together), return_exceptions=True)
        self.crashed = self.crashed or self.world.fuse == 0
        self.world.fuse = -1
        for one in done:
            if isinstance(one, BaseException) and not isinstance(one, BrandproxyError | Crash | IndexError):
                raise one
        await self.check()

    async def check(self) -> None:
        """What holds at every moment."""
        claims = await self.registry.senders.all()
        for claim in claims:
            whose = (claim.tenant, claim.domain)
            assert self.world.given.setdefault(claim.label, whose) == whose, "a label was given to two"
        for domain in DOMAINS:
            proven = [one for one in claims if one.domain == domain and one.state is SenderState.PROVEN]
            assert len(proven) < 2
        wanted = [
            record.value
            for one in claims
            for record in mail_records(Sending(one, mail_names(self.context.settings.dns)))
        ]
        assert len(wanted) == len(set(wanted)), "two claims are asked for the same target"
        waiting = {record.name for record in await self.registry.senders.publication.waiting()}
        left = self.usable({claim.label for claim in claims}) - waiting
        assert self.crashed or not left, f"{left} was forgotten"

    def usable(self, labels: set[str]) -> set[str]:
        """Names of ended claims that are of use to somebody."""
        dns = self.world.dns.items()
        has_key = {name for (name, kind), value in dns if kind == "TXT" and not dkim.fault(value)}
        takes_mail = {name for (name, kind), _ in dns if kind == "CNAME" and name.endswith(f".{BOUNCES}")}
        signs = {name for name in has_key if name.endswith(f".{ZONE}") and name.split(".")[1] not in labels}
        return signs | {name for name in takes_mail if name.split(".")[0] not in labels}

    async def settle(self) -> None:
        """The primary is back and the control process had its turn: nothing of a former holder is usable."""
        self.world.away = False
        publication = self.registry.senders.publication
        await self.registry.senders.sweep()
        for _ in range(100):
            if not await publication.retry():
                break
        assert await publication.waiting() == []
        claims = {claim.label: claim for claim in await self.registry.senders.all()}
        self.crashed = False
        slugs = {tenant.slug for tenant in await self.registry.tenants()}
        assert {claim.tenant for claim in claims.values()} <= slugs
        assert not self.usable(set(claims)), "of use, though its claim has ended"
        for (name, kind), value in self.world.dns.items():
            if name.endswith(f".{ZONE}") and kind == "TXT" and not dkim.fault(value):
                label = name.split(".")[1]
                assert self.world.published[value.rpartition("p=")[2]] == label, f"{name} has another's key"
        for domain in DOMAINS:
            for selector in SELECTORS:
                self._signs(claims, domain, self.world.dns.get((selector_name(selector, domain), "CNAME"), ""))

    def _signs(self, claims: dict[str, Any], domain: str, target: str) -> None:
        """Whoever signs for the domain today was given it, for this domain."""
        value = self.world.dns.get((target, "TXT"), "")
        if value and not dkim.fault(value):
            assert claims[target.split(".")[1]].domain == domain


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_nothing_of_a_former_holder_stays_usable(
    seed: int, tmp_path: Path, patched: Callable[[World], None]
) -> None:
    world = World(random.Random(seed))
    patched(world)
    dns = {"servers": "127.0.0.1:9", "update_server": "127.0.0.1:9", "dkim_domain": ZONE, "bounce_host": BOUNCES}
    async with open_context(Settings(data=tmp_path, dns=dns), actor="test") as context:
        history = History(context, world)
        for step in range(STEPS):
            await history.step()
            if step % 10 == 9:
                await history.settle()
