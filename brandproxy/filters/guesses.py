"""Wrong logins: counted, logged once for each address and quarter of an hour, and slowed over connections.

An address (an IPv6 client's /64) may be wrong a few times; after that it waits before it may try again, twice as
long with each wrong login, whichever connection it comes by. Memory is bounded: of more addresses the longest
silent are forgotten.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network

from prometheus_client import Counter

from brandproxy.filters.peers import Address

log = logging.getLogger(__name__)

LOGINS = Counter("brandproxy_mail_logins", "Logins at the proxy, by what became of them", ["outcome"])

FREE = 3  # wrong logins before an address waits
_LONGEST = 300.0  # seconds of one wait
_FORGOTTEN = 3600.0  # seconds without a wrong login
_LOGGED = 900.0  # seconds between two lines about one address
_MOST = 10_000  # addresses remembered


@dataclass(slots=True)
class _Record:
    wrong: int = 0
    last: float = 0.0
    logged: float = float("-inf")


class Guesses:
    """`now`: seconds of any epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._records: OrderedDict[str, _Record] = OrderedDict()  # the longest silent first

    def wait(self, client: Address | None) -> float:
        """Seconds until this client may try to log in; 0: now."""
        record = self._records.get(_group(client))
        if record is None or record.wrong < FREE:
            return 0.0
        pause = min(_LONGEST, 2.0 ** min(record.wrong - FREE, 20))
        return max(0.0, record.last + pause - self._now())

    def wrong(self, client: Address | None) -> None:
        LOGINS.labels("wrong").inc()
        group, now = _group(client), self._now()
        record = self._records.pop(group, None)
        if record is None or now - record.last > _FORGOTTEN:
            record = _Record()
        record.wrong, record.last = record.wrong + 1, now
        if now - record.logged >= _LOGGED:
            record.logged = now
            log.warning("a wrong login from %s; its next ones are counted, not logged", client or "a UNIX socket")
        self._records[group] = record
        if len(self._records) > _MOST:
            self._records.popitem(last=False)


def _group(client: Address | None) -> str:
    if isinstance(client, IPv6Address) and client.ipv4_mapped is None:
        return str(ip_network((client, 64), strict=False))
    return str(getattr(client, "ipv4_mapped", None) or client)
