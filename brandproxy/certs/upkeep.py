"""Issue and renew, for ever: what the control role runs. Nothing is ever issued inside a handshake.

Every node plans for all hosts; the host's lock in `ordering` sees to it that only one of them orders. An old
certificate is never taken away: a renewal that fails leaves it where it is and shows in the metrics long before
it ends.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace

from brandproxy.acme import AcmeAway, AcmeRefused, RenewalInfo
from brandproxy.certs import alarms, metrics, progress
from brandproxy.certs.devca import DevCA
from brandproxy.certs.metrics import ORDERS
from brandproxy.certs.ordering import Orders
from brandproxy.certs.planning import Planner, Step
from brandproxy.certs.vault import Certificate, Facts
from brandproxy.context import Context
from brandproxy.core.renewal import renew_at
from brandproxy.errors import Conflict, Locked, NotFound, Retryable
from brandproxy.model import Host, HostState
from brandproxy.store import Change, keys

log = logging.getLogger(__name__)

_TICK = 0.5  # seconds between plans
_PAUSE = 3.0  # seconds a host rests when another node works on it, or the store is away
_NO_ARI = 6 * 3600.0  # seconds until a CA without a window for us is asked again
_METRICS = 15.0  # seconds between figures
_NEVER = 1e12
_AT_ONCE = 64  # small pieces of work (states, instants) under way in one process


class Upkeep:
    def __init__(self, context: Context, now: Callable[[], float] = time.time) -> None:
        self._context, self._now = context, now
        self._registry = context.registry.acting("certificates")
        self._parallel = context.settings.certs.parallel
        self._dev = DevCA(context.settings.data) if context.settings.certs.ca == "dev" else None
        self._steps = {
            Step.LIVE: self._live, Step.LAPSED: self._lapsed, Step.CHOOSE: self._choose, Step.OBTAIN: self._obtain,
        }  # fmt: skip
        self.orders = Orders(context, now)
        self.planner = Planner(context.directory, now, self.orders.budget.full_until)

    async def load(self) -> None:
        """Read everything once; `apply` keeps it current."""
        store = self._context.store
        for entry in (*await store.list(keys.CERT), *await store.list(progress.PREFIX)):
            self.planner.apply(Change("", entry.key, entry.value))

    async def run(self) -> None:
        self._context.directory.changed.append(self.planner.apply)
        try:
            await self.load()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publish())
                while True:
                    for host, step in await self.plan():
                        self.planner.busy.add(host.name)
                        group.create_task(self.work(host, step))
                    await asyncio.sleep(_TICK)
        finally:
            self._context.directory.changed.remove(self.planner.apply)
            self.orders.accounts.close()

    async def _publish(self) -> None:
        """Figures; and answers to challenges that nobody took back, because their node died, go after an hour."""
        seen: dict[str, float] = {}
        told: dict[str, str] = {}
        while True:
            try:
                metrics.publish(self.planner.facts, self.planner.progress, self._now())
                await alarms.expiring(
                    self._context.store, self._context.directory, dict(self.planner.facts), told, self._now()
                )
                found = [entry.key for entry in await self._context.store.list(keys.CHALLENGE)]
                seen = {key: seen.get(key, time.monotonic()) for key in found}
                for key in [key for key, since in seen.items() if since < time.monotonic() - 3600]:
                    await self._context.store.delete(key)
            except Retryable as error:
                log.warning("certificates: %s", error)
            except Exception:
                log.exception("certificates: figures and alarms")
            await asyncio.sleep(_METRICS)

    async def plan(self) -> list[tuple[Host, Step]]:
        return await self.planner.plan(max(0, self._parallel - len(self.planner.busy)), _AT_ONCE)

    async def work(self, host: Host, step: Step) -> None:
        """Do one step; nothing that goes wrong with one host ends the others' upkeep."""
        rest = 0.0
        try:
            await self._steps[step](host)
        except (Locked, Conflict, NotFound):
            rest = _PAUSE * random.random()  # noqa: S311
        except Retryable as error:
            log.warning("certificates: %s: %s", host.name, error)
            rest = _PAUSE
        except Exception:
            log.exception("certificates: %s", host.name)
            rest = 20 * _PAUSE
        finally:
            self.planner.done(host.name, rest)

    async def _obtain(self, host: Host) -> None:
        """A new certificate; when it is there, the host is live. What failed is in its Progress, and logged."""
        vault = self.orders.vault
        old = await vault.get(host.name)
        fresh: Certificate | None
        if self._dev is None:
            fresh = await self.orders.obtain(host, old)
        else:
            await vault.put(fresh := await asyncio.to_thread(self._dev.issue, host.name, self._now()))
        if fresh is None:
            known = await progress.read(self._context.store, host.name)
            self.planner.progress[host.name] = known
            log.warning("certificates: %s: %s", host.name, known.error)
            return
        ORDERS.labels("renewed" if old else "new").inc()
        self.planner.facts[host.name] = Facts(fresh.serial, fresh.ca, fresh.not_before, fresh.not_after)
        if host.state is HostState.VERIFIED:
            await self._live(host)

    async def _live(self, host: Host) -> None:
        await self._registry.set_host_state(host.name, HostState.LIVE, "its certificate is there", seen=host)

    async def _lapsed(self, host: Host) -> None:
        """A recipient never meets a host that cannot answer: links use it again when it has a certificate."""
        present = await self.orders.vault.get(host.name)
        if present is None or present.not_after <= self._now():
            reason = "its certificate is not there any more" if present is None else "its certificate ended"
            await self._registry.set_host_state(host.name, HostState.VERIFIED, reason, seen=host)

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
            await alarms.issued(self._context.store, host, present)
            await progress.write(self._context.store, host.name, known)
            self.planner.progress[host.name] = known

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
