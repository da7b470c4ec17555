"""Looks for ever where the selectors of claimed domains lead, and moves the claims by it. Led by one control node,
which also makes the updates of DNS that are due and revokes what belongs to nobody.

A claim moves after agreeing looks only (`core.watching`): two for good news, three for bad; doubt has no vote.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from prometheus_client import Gauge

from brandproxy.context import Context
from brandproxy.core.records import FAILED, Seen, Verdict
from brandproxy.core.senders import Claims, proof, selector_name
from brandproxy.core.watching import DOWN, UP, Pace, Watch, next_look, observe
from brandproxy.errors import BrandproxyError
from brandproxy.model import HostState, Sender, SenderState
from brandproxy.resolver import Resolver, parse_servers
from brandproxy.senders.sending import mail_names

log = logging.getLogger(__name__)

_TICK = 0.25  # seconds
_AT_ONCE = 16  # domains looked at
_LONGEST = 20.0  # seconds a look may take
_RETRY, _RETRY_LONGEST = 2.0, 300.0  # seconds between tries to make updates that are due
_SWEEP = 600.0  # seconds

WAITING = Gauge("brandproxy_dns_updates_waiting", "Records of ours in DNS whose update could not be made yet")


class SenderWatch:
    def __init__(self, context: Context, now: Callable[[], float] = time.time) -> None:
        self._context, self._now = context, now
        settings = context.settings
        self._senders = context.registry.acting("dns-watch").senders
        self._mail = mail_names(settings.dns)
        self._pace = Pace(settings.dns.pending_seconds, settings.dns.live_seconds)
        self._votes: dict[str, Watch] = {}  # label -> what its looks said
        self._due: dict[str, float] = {}  # domain -> when
        self.resolver = Resolver(
            parse_servers(settings.dns.servers), parse_servers(settings.dns.recursive), settings.outbound.networks
        )

    async def check(self, domain: str) -> Claims:
        """Look now; the claims after it."""
        claims = await self._senders.claims(domain)
        if not claims or not self._mail.dkim_domain:
            return claims
        leads = await self._look(domain)
        for claim in claims:
            vote = observe(self._votes.get(claim.label, Watch()), proof(claim, self._mail, leads), self._now())
            self._votes[claim.label] = vote
        # Who lost it goes first, so that the next may have it.
        for claim in sorted(claims, key=lambda claim: claim.state is not SenderState.PROVEN):
            claims = await self._move(claim) or claims
        return claims

    async def _look(self, domain: str) -> dict[str, Seen]:
        """Selector to the names that its CNAMEs lead through. What does not validate is no vote."""
        names = {one: selector_name(one, domain) for one in self._mail.selectors}
        try:
            async with asyncio.timeout(_LONGEST):
                found = await asyncio.gather(*(self._lead(name) for name in names.values()))
        except TimeoutError:
            return dict.fromkeys(names, FAILED)
        return dict(zip(names, found, strict=True))

    async def _lead(self, name: str) -> Seen:
        chase = await self.resolver.chase(name, "TXT")
        if chase.chain and await self.resolver.bogus(name):
            return FAILED
        return Seen("ok", chase.chain) if chase.chain else chase.end if chase.end is FAILED else Seen("empty")

    async def _move(self, claim: Sender) -> Claims:
        vote = self._votes[claim.label]
        proven = claim.state is SenderState.PROVEN
        if not proven and vote.verdict is Verdict.PROVEN and vote.streak >= UP:
            return await self._senders.move(claim, SenderState.PROVEN, "the records are right")
        if proven and vote.verdict is Verdict.ABSENT and vote.streak >= DOWN:
            return await self._senders.move(claim, SenderState.BROKEN, "the records are gone")
        return ()

    async def run(self) -> None:
        while True:
            begun = time.monotonic()
            claims = await self._senders.all()
            self._forget({claim.label for claim in claims}, {claim.domain for claim in claims})
            due = [one for one in dict.fromkeys(c.domain for c in claims) if self._is_due(one)]
            for at in range(0, len(due), _AT_ONCE):
                await asyncio.gather(*(self._turn(domain) for domain in due[at : at + _AT_ONCE]))
            await asyncio.sleep(max(_TICK, 20 * (time.monotonic() - begun)) if not due else _TICK)

    def _is_due(self, domain: str) -> bool:
        asked = bool(self._context.settings.dns.servers) or not domain.endswith(".localhost")  # RFC 6761 §6.3
        return asked and self._due.get(domain, 0.0) <= self._now()

    async def _turn(self, domain: str) -> None:
        try:
            claims = await self.check(domain)
            self._due[domain] = min((self._next(claim) for claim in claims), default=0.0)
        except Exception:  # one domain's fault holds up no other
            log.exception("senders: %s", domain)
            self._due[domain] = self._now() + 60

    def _next(self, claim: Sender) -> float:
        good = HostState.LIVE if claim.state is SenderState.PROVEN else HostState.PENDING
        vote = self._votes.get(claim.label, Watch())
        return next_look(good, claim.since, vote, self._now(), self._pace, random.random())  # noqa: S311

    def _forget(self, labels: set[str], domains: set[str]) -> None:
        self._votes = {label: vote for label, vote in self._votes.items() if label in labels}
        self._due = {domain: at for domain, at in self._due.items() if domain in domains}


async def publish(context: Context) -> None:
    """Updates that are due are made, however long the primary is away; what belongs to nobody is revoked."""
    senders = context.registry.acting("publication").senders
    wait, swept, before = _RETRY, -_SWEEP, 0
    while True:
        try:
            if time.monotonic() - swept >= _SWEEP:
                await senders.sweep()
                swept = time.monotonic()
            left = await senders.publication.retry()
        except BrandproxyError as error:
            log.warning("senders: %s", error)
        else:
            WAITING.set(left)
            wait = min(2 * wait, _RETRY_LONGEST) if left and left == before else _RETRY
            before = left
        await asyncio.sleep(wait)


async def watch(context: Context) -> None:
    """Run by the control role for ever. Without an edge domain there is nothing to look for."""
    await context.registry.bring_up()
    async with asyncio.TaskGroup() as group:
        group.create_task(publish(context))
        if not context.settings.edge.domain.endswith(".invalid"):
            group.create_task(SenderWatch(context).run())
