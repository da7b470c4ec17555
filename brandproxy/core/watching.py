"""When a host is looked at again, and when what was seen moves its state. Pure; all times are seconds.

A state moves only after agreeing observations: `UP` for good news, `DOWN` for bad. UNKNOWN has no vote, so that
a DNS that is away breaks nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from brandproxy.core.records import Verdict
from brandproxy.model import HostState

UP, DOWN = 2, 3
_CONFIRM = {True: 1.0, False: 60.0}  # seconds to the next look while a change is being confirmed
SLOWEST = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known from looking. `streak` observations in a row said `verdict`; `next_at` is the next look."""

    verdict: Verdict = Verdict.UNKNOWN
    streak: int = 0
    checked_at: float = 0.0
    next_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """`pending`: shortest time between looks at a host that is not right; `live`: between looks at one that is."""

    pending: float = 15.0
    live: float = 3600.0


def observe(watch: Watch, verdict: Verdict, now: float) -> Watch:
    """The watch after one more observation."""
    if verdict is Verdict.UNKNOWN:
        return replace(watch, checked_at=now)
    streak = watch.streak + 1 if verdict is watch.verdict else 1
    return Watch(verdict, min(streak, 1000), now, watch.next_at)


def moved(state: HostState, watch: Watch, certified: bool, accepted: bool = False) -> HostState:
    """The state after this observation. `certified`: a certificate that is still valid is there; `accepted`: the
    operator vouches for the name.

    1. suspended stays: only the operator lifts it
    2. proven often enough: pending and broken become verified (live, where a certificate is there already)
    3. absent often enough: verified and live become broken, unless accepted
    """
    if state is HostState.SUSPENDED:
        return state
    good = state in (HostState.VERIFIED, HostState.LIVE)
    if not good and watch.verdict is Verdict.PROVEN and watch.streak >= UP:
        return HostState.LIVE if certified else HostState.VERIFIED
    if good and not accepted and watch.verdict is Verdict.ABSENT and watch.streak >= DOWN:
        return HostState.BROKEN
    return state


def next_look(state: HostState, since: float, watch: Watch, now: float, pace: Pace, luck: float) -> float:
    """When to look again. `luck` in [0, 1) spreads looks by ±20 %, so that hosts never come in step.

    A host that is not right is looked at after a tenth of the time it has been so: quickly while somebody is
    at it, ever slower for one that was forgotten.
    """
    good = state in (HostState.VERIFIED, HostState.LIVE)
    against = watch.verdict is (Verdict.ABSENT if good else Verdict.PROVEN)
    if against and watch.streak:
        wait = min(_CONFIRM[not good], pace.live, pace.pending * 4)
    elif good:
        wait = pace.live
    else:
        wait = min(max(pace.pending, (now - since) / 10), max(SLOWEST, pace.pending))
    return now + wait * (0.8 + 0.4 * luck)
