"""What somebody is told of a certificate (`webhooks.notices`): that it is there, that getting the next one fails,
that it ends soon. Each is told once."""

from __future__ import annotations

from collections.abc import Mapping

from brandproxy.certs.progress import Progress
from brandproxy.certs.vault import Certificate, Facts
from brandproxy.directory import Directory
from brandproxy.model import Host, HostState
from brandproxy.store import Store
from brandproxy.webhooks.notices import Notice, named, tell

_FAILURES = 2  # in a row: one may be chance, and is tried again after a minute
_LEFT = 6  # the last sixth of a lifetime: renewal began at a third (half, under ten days), so something is wrong


async def issued(store: Store, host: Host, present: Certificate) -> None:
    data = {"host": host.name, "serial": present.serial, "not_after": present.not_after, "ca": present.ca}
    notice = Notice("certificate.issued", host.tenant, present.not_before, data)
    await tell(store, named("issued", host.name, host.target, present.serial), notice)


async def failing(store: Store, host: Host, present: Certificate | None, known: Progress, now: float) -> None:
    """Told at the second failure in a row, and not again before one succeeded."""
    if known.failures != _FAILURES:
        return
    data = {
        "host": host.name, "code": known.code, "error": known.error, "next_try_at": int(known.next_at),
        "serial": present.serial if present else None, "not_after": present.not_after if present else None,
    }  # fmt: skip
    notice = Notice("certificate.failing", host.tenant, int(now), data)
    await tell(store, named("failing", host.name, host.target, known.next_at), notice)


async def expiring(
    store: Store, directory: Directory, facts: Mapping[str, Facts], told: dict[str, str], now: float
) -> None:
    """`told` remembers host -> serial, so that the store is not asked again and again."""
    for name, read in facts.items():
        if read.not_after - now > (read.not_after - read.not_before) / _LEFT or told.get(name) == read.serial:
            continue
        site = directory.site(name)
        if site is None or site.host.state not in (HostState.VERIFIED, HostState.LIVE):
            continue
        data = {"host": name, "serial": read.serial, "not_after": read.not_after, "ca": read.ca}
        notice = Notice("certificate.expiring", site.host.tenant, int(now), data)
        await tell(store, named("expiring", name, site.host.target, read.serial), notice)
        told[name] = read.serial
