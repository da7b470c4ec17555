"""Keys of session tickets: two live at a time, six hours each, another pair for every host (RFC 9325 §3.4).

Who steals a key reads at most the connections resumed within twelve hours, and no older ones. A ticket of one host
is none for another (RFC 6066 §3), since each host's keys are derived from the period's secret and the host's name.

1. The period is the clock's, so that all workers and all nodes change keys in the same second.
2. Its secret is the fleet's, from the store (`ticket/<period>`, made by the control role before it is needed).
3. Without one, as while there is no control role: the secret of the period before, hashed. The first is made
   before the fork, so that the workers of a machine share it. What was hashed is forgotten: nobody finds it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time

from brandproxy.errors import BrandproxyError
from brandproxy.store import Change, Store, keys
from brandproxy.store.seal import Seal

log = logging.getLogger(__name__)

PERIOD = 6 * 3600  # seconds
SECRET = 32  # bytes


class TicketSecrets:
    """`now` is wall-clock seconds. `version` changes whenever the keys of hosts do."""

    def __init__(self, now: float, secret: bytes | None = None) -> None:
        self.version = 0
        self._period = int(now // PERIOD)
        self._own = secret or os.urandom(SECRET)
        self._own_before: bytes | None = None
        self._fleet: dict[int, bytes] = {}

    def advance(self, now: float) -> None:
        """Take up the period of `now`; an earlier one, of a clock that was set back, changes nothing."""
        period = int(now // PERIOD)
        while self._period < period:
            if period - self._period > 2:  # nothing of a time so long ago is live
                self._period, self._own, self._own_before = period, os.urandom(SECRET), None
                self.version += 1
                break
            self._period += 1
            self._own_before, self._own = self._own, hashlib.sha256(b"next ticket secret\0" + self._own).digest()
            self.version += 1
        self._fleet = {number: secret for number, secret in self._fleet.items() if number >= self._period - 1}

    def learn(self, period: int, secret: bytes) -> None:
        """The fleet's secret of a period."""
        if period >= self._period - 1 and self._fleet.get(period) != secret:
            self._fleet[period] = secret
            self.version += 1

    def of(self, name: str, size: int) -> tuple[bytes, bytes | None]:
        """The keys of a host: those of this period, and of the one before when there was one."""
        before = self._fleet.get(self._period - 1) or self._own_before
        return (
            _derive(self._fleet.get(self._period) or self._own, name, size),
            None if before is None else _derive(before, name, size),
        )


def _derive(secret: bytes, name: str, size: int) -> bytes:
    return hashlib.shake_256(secret + b"ticket\0" + name.encode()).digest(size)


class FleetSecrets:
    """Hands the fleet's secrets on to `secrets`: `load` once, then every Change of the feed to `apply`."""

    def __init__(self, secrets: TicketSecrets, seal: Seal) -> None:
        self._secrets, self._seal = secrets, seal

    async def load(self, store: Store) -> None:
        for entry in await store.list(keys.TICKET):
            self._take(entry.key, entry.value)

    def apply(self, change: Change) -> None:
        if change.key.startswith(keys.TICKET) and change.value is not None:
            self._take(change.key, change.value)

    def _take(self, key: str, value: bytes) -> None:
        try:
            self._secrets.learn(int(key.removeprefix(keys.TICKET)), self._seal.open(value))
        except (BrandproxyError, ValueError):
            log.exception("tls: unreadable ticket secret %s", key)


async def keep_secrets(store: Store, seal: Seal) -> None:
    """Make secrets before they are needed, for ever. One node of a fleet does it."""
    while True:
        await make_secrets(store, seal)
        await asyncio.sleep(PERIOD / 12)


async def make_secrets(store: Store, seal: Seal, now: float | None = None) -> None:
    """Secrets of this period and the next, where they are missing; those of dead periods are deleted."""
    period = int((time.time() if now is None else now) // PERIOD)
    there = {entry.key for entry in await store.list(keys.TICKET)}
    for number in (period, period + 1):
        if keys.ticket(number) not in there:
            await store.create(keys.ticket(number), seal.seal(os.urandom(SECRET)))
    for key in there - {keys.ticket(number) for number in range(period - 1, period + 2)}:
        await store.delete(key)
