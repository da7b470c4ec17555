"""The collector: carries spooled events into the analytics engine.

Invariants: a segment's bytes are ingested in order and once (the engine keeps how far it is, in the same
transaction as the rows); a segment is removed only when it is sealed and wholly ingested; a record that
cannot be read is set aside in `dead-letter/` and counted, and never stops those behind it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import Counter

from brandproxy import spool
from brandproxy.context import Context
from brandproxy.core import agents, events, urls
from brandproxy.core.neighbours import Neighbours
from brandproxy.engines import Engine, Row
from brandproxy.errors import BadInput, Retryable
from brandproxy.model import Event

log = logging.getLogger(__name__)

POLL = 0.25  # seconds between looks at the spool
BATCH = 5000  # records in one transaction
_RETRY = 2.0  # seconds to wait while the engine is away

INGESTED = Counter("brandproxy_events_ingested", "Events taken into the analytics engine")
UNREADABLE = Counter("brandproxy_events_unreadable", "Spool records set aside because they could not be read")


async def collect(context: Context, engine: Engine) -> None:
    """Follow this machine's spool for ever; survives an engine that is away."""
    collector = Collector(context, engine)
    while True:
        try:
            moved = await collector.turn()
        except Retryable as error:
            log.warning("collector: events wait in the spool: %s", error)
            await asyncio.sleep(_RETRY)
            continue
        if not moved:
            await asyncio.sleep(POLL)


async def drain(context: Context, engine: Engine) -> int:
    """Take in everything that is spooled now; how many records were read."""
    collector = Collector(context, engine)
    total = 0
    while moved := await collector.turn():
        total += moved
    return total


@dataclass
class Collector:
    context: Context
    engine: Engine
    _ends: dict[str, int] = field(default_factory=dict)
    _neighbours: Neighbours = field(default_factory=Neighbours)

    async def turn(self) -> int:
        """One look at every segment; how many records moved."""
        moved = 0
        segments = await asyncio.to_thread(spool.segments, self.context.settings.data / "spool")
        for segment in segments:
            try:
                moved += await self._advance(segment)
            except (BadInput, OSError) as error:
                log.error("collector: segment %s is left where it is: %s", segment.id, error)
        self._ends = {s.id: self._ends[s.id] for s in segments if s.id in self._ends}
        return moved

    async def _advance(self, segment: spool.Segment) -> int:
        start = self._ends.get(segment.id)
        if start is None:
            start = await self.engine.end(segment.id)
        batch = await asyncio.to_thread(spool.read, segment, start, BATCH)
        if batch.end == batch.start:
            self._ends[segment.id] = start
            if segment.sealed:
                await asyncio.to_thread(spool.remove, segment)
            return 0
        rows, changed = await asyncio.to_thread(self._rows, batch.records)
        self._ends[segment.id] = await self.engine.ingest(segment.id, start, batch.end, rows)
        INGESTED.inc(len(rows))
        if changed:
            await self.engine.reclassify(changed)
        return max(1, len(batch.records))

    def _rows(self, records: Sequence[bytes]) -> tuple[list[Row], list[Event]]:
        """The rows of a batch, and events of earlier batches that it showed to be machines'."""
        rows: dict[str, Row] = {}
        changed: dict[str, Event] = {}
        for record in records:
            try:
                event, *earlier = self._neighbours.judged(checked(events.decode(record)))
                rows[event.id] = self._derive(event)
            except (ValueError, TypeError, OverflowError, RecursionError):
                self._set_aside(record)
                continue
            for other in earlier:
                if other.id in rows:
                    rows[other.id] = self._derive(other)
                else:
                    changed[other.id] = other
        return list(rows.values()), list(changed.values())

    def _derive(self, event: Event) -> Row:
        return row(event)

    def _set_aside(self, record: bytes) -> None:
        UNREADABLE.inc()
        set_aside(self.context.settings.data / "dead-letter" / "events", record)


def checked(event: Event) -> Event:
    """`event` when every field has the type and range it should. Raises ValueError or TypeError."""
    e = event
    numbers = (e.at_us, e.link, e.sent_at, e.rules)
    text = (
        e.id,
        e.kind,
        e.tenant,
        e.host,
        e.campaign,
        e.message,
        e.recipient,
        e.url,
        e.address,
        e.agent,
        e.method,
    )
    "".join((*text, *e.machine)).encode()  # raises when one is no text or holds half a character
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
        urls.host_of(e.url), agent.device, agent.client, country,
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
