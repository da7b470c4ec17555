"""Which hosts need what next, from facts in memory that the change feed keeps current.

Hosts that changed are looked at every half second; all of them in sweeps, in slices that leave the event loop to
others, and so spaced that sweeping takes a twentieth of the time however many hosts there are.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from brandproxy.certs import progress
from brandproxy.certs.progress import Progress
from brandproxy.certs.vault import Facts, facts
from brandproxy.core.renewal import Candidate, urgency
from brandproxy.directory import Directory
from brandproxy.model import Host, HostState
from brandproxy.store import Change, keys

_SLICE = 500  # hosts looked at before others get their turn
_SWEEP = 5.0  # seconds between sweeps, at least
_WAITING = 1000  # most urgent candidates kept at hand between sweeps


_RESTS, _FULL = 60.0, 4 * 3600.0  # no wait is longer; one that seems so was planned by a clock that was wrong


class Step(Enum):
    LIVE = "its certificate is there, its state lags behind"
    LAPSED = "it is live, and its certificate is not there or over"
    CHOOSE = "the instant of renewal is to be chosen, or the CA asked again"
    OBTAIN = "it needs a certificate"


@dataclass(slots=True)
class Planner:
    """`full` tells, for renewals and for new hosts, until when the CA's limit is reached."""

    directory: Directory
    now: Callable[[], float]
    full: dict[bool, float]
    facts: dict[str, Facts] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    resting: dict[str, float] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _waiting: list[str] = field(default_factory=list)
    _sweep_at: float = 0.0

    def apply(self, change: Change) -> None:
        for prefix in (keys.CERT, progress.PREFIX, keys.HOST):
            if change.key.startswith(prefix):
                host = change.key.removeprefix(prefix)
                self._changed.add(host)
                self._learn(prefix, host, change.value)

    def _learn(self, prefix: str, host: str, value: bytes | None) -> None:
        if prefix == keys.CERT:
            self.facts.pop(host, None)
            if value is not None and (read := facts(value)) is not None:
                self.facts[host] = read
        elif prefix == progress.PREFIX:
            self.progress[host] = progress.load(value) if value else Progress()

    async def plan(self, room: int, at_once: int) -> list[tuple[Host, Step]]:
        """What to begin now: at most `at_once` small steps, and orders for the most urgent as `room` allows."""
        begun, sweeping = time.monotonic(), time.monotonic() >= self._sweep_at
        small, candidates = await self._review(self.directory.hosts() if sweeping else self._at_hand())
        if sweeping:
            self._sweep_at = time.monotonic() + max(_SWEEP, 20 * (time.monotonic() - begun))
        urgent = heapq.nsmallest(_WAITING, candidates, key=lambda pair: urgency(pair[0]))
        self._waiting = [candidate.host for candidate, _ in urgent]
        self._changed.update(host.name for host, _ in small[at_once:])
        # Nodes pick differently among the most urgent, so that they seldom want the same host's lock.
        picked = random.sample(urgent[: room * 4], min(room, len(urgent)))
        return [*small[:at_once], *((host, Step.OBTAIN) for _, host in picked)]

    def _at_hand(self) -> list[Host]:
        names, self._changed = {*self._changed, *self._waiting}, set()
        sites = (self.directory.site(name) for name in names)
        return [site.host for site in sites if site is not None]

    async def _review(self, hosts: Iterable[Host]) -> tuple[list[tuple[Host, Step]], list[tuple[Candidate, Host]]]:
        now = self.now()
        small: list[tuple[Host, Step]] = []
        candidates: list[tuple[Candidate, Host]] = []
        for count, host in enumerate(hosts, 1):
            if count % _SLICE == 0:
                await asyncio.sleep(0)
            step = self._step(host, now)
            if step is Step.OBTAIN:
                read = self.facts.get(host.name)
                candidates.append((Candidate(host.name, read.not_after if read else 0, host.since), host))
            elif step is not None:
                small.append((host, step))
        return small, candidates

    def _step(self, host: Host, now: float) -> Step | None:
        """What this host needs now, if anything can be done about it now."""
        if host.state not in (HostState.VERIFIED, HostState.LIVE) or host.name in self.busy:
            return None
        if now < self.resting.get(host.name, 0) <= now + _RESTS:
            return None
        read, known = self.facts.get(host.name), self.progress.get(host.name, _NOTHING)
        if host.state is HostState.LIVE and (read is None or read.not_after <= now):
            return Step.LAPSED
        if read is None or known.due(read.serial, now):
            full = self.full.get(read is not None, 0)
            free = not known.waits(now) and not now < full <= now + _FULL
            return Step.OBTAIN if free else None
        if host.state is HostState.VERIFIED and read.not_after > now:
            return Step.LIVE
        if known.serial != read.serial or not known.renew_at or known.ask_at <= now:
            return Step.CHOOSE
        return None

    def done(self, host: str, rest: float) -> None:
        """The host's step is over; it rests for so many seconds."""
        self.busy.discard(host)
        self._changed.add(host)
        if rest:
            self.resting[host] = self.now() + rest
        else:
            self.resting.pop(host, None)


_NOTHING = Progress()
