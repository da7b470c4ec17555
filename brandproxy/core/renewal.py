"""When certificates are ordered, in which order, and within which limits. Pure; times are seconds.

Invariant: nothing here orders more than the limits allow in any window, and new hosts never take the part of
the budget that renewals may need.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass

HOUR, DAY = 3600, 86400
BACKOFF = (60, 600, 6000, DAY)  # seconds after the first, second, … failure in a row
_SHORT = 10 * DAY
_BACKDATED = HOUR  # CAs set the beginning back by as much
RENEWALS_PART = 0.25  # of the account's orders, kept free for renewals


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` in any `seconds`."""

    count: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Window:
    """A renewal window the CA suggests (RFC 9773 §4.2)."""

    start: int
    end: int


def renew_at(not_before: int, not_after: int, window: Window | None, luck: float) -> int:
    """The instant to renew at, chosen once and then kept. `luck` in [0, 1) spreads hosts over time.

    1. a random instant inside the CA's window (RFC 9773 §4.2), but not in the first hundredth of the lifetime: a
       CA that calls every certificate overdue must not be asked for one after the other
    2. when a third of the lifetime is left; half, for lifetimes under ten days; up to a twentieth earlier,
       so that hosts that were issued together are not renewed together
    """
    lifetime = not_after - not_before
    if window is not None and window.end > window.start:
        chosen = int(window.start + luck * (window.end - window.start))
        return max(chosen, min(not_before + _BACKDATED + lifetime // 100, not_after))
    left = lifetime / 2 if lifetime < _SHORT else lifetime / 3
    return int(not_after - left - luck * lifetime / 20)


def backoff(failures: int, left: float = math.inf) -> int:
    """Seconds to wait after so many failures in a row (at least one).

    `left`: seconds until the present certificate ends. The wait is at most a twentieth of that (but ten minutes),
    so that a six-day certificate does not end while a CA that was down for a day is being waited for.
    """
    return int(min(BACKOFF[min(failures, len(BACKOFF)) - 1], max(BACKOFF[1], left / 20)))


def free_at(taken: Iterable[float], limit: Limit, now: float) -> float:
    """When one more fits: `now`, or the time at which the oldest of a full window leaves it."""
    recent = sorted(pruned(taken, limit, now))
    return now if len(recent) < limit.count else recent[-limit.count] + limit.seconds


def pruned(taken: Iterable[float], limit: Limit, now: float) -> list[float]:
    """What still counts. What lies ahead was taken by a clock that was wrong, and counts from now."""
    return [min(at, now) for at in taken if at > now - limit.seconds]


def for_new(limit: Limit) -> Limit:
    """The part of a limit that new hosts may use; the rest is for renewals."""
    return Limit(max(1, int(limit.count * (1 - RENEWALS_PART))), limit.seconds)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that wants a certificate. `not_after` 0: it has none yet. `since`: waiting from then on."""

    host: str
    not_after: int
    since: int


def urgency(candidate: Candidate) -> tuple[bool, int, int, str]:
    """Sorts expiring before new; among the expiring the soonest, among the new the longest waiting."""
    return candidate.not_after == 0, candidate.not_after, candidate.since, candidate.host


def ordered(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=urgency)


def ari_id(key_identifier: bytes, serial: int) -> str:
    """RFC 9773 §4.1: base64url of the authority key identifier, a dot, base64url of the DER-encoded serial."""
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    return f"{_base64url(key_identifier)}.{_base64url(number)}"


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
