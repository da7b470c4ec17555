"""What is remembered of a host between orders, under `acme/host/<name>`: back-off, an order under way, the
instant of renewal. It is written under the host's lock only, so that it survives restarts and is never torn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from brandproxy.core.renewal import backoff
from brandproxy.store import Store, keys

PREFIX = keys.acme("host", "")
_CLOCKS = 300.0  # seconds nodes' clocks may differ


@dataclass(frozen=True, slots=True)
class Pending:
    """An order the CA knows: whoever comes next goes on with it instead of making another."""

    ca: str
    uri: str
    key: str = field(repr=False)  # certificate key, sealed
    names: tuple[str, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Progress:
    """`next_at`: not before. `error`: one sentence for people. `renew_at` belongs to the leaf `serial`."""

    failures: int = 0
    next_at: float = 0.0
    tried_at: float = 0.0  # when `next_at` was decided
    error: str = ""
    code: str = ""
    pending: Pending | None = None
    serial: str = ""
    renew_at: int = 0
    from_ca: bool = False  # `renew_at` was suggested by the CA (ARI): such renewals are free of its limits
    ask_at: float = 0.0  # when to ask the CA again for its window
    rests: dict[str, float] = field(default_factory=dict)  # CA -> until when it asked not to be asked

    def failed(
        self, error: str, code: str, now: float, left: float, cas: tuple[str, ...] = (), retry_in: float = 0.0
    ) -> Progress:
        """`left`: seconds until the present certificate ends. `cas`: those that may be asked, first the one that
        failed; it told to be left alone for `retry_in`, and another need not wait for that."""
        failures = self.failures + 1
        rests = {ca: until for ca, until in self.rests.items() if until > now}
        if cas and retry_in:
            rests[cas[0]] = now + retry_in
        rested = min((rests.get(ca, 0.0) for ca in cas), default=0.0)
        next_at = max(now + backoff(failures, left), rested)
        return replace(
            self,
            failures=failures,
            next_at=next_at,
            tried_at=now,
            rests=rests,
            error=error,
            code=code,
            pending=None,
        )

    def waits(self, now: float) -> bool:
        """Whether it is too early to try again. A wait decided in our future is void: the clock was wrong then."""
        return now < self.next_at and self.tried_at <= now + _CLOCKS

    def due(self, serial: str, now: float) -> bool:
        """Whether the certificate of this serial is to be renewed; not before its instant was chosen."""
        return self.serial == serial and 0 < self.renew_at <= now

    def waiting(self, error: str, code: str, until: float, now: float) -> Progress:
        """Not a failure: nothing was tried."""
        return replace(self, next_at=until, tried_at=now, error=error, code=code)


_PROGRESS = TypeAdapter(Progress)


def load(value: bytes) -> Progress:
    """As stored; what cannot be read is as if nothing was known."""
    try:
        found = _PROGRESS.validate_json(value)
    except ValueError:
        return Progress()
    times = (found.next_at, found.tried_at, found.ask_at, found.renew_at, *found.rests.values())
    return found if all(0 <= at <= 1e12 for at in times) and 0 <= found.failures < 10_000 else Progress()


async def read(store: Store, host: str) -> Progress:
    entry = await store.get(PREFIX + host)
    return Progress() if entry is None else load(entry.value)


async def write(store: Store, host: str, progress: Progress) -> None:
    await store.put(PREFIX + host, _PROGRESS.dump_json(progress))
