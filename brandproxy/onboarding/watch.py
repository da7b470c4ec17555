"""Looks at every host for ever and moves its state. Any number of control nodes share the work.

Invariant: a look is claimed before it is made, by moving `next_at` of `watch/<host>` in a compare-and-set; a
node that dies with a claim in hand is replaced as soon as the claim's time is over. The result is written the
same way, so a slow look never overwrites a newer one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter as Counting
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from prometheus_client import Counter

from brandproxy.context import Context
from brandproxy.core.claims import gives_way, standing
from brandproxy.core.domains import registered
from brandproxy.core.records import Observation, Verdict, verdict
from brandproxy.core.watching import SLOWEST, UP, Pace, Watch, moved, next_look
from brandproxy.errors import Conflict, NotFound, Retryable
from brandproxy.model import Host, HostState
from brandproxy.onboarding import links
from brandproxy.onboarding import report as reports
from brandproxy.onboarding.looking import Looker
from brandproxy.onboarding.report import Report
from brandproxy.onboarding.zones import Keeper
from brandproxy.senders import of_host
from brandproxy.store import keys
from brandproxy.store.seal import open_seal

log = logging.getLogger(__name__)

_TICK = 0.25  # seconds between looks at who is due
_CLAIM = 30.0  # seconds a claimed look may take before another node makes it
_AT_ONCE = 64  # looks under way in one process; a few dozen sockets each
_RIVALS = 4  # targets of other claims that one look heeds; DNS names one at a time, TXT records may name several
_BESIDE = 16  # of them, at names of one registered domain: a slow zone must not hold up the others

CHANGES = Counter("brandproxy_host_changes", "Host state changes made by DNS checks", ["after"])
LOOKS = Counter("brandproxy_dns_looks", "Looks at hosts' DNS", ["verdict"])


class Watcher:
    def __init__(self, context: Context, now: Callable[[], float] = time.time) -> None:
        self._context = context
        self._now = now
        self._registry = context.registry.acting("dns-watch")
        self._pace = Pace(context.settings.dns.pending_seconds, context.settings.dns.live_seconds)
        self._due: dict[str, tuple[int, float]] = {}  # host -> (its `since` when planned, when)
        self._busy: dict[str, str] = {}  # host -> registered domain
        self._suffix = f".{context.settings.edge.domain}"
        self.looker = Looker(context.settings)
        self._keeper = Keeper(context.settings)

    async def last(self, name: str, tenant: str = "") -> Report:
        """The last look's report; an empty one before the first. `tenant`: of its claim beside the host."""
        entry = await self._context.store.get(keys.watch(name, tenant))
        return Report() if entry is None else reports.load(entry.value)

    async def check(self, name: str, tenant: str = "") -> tuple[Host, Report]:
        """Look now, whatever the schedule says, and move the state when observations agree.

        `tenant`: look for this tenant's claim, whoever has the name.
        """
        host = await self._registry.host(name, tenant)
        holder = await self._registry.host(name)
        if holder.tenant != host.tenant:
            return await self._check_claim(host, holder)
        return await self._check_host(host)

    async def _check_host(self, host: Host, known: str = "") -> tuple[Host, Report]:
        """`known`: the target of a claim whose vote was taken just now."""
        before, version = await self._kept(keys.watch(host.name))
        report, seen = await self._seen(host, before)
        if verdict(host, seen) is not Verdict.UNKNOWN:  # what was seen before moves nothing by itself
            host = await self._move(host, report)
        report = report.due(self._next(host, report.watch))
        if await self._rivals(host, seen, known):
            report = report.due(min(report.watch.next_at, self._now() + self._confirm(host)))
        await self._keep(keys.watch(host.name), report, version)
        self._due[host.name] = (host.since, report.watch.next_at)
        LOOKS.labels(report.watch.verdict).inc()
        return host, report

    async def _kept(self, key: str) -> tuple[Report, int]:
        entry = await self._context.store.get(key)
        return (Report(), 0) if entry is None else (reports.load(entry.value), entry.version)

    async def _keep(self, key: str, report: Report, version: int) -> None:
        if version:
            await self._context.store.replace(key, reports.dump(report), version)
        else:
            await self._context.store.create(key, reports.dump(report))

    def _confirm(self, holder: Host) -> float:
        """Seconds to the next look while another claim's record is seen."""
        return min(60.0 if holder.proven else 1.0, self._pace.live, self._pace.pending * 4)

    async def _rivals(self, host: Host, seen: Observation, known: str) -> bool:
        """Whether the name's DNS names the targets of other claims; each has its vote.

        The work is bounded by what DNS names, however many claim the name.
        """
        named = [value for value in (*seen.chain, *seen.txt.values) if value.endswith(self._suffix)]
        beside = [value for value in dict.fromkeys(named) if value not in (host.target, known)]
        found = bool(known)
        for target in beside[:_RIVALS]:
            claim = await self._registry.at_target(host.name, target)
            if claim is not None and claim.tenant != host.tenant:
                found = True
                await self._decide(claim, *await self._vote(claim), host)
        return found

    async def _check_claim(self, claim: Host, holder: Host) -> tuple[Host, Report]:
        """Look for a claim beside the host. When its record is there, the holder's is looked at as well."""
        report, decided = await self._vote(claim)
        if decided is not Verdict.PROVEN:
            return claim, report
        last, _ = await self._kept(keys.watch(holder.name))
        stands = not gives_way(standing(holder)) and holder.state is not HostState.SUSPENDED
        if stands and not last.watch.checked_at > self._now() - self._confirm(holder):
            await self._check_host(holder, claim.target)
        await self._decide(claim, report, decided, holder)
        return await self._registry.host(claim.name, claim.tenant), report

    async def _vote(self, claim: Host) -> tuple[Report, Verdict]:
        """One look for a claim, and what it alone says; the report is kept beside the host's."""
        key = keys.watch(claim.name, claim.tenant)
        before, version = await self._kept(key)
        sending = await of_host(self._registry.senders, self._context.settings.dns, claim)
        report, seen = await self.looker.report(claim, before.votes(claim), self._now(), sending)
        await self._keep(key, report, version)
        LOOKS.labels(report.watch.verdict).inc()
        return report, verdict(claim, seen)

    async def _decide(self, claim: Host, report: Report, decided: Verdict, holder: Host) -> None:
        """Hand the name over when the claim is proven and the holder gives way; else tell the holder."""
        if decided is not Verdict.PROVEN or report.watch.streak < UP:
            return
        holder = await self._registry.host(holder.name)
        if not gives_way(standing(holder)):
            await self._registry.tell_holder(holder, claim)
            return
        try:
            await self._registry.take_host(claim, "the records are right")
            CHANGES.labels(HostState.VERIFIED).inc()
        except Conflict as error:
            log.info("dns: %s: %s", claim.name, error)

    async def _seen(self, host: Host, before: Report) -> tuple[Report, Observation]:
        """One look; in a zone delegated to us, our own records are put right and looked at again."""
        sending = await of_host(self._registry.senders, self._context.settings.dns, host)
        report, seen = await self.looker.report(host, before.votes(host), self._now(), sending)
        if host.zone and verdict(host, seen) is Verdict.PROVEN and await self._has_zone(host):
            published, finding = await self._keeper.keep(host, report)
            if published:
                report, seen = await self.looker.report(host, before.votes(host), self._now(), sending)
            if finding:
                report = replace(report, findings=(*report.findings, finding))
        return report, seen

    async def _has_zone(self, host: Host) -> bool:
        try:
            await self._registry.hold_zone(host)
        except Conflict:
            return False
        return True

    async def run(self) -> None:
        """For ever: whoever is due is looked at, by one node."""
        try:
            await self._registry.mend_claims()
        except Retryable as error:
            log.warning("dns: claims are looked through at the next start: %s", error)
        async with asyncio.TaskGroup() as group:
            while True:
                begun = time.monotonic()
                async for host in self._picked(self._due_hosts()):
                    group.create_task(self._turn(host))
                # At most a twentieth of the time goes into asking who is due, however many hosts there are.
                await asyncio.sleep(max(_TICK, 20 * (time.monotonic() - begun)))

    def _due_hosts(self) -> list[Host]:
        """Who is to be looked at now, the longest waiting first."""
        now = self._now()
        due = []
        for host in self._context.directory.hosts():
            since, at = self._due.get(host.name, (-1, 0.0))
            waiting = self._ahead(at, now) and since == host.since
            if not waiting and host.name not in self._busy and self._watched(host):
                due.append((at, host))
        return [host for _, host in sorted(due, key=lambda pair: pair[0])]

    async def _picked(self, due: list[Host]) -> AsyncIterator[Host]:
        """As many as there is room for; they are busy from now on."""
        beside = Counting(self._busy.values())
        for number, host in enumerate(due):
            if number % 500 == 499:
                await asyncio.sleep(0)  # many names of one domain may be waiting; others get their turn
            if len(self._busy) >= _AT_ONCE:
                return
            domain = registered(host.name)
            if beside[domain] < _BESIDE:
                beside[domain] += 1
                self._busy[host.name] = domain
                yield host

    def _ahead(self, at: float, now: float) -> bool:
        """Whether a look is planned for later; not when our clock went back so far that no plan reaches there."""
        return now < at <= now + 1.2 * max(SLOWEST, self._pace.live, self._pace.pending) + _CLAIM

    def _watched(self, host: Host) -> bool:
        """Names under localhost are this machine's own: no public DNS is asked for them (RFC 6761 §6.3)."""
        if host.state is HostState.SUSPENDED:
            return False
        return bool(self._context.settings.dns.servers) or not host.name.endswith(".localhost")

    async def _turn(self, host: Host) -> None:
        try:
            if await self._claim(host):
                await self.check(host.name)
        except (NotFound, Conflict):
            self._due.pop(host.name, None)  # removed or moved meanwhile
        except Retryable as error:
            log.warning("dns: %s: %s", host.name, error)
            self._due[host.name] = (host.since, self._now() + 5)
        except Exception:  # whatever one host's records do, the others are watched
            log.exception("dns: %s", host.name)
            self._due[host.name] = (host.since, self._now() + 60)
        finally:
            self._busy.pop(host.name, None)

    async def _claim(self, host: Host) -> bool:
        """Whether this node makes the look. Another's claim or newer look moves our plan."""
        now, key, store = self._now(), keys.watch(host.name), self._context.store
        entry = await store.get(key)
        if entry is None:
            return await store.create(key, reports.dump(Report().claim(now + _CLAIM)))
        before = reports.load(entry.value)
        stale = before.watch.checked_at < host.since and not before.claimed  # the state changed since
        if self._ahead(before.watch.next_at, now) and not stale:
            self._due[host.name] = (host.since, before.watch.next_at)
            return False
        return await store.replace(key, reports.dump(before.claim(now + _CLAIM)), entry.version)

    def _next(self, host: Host, watch: Watch) -> float:
        return next_look(host.state, host.since, watch, self._now(), self._pace, random.random())  # noqa: S311

    async def _move(self, host: Host, report: Report) -> Host:
        after = moved(host.state, report.watch, await self._certified(host), bool(host.accepted))
        if host.accepted and report.watch.verdict is Verdict.PROVEN and report.watch.streak >= UP:
            host = await self._registry.confirm_host(host)
        if after is host.state or (host.zone and not host.proven and not await self._has_zone(host)):
            return host
        reason = "the records are right"
        if report.watch.verdict is not Verdict.PROVEN:
            reason = report.fatal[0].sentence if report.fatal else "the records are gone"
        CHANGES.labels(after).inc()
        return await self._registry.set_host_state(host.name, after, reason, seen=host)

    async def _certified(self, host: Host) -> bool:
        from brandproxy.certs.vault import facts  # certs looks at DNS before it orders, so it imports us

        entry = await self._context.store.get(keys.cert(host.name))
        found = facts(entry.value) if entry else None
        return found is not None and found.not_after > self._now()


async def page_link(context: Context, name: str, tenant: str = "") -> str:
    """The private address of the host's onboarding page, or of a tenant's claim.

    Raises BadSettings where no browser could open it.
    """
    host = await context.registry.host(name, tenant)
    return links.url(context.settings, links.make(open_seal(context.settings), host))


async def watch(context: Context) -> None:
    """Run by the control role for ever. The directory must be followed beside it.

    Without an edge domain of its own (`.invalid` never resolves, RFC 6761 §6.4) there is nothing to look for.
    """
    if not context.settings.edge.domain.endswith(".invalid"):
        await Watcher(context).run()
