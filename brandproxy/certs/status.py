"""How a host's certificate stands, for people: the facts, the next renewal, what went wrong last."""

from __future__ import annotations

from dataclasses import dataclass

from brandproxy.certs import progress
from brandproxy.certs.vault import facts
from brandproxy.store import Store, keys


@dataclass(frozen=True, slots=True)
class CertStatus:
    """Times are seconds; 0: none. `error`: why the last order failed, one sentence."""

    host: str
    ca: str = ""
    serial: str = ""
    not_before: int = 0
    not_after: int = 0
    renew_at: int = 0
    failures: int = 0
    next_try_at: int = 0
    error: str = ""


async def status(store: Store, host: str) -> CertStatus:
    entry = await store.get(keys.cert(host))
    read = facts(entry.value) if entry else None
    known = await progress.read(store, host)
    waits = int(known.next_at) if known.error else 0
    if read is None:
        return CertStatus(host, failures=known.failures, next_try_at=waits, error=known.error)
    renews = known.renew_at if known.serial == read.serial else 0
    return CertStatus(
        host, read.ca, read.serial, read.not_before, read.not_after, renews, known.failures, waits, known.error
    )
