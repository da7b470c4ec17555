"""Issue and renew, for ever: what the control role runs. Nothing is ever issued inside a handshake.

Every node keeps the facts of all certificates in memory, fed by the change feed, and plans from them; the
host's lock in `ordering` sees to it that only one of them orders. An old certificate is never taken away: a
renewal that fails leaves it where it is and shows in the metrics long before it ends.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial

from brandproxy.acme import AcmeAway, AcmeRefused, RenewalInfo
from brandproxy.certs import metrics, progress
from brandproxy.certs.devca import DevCA
from brandproxy.certs.metrics import ORDERS
from brandproxy.certs.ordering import Orders
from brandproxy.certs.progress import Progress
from brandproxy.certs.vault import Certificate, Facts, facts
from brandproxy.context import Context
from brandproxy.core.renewal import Candidate, ordered, renew_at
from brandproxy.errors import BrandproxyError, Conflict, Locked, NotFound, Retryable
from brandproxy.model import Host, HostState
from brandproxy.store import Change, keys

log = logging.getLogger(__name__)

_TICK = 0.5  # seconds between plans
_PAUSE = 3.0  # seconds a host rests when another node works on it, or the store is away
_NO_ARI = 6 * 3600.0  # seconds until a CA without a window for us is asked again
_METRICS = 15.0  # seconds between figures
_NEVER = 1e12
_AT_ONCE = 64  # small pieces of work (states, instants) under way in one process

Work = tuple[Host, Callable[[], Awaitable[None]]]


class Upkeep:
    def __init__(self, context: Context, now: Callable[[], float] = time.time) -> None:
        self._context, self._now = context, now
        self._registry = context.registry.acting("certificates")
        self._parallel = context.settings.certs.parallel
        self._dev = DevCA(context.settings.data) if context.settings.certs.ca == "dev" else None
        self._facts: dict[str, Facts] = {}
        self._progress: dict[str, Progress] = {}
        self._busy: set[str] = set()
        self._resting: dict[str, float] = {}
        self.orders = Orders(context, now)

    async def load(self) -> None:
        """Read everything once; `apply` keeps it current."""
        store = self._context.store
        for entry in (*await store.list(keys.CERT), *await store.list(progress.PREFIX)):
            self.apply(Change("", entry.key, entry.value))

    def apply(self, change: Change) -> None:
        if change.key.startswith(keys.CERT):
            host, read = change.key.removeprefix(keys.CERT), facts(change.value) if change.value else None
            self._facts.pop(host, None)
            if read is not None:
                self._facts[host] = read
        elif change.key.startswith(progress.PREFIX):
            host = change.key.removeprefix(progress.PREFIX)
            self._progress[host] = progress.load(change.value) if change.value else Progress()

    async def run(self) -> None:
        self._context.directory.changed.append(self.apply)
        try:
            await self.load()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publish())
                while True:
                    for host, work in self._plan():
                        self._busy.add(host.name)
                        group.create_task(self._guarded(host, work))
                    await asyncio.sleep(_TICK)
        finally:
            self._context.directory.changed.remove(self.apply)
            self.orders.accounts.close()

    async def _publish(self) -> None:
        """Figures; and answers to challenges that nobody took back, because their node died, go after an hour."""
        seen: dict[str, float] = {}
        while True:
            metrics.publish(self._facts, self._progress, self._now())
            try:
                found = [entry.key for entry in await self._context.store.list(keys.CHALLENGE)]
                seen = {key: seen.get(key, time.monotonic()) for key in found}
                for key in [key for key, since in seen.items() if since < time.monotonic() - 3600]:
                    await self._context.store.delete(key)
            except Retryable as error:
                log.warning("certificates: %s", error)
            await asyncio.sleep(_METRICS)

    def _plan(self) -> list[Work]:
        """What to begin now: states that lag behind, instants to choose, then orders, the most urgent first."""
        now = self._now()
        small: list[Work] = []
        candidates: dict[str, Candidate] = {}
        hosts = {host.name: host for host in self._free_hosts(now)}
        for host in hosts.values():
            read, known = self._facts.get(host.name), self._progress.get(host.name, Progress())
            if read is None or known.due(read.serial, now):
                candidates[host.name] = Candidate(host.name, read.not_after if read else 0, host.since)
            elif host.state is HostState.VERIFIED and read.not_after > now:
                small.append((host, partial(self._live, host)))
            elif known.serial != read.serial or not known.renew_at or known.ask_at <= now:
                small.append((host, partial(self._choose, host)))
        chosen = self._chosen(list(candidates.values()), now)
        return small[:_AT_ONCE] + [(hosts[name], partial(self._obtain, hosts[name])) for name in chosen]

    def _free_hosts(self, now: float) -> Iterator[Host]:
        for host in self._context.directory.hosts():
            wanted = host.state in (HostState.VERIFIED, HostState.LIVE) and host.name not in self._busy
            if wanted and self._resting.get(host.name, 0) <= now:
                yield host

    def _chosen(self, candidates: list[Candidate], now: float) -> list[str]:
        """As many of the most urgent as there is room for; nodes pick differently among equals."""
        full = self.orders.budget.full_until
        free = [
            candidate
            for candidate in candidates
            if self._progress.get(candidate.host, Progress()).next_at <= now
            and full.get(candidate.not_after > 0, 0) <= now
        ]
        room = max(0, self._parallel - len(self._busy))
        urgent = ordered(free)[: room * 4]
        return [one.host for one in random.sample(urgent, min(room, len(urgent)))]

    async def _guarded(self, host: Host, work: Callable[[], Awaitable[None]]) -> None:
        rest = 0.0
        try:
            await work()
        except (Locked, Conflict, NotFound):
            rest = _PAUSE * random.random()  # noqa: S311
        except Retryable as error:
            log.warning("certificates: %s: %s", host.name, error)
            rest = _PAUSE
        except BrandproxyError:
            log.exception("certificates: %s", host.name)
            rest = 20 * _PAUSE
        finally:
            self._busy.discard(host.name)
            if rest:
                self._resting[host.name] = self._now() + rest
            else:
                self._resting.pop(host.name, None)

    async def _obtain(self, host: Host) -> None:
        """A new certificate; when it is there, the host is live. What failed is in its Progress, and logged."""
        vault = self.orders.vault
        old = await vault.get(host.name)
        if self._dev is not None:
            fresh: Certificate | None = await asyncio.to_thread(self._dev.issue, host.name, self._now())
            await vault.put(fresh) if fresh else None
        else:
            fresh = await self.orders.obtain(host, old)
        if fresh is None:
            known = await progress.read(self._context.store, host.name)
            self._progress[host.name] = known
            log.warning("certificates: %s: %s", host.name, known.error)
            return
        ORDERS.labels("renewed" if old else "new").inc()
        self._facts[host.name] = Facts(fresh.serial, fresh.ca, fresh.not_before, fresh.not_after)
        if host.state is HostState.VERIFIED:
            await self._live(host)

    async def _live(self, host: Host) -> None:
        await self._registry.set_host_state(host.name, HostState.LIVE, "its certificate is there", seen=host.state)

    async def _choose(self, host: Host) -> None:
        """Choose the instant of renewal, once for a certificate, and again when the CA moves its window.

        The instant is stored, so that a restart does not choose another one (RFC 9773 §4.2).
        """
        async with self._context.store.lock(f"acme/{host.zone or host.name}"):
            present = await self.orders.vault.get(host.name)
            if present is None:
                return
            known = await progress.read(self._context.store, host.name)
            info = await self._window(present)
            window = info.window if info else None
            kept = known.serial == present.serial and known.renew_at
            moved = window is not None and not window.start <= known.renew_at <= window.end
            if not kept or (moved and known.renew_at > self._now()):
                at = renew_at(present.not_before, present.not_after, window, random.random())  # noqa: S311
                known = replace(known, serial=present.serial, renew_at=at, from_ca=window is not None)
            asked = info.ask_at if info else self._now() + _NO_ARI if present.ca.startswith("https://") else _NEVER
            known = replace(known, ask_at=asked)
            await progress.write(self._context.store, host.name, known)
            self._progress[host.name] = known

    async def _window(self, present: Certificate) -> RenewalInfo | None:
        """What the CA suggests; None when it has nothing to say or is away."""
        if present.ca not in (self._context.settings.certs.ca, self._context.settings.certs.fallback):
            return None
        if not present.ca.startswith("https://"):
            return None
        try:
            account = await self.orders.accounts.open(present.ca)
            return await account.renewal_info(present.chain, self._now())
        except (AcmeAway, AcmeRefused) as error:
            log.info("certificates: no renewal window of %s: %s", present.host, error)
            return None


async def maintain(context: Context, now: Callable[[], float] = time.time) -> None:
    """Certificates for verified and live hosts by the CA in `settings.certs.ca`, until cancelled.

    The directory must be followed beside it.
    """
    if context.settings.certs.ca == "none":
        return
    await Upkeep(context, now).run()
