"""The CA's limits, counted in the store, so that all nodes together stay inside and a restart forgets nothing.

Every count is a list of times under `acme/budget/…`, changed by compare-and-set: a place is taken before the
CA is asked. Renewals that the CA itself asked for (ARI) are free of its limits and are not counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter

from brandproxy.certs.accounts import digest
from brandproxy.config import Certs
from brandproxy.core.domains import registered
from brandproxy.core.renewal import DAY, HOUR, Limit, for_new, free_at, pruned
from brandproxy.errors import Retryable
from brandproxy.store import Entry, Store, keys
from brandproxy.store.records import tell

_TIMES = TypeAdapter(list[Annotated[float, Field(ge=0, le=1e12)]])


class OverBudget(Retryable):
    """One more now would trip a limit. `free_at`: when it fits (seconds)."""

    action = "Nothing to do: the order is made as soon as the CA's limit allows."

    def __init__(self, message: str, free: float) -> None:
        super().__init__(message)
        self.free_at = free


@dataclass(frozen=True, slots=True)
class _Count:
    name: str
    limit: Limit
    words: str


class Budget:
    def __init__(self, store: Store, settings: Certs) -> None:
        self._store, self._settings = store, settings
        self.full_until: dict[bool, float] = {}  # renewals or not -> when an order fits again, as last seen

    async def take(
        self, url: str, host: str, names: tuple[str, ...], renewal: bool, now: float, again: bool = False
    ) -> None:
        """Take a place for one order in every limit it counts against. Raises OverBudget, nothing taken then.

        `again`: the CA gave a certificate of this very set before. Such ones do not count for the registered
        domain, or a customer with 50 names could have no six-day certificates.
        """
        orders = Limit(self._settings.orders_limit, 3 * HOUR)
        ordered = _Count(f"orders/{digest(url)}", orders if renewal else for_new(orders), "orders of this account")
        domain, same = self._issued(url, host, names)
        counts = (ordered, same) if again else (ordered, domain, same)
        failed = Limit(self._settings.failure_limit, HOUR)
        failures = _Count(f"failures/{digest(url)}/{host}", failed, f"failed validations of {host}")
        for count in (failures, *counts):
            free = free_at(await self._taken(count), count.limit, now)
            if free > now:
                if count is ordered:
                    self.full_until[renewal] = free
                raise _over(count, free)
        for count in counts:  # a race lost here may leave a place taken for nothing: on the safe side
            await self._add(count, now)

    async def give_back(self, url: str, host: str, names: tuple[str, ...], at: float) -> None:
        """The order that took its places at `at` brought no certificate: those that count certificates are free.

        Otherwise a CA that fails for a day would cost a six-day certificate the rest of its life.
        """
        for count in self._issued(url, host, names):
            key = keys.acme("budget", count.name)
            while (entry := await self._store.get(key)) is not None:
                taken = _times(entry)
                if at not in taken:
                    break
                taken.remove(at)
                if await self._store.replace(key, json.dumps(taken).encode(), entry.version):
                    break

    def _issued(self, url: str, host: str, names: tuple[str, ...]) -> tuple[_Count, _Count]:
        """The limits that count certificates."""
        settings, ca, week = self._settings, digest(url), 7 * DAY
        domain, same = registered(host), digest(",".join(sorted(names)))
        return (
            _Count(f"domain/{ca}/{domain}", Limit(settings.domain_limit, week), f"certificates under {domain}"),
            _Count(f"set/{ca}/{same}", Limit(settings.set_limit, week), f"certificates of {host}"),
        )

    async def failed(self, url: str, host: str, now: float) -> None:
        """Count a failed authorization."""
        count = _Count(f"failures/{digest(url)}/{host}", Limit(self._settings.failure_limit, HOUR), "")
        await self._add(count, now, always=True)

    async def _add(self, count: _Count, now: float, always: bool = False) -> None:
        key = keys.acme("budget", count.name)
        while True:
            entry = await self._store.get(key)
            taken = pruned(_times(entry), count.limit, now)
            free = free_at(taken, count.limit, now)
            if free > now and not always:
                raise _over(count, free)
            value = json.dumps([*taken, now]).encode()
            if entry is None:
                if await self._store.create(key, value):
                    return
            elif await self._store.replace(key, value, entry.version):
                return

    async def _taken(self, count: _Count) -> list[float]:
        entry = await self._store.get(keys.acme("budget", count.name))
        return _times(entry)


def _times(entry: Entry | None) -> list[float]:
    """The times of a count; one that cannot be read is as if nothing was taken: the CA itself still counts."""
    if entry is None:
        return []
    try:
        return _TIMES.validate_json(entry.value)
    except ValueError as error:
        tell(entry.key, entry.value, error)
        return []


def _over(count: _Count, free: float) -> OverBudget:
    return OverBudget(f"the CA's limit of {count.limit.count} {count.words} is reached", free)
