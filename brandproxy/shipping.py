"""The collector: carries spooled events into the analytics engine.

Invariants: a segment's bytes are ingested in order and once (the engine keeps how far it is, in the same
transaction as the rows); a segment is removed only when it is sealed and wholly ingested. What happens to
each record on the way is in `intake`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from prometheus_client import Counter

from brandproxy import spool
from brandproxy.context import Context
from brandproxy.engines import Engine
from brandproxy.errors import BadInput, Retryable
from brandproxy.intake import open_intake

log = logging.getLogger(__name__)

POLL = 0.25  # seconds between looks at the spool
BATCH = 5000  # records in one transaction
_RETRY = 2.0  # seconds to wait while the engine is away

INGESTED = Counter("brandproxy_events_ingested", "Events taken into the analytics engine")


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

    def __post_init__(self) -> None:
        self._intake = open_intake(self.context.settings)

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
        rows, changed = await asyncio.to_thread(self._intake.rows, batch.records)
        self._ends[segment.id] = await self.engine.ingest(segment.id, start, batch.end, rows)
        INGESTED.inc(len(rows))
        if changed:
            await self.engine.reclassify(changed)
        return max(1, len(batch.records))
