"""From records to rows: decoded, checked, judged with their neighbours, described. Every collector's middle part.

A record that cannot be read is set aside in `dead-letter/events` and counted, and never stops those behind it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import maxminddb
from prometheus_client import Counter

from brandproxy.config import Settings
from brandproxy.core import agents, events, urls
from brandproxy.core.neighbours import Neighbours
from brandproxy.engines import Row
from brandproxy.errors import BadSettings
from brandproxy.model import Event

UNREADABLE = Counter("brandproxy_events_unreadable", "Spool records set aside because they could not be read")


class Intake:
    """One for each collecting process; `rows` may be called from several threads."""

    def __init__(self, dead_letters: Path, geoip: Path | None = None) -> None:
        self._dead_letters = dead_letters
        self._neighbours = Neighbours()
        self._lock = threading.Lock()
        self._countries = Countries(geoip)

    def rows(self, records: Sequence[bytes]) -> tuple[list[Row], list[Event]]:
        """The rows of a batch, and events of earlier batches that it showed to be machines' or people's."""
        with self._lock:
            return self._rows(records)

    def _rows(self, records: Sequence[bytes]) -> tuple[list[Row], list[Event]]:
        rows: dict[str, Row] = {}
        changed: dict[str, Event] = {}
        for record in records:
            try:
                event, *earlier = self._neighbours.judged(checked(events.decode(record)))
                rows[event.id] = self._row(event)
            except (ValueError, TypeError, OverflowError, RecursionError):
                UNREADABLE.inc()
                set_aside(self._dead_letters, record)
                continue
            for other in earlier:
                if other.id in rows:
                    rows[other.id] = self._row(other)
                else:
                    changed[other.id] = other
        return list(rows.values()), list(changed.values())

    def _row(self, event: Event) -> Row:
        return row(event, self._countries.of(event.address))


def open_intake(settings: Settings) -> Intake:
    """Raises BadSettings when the GeoIP database cannot be read."""
    return Intake(settings.data / "dead-letter" / "events", settings.analytics.geoip)


class Countries:
    """The country of a recorded client address, by a MaxMind database when there is one."""

    def __init__(self, database: Path | None) -> None:
        try:
            self._reader = maxminddb.open_database(database) if database else None
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            raise BadSettings(f"analytics.geoip: {error}") from error
        self.of = lru_cache(maxsize=65536)(self._of)

    def _of(self, address: str) -> str:
        """ISO 3166-1 code; "" when unknown, or when the tenant has addresses hashed or left out."""
        try:
            found = self._reader.get(ipaddress.ip_address(address)) if self._reader and address else None
        except ValueError:
            return ""
        country = found.get("country") if isinstance(found, dict) else None
        code = country.get("iso_code") if isinstance(country, dict) else None
        return code if isinstance(code, str) else ""


def checked(event: Event) -> Event:
    """`event` when every field has the type and range it should. Raises ValueError or TypeError."""
    e = event
    numbers = (e.at_us, e.link, e.sent_at, e.rules)
    refs = (e.tenant, e.host, e.campaign, e.message, e.recipient, e.url)
    "".join((e.id, e.kind, *refs, e.address, e.agent, e.method, *e.machine)).encode()  # raises when one is no text
    if not all(type(n) is int and 0 <= n < 1 << 53 for n in numbers) or max(e.link, e.rules) >= 1 << 31:
        raise ValueError("a number is out of range")
    return event


def row(event: Event, country: str = "") -> Row:
    """An event with what is derived from it."""
    e = event
    agent = agents.describe(e.agent)
    return Row(
        e.id, e.kind, e.at_us, e.tenant, e.host, e.campaign, e.message, e.recipient, e.link, e.url, e.sent_at,
        e.address, e.agent, e.method, list(e.machine), e.rules, not e.machine, reader(e.tenant, e.recipient),
        urls.host_of(e.url), agent.device, agent.client, country, time.time_ns() // 1000,
    )  # fmt: skip


def reader(tenant: str, recipient: str) -> int:
    """The number that unique counts count: a 63-bit hash, 0 for no recipient."""
    if not recipient:
        return 0
    digest = hashlib.blake2b(f"{tenant}\0{recipient}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def set_aside(path: Path, record: bytes) -> None:
    """Append a record nobody could read, hex, one a line, for a person to look at."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a") as file:
        file.write(record.hex() + "\n")
