"""Events of a fleet: from the edges' spools over the stream into the analytics engine.

`ship` runs on every edge, `collect` on every collector; any number of each.

Invariants: a segment leaves an edge's disk only when it is sealed and the engine has stored all of it, so
nothing between them needs to be durable; a collector stores a segment's ranges in order, whoever else holds the
ones before; with the stream away or full, events wait in the spool and recipients notice nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import Counter, Gauge

from brandproxy import spool
from brandproxy.context import Context
from brandproxy.engines import Engine
from brandproxy.errors import BadInput, Retryable
from brandproxy.intake import Intake, open_intake
from brandproxy.shipping import INGESTED, POLL
from brandproxy.stream import Parcel, Stream

log = logging.getLogger(__name__)

SENT = Counter("brandproxy_events_sent", "Events this edge has sent into the stream")
WAITING = Gauge(
    "brandproxy_events_stream_entries",
    "Entries of the stream that are not stored yet",
    multiprocess_mode="livesum",
)

_BATCH = 2000  # records of one entry
_MOST = 20_000  # records of one write to the engine: many edges send small entries, and a write costs the same
_TAKE = 50  # entries a collector asks for at once
_IDLE_MS = 10_000  # an entry not stored for so long is claimed from its collector, which may be dead
_CLAIM_EVERY = 3.0  # seconds
_GAP = 30.0  # seconds until what should lie before an entry counts as lost by Redis and is sent again
_RETRY = 0.5  # seconds while Redis or the engine is away
_FRAME = 10  # bytes of a record's frame in a segment (brandproxy/spool)


async def ship(context: Context, url: str) -> None:
    """Send this machine's spool into the stream, for ever."""
    shipper = Shipper(context.settings.data / "spool", Stream(url))
    try:
        while True:
            try:
                moved = await shipper.turn()
            except Retryable as error:
                log.warning("shipper: events wait in the spool: %s", error)
                await asyncio.sleep(_RETRY)
                continue
            if not moved:
                await asyncio.sleep(POLL)
    finally:
        await shipper.stream.leave()


@dataclass
class Shipper:
    directory: Path
    stream: Stream
    _sent: dict[str, int] = field(default_factory=dict)

    async def turn(self) -> int:
        """One look at every segment; how many records were sent."""
        segments = await asyncio.to_thread(spool.segments, self.directory)
        moved = 0
        for segment in segments:
            try:
                moved += await self._advance(segment)
            except (BadInput, OSError) as error:
                log.error("shipper: segment %s is left where it is: %s", segment.id, error)
        self._sent = {s.id: self._sent[s.id] for s in segments if s.id in self._sent}
        return moved

    async def _advance(self, segment: spool.Segment) -> int:
        sent = self._sent.get(segment.id)
        if sent is None:
            sent, _ = await self.stream.position(segment.id)
        batch = await asyncio.to_thread(_read, segment, sent)
        if batch.end == batch.start:
            self._sent[segment.id] = sent
            if segment.sealed:
                await self._finish(segment, sent)
            return 0
        self._sent[segment.id] = await self.stream.send(segment.id, sent, batch.end, batch.records)
        if self._sent[segment.id] != batch.end:
            return 0  # full, or Redis knows better
        SENT.inc(len(batch.records))
        return len(batch.records)

    async def _finish(self, segment: spool.Segment, end: int) -> None:
        """All is sent: remove the segment once it is stored, or go back to where Redis says it is."""
        sent, stored = await self.stream.position(segment.id)
        if end > 0 and stored < end:
            self._sent[segment.id] = sent
            return
        await asyncio.to_thread(spool.remove, segment)
        await self.stream.forget(segment.id)


def _read(segment: spool.Segment, start: int) -> spool.Batch:
    """The next range, such that its records' places follow from its end (see `_beyond`): where the segment is
    damaged a range has one record, and the damage lies before it."""
    batch = spool.read(segment, start, _BATCH)
    if sum(len(record) + _FRAME for record in batch.records) == batch.end - batch.start:
        return batch
    return spool.read(segment, start, 1)


async def collect(context: Context, engine: Engine, url: str) -> None:
    """Take the stream's entries into the engine, for ever, beside other collectors."""
    consumer = f"{socket.gethostname()}.{os.getpid()}"
    collector = StreamCollector(engine, Stream(url, consumer), open_intake(context.settings))
    try:
        while True:
            try:
                await collector.turn()
            except Retryable as error:
                log.warning("collector: events wait: %s", error)
                await asyncio.sleep(_RETRY)
    finally:
        await collector.stream.leave()


@dataclass
class StreamCollector:
    engine: Engine
    stream: Stream
    intake: Intake
    _held: dict[bytes, Parcel] = field(default_factory=dict)
    _since: dict[bytes, float] = field(default_factory=dict)
    _claimed: float = 0.0

    async def turn(self, wait_ms: int = 500) -> int:
        """Receive, claim what others left, store what can be stored; how many entries were."""
        if time.monotonic() - self._claimed > _CLAIM_EVERY:
            self._claimed = time.monotonic()
            self._take(await self.stream.claim(_IDLE_MS, _TAKE))
            WAITING.set(await self.stream.waiting())
        if len(self._held) < _TAKE:
            self._take(await self.stream.receive(_TAKE, 100 if self._held else wait_ms))
        by_segment: dict[str, list[Parcel]] = defaultdict(list)
        for parcel in sorted(self._held.values(), key=lambda parcel: parcel.start):
            by_segment[parcel.segment].append(parcel)
        # Different segments at once: an engine that gathers inserts can put them into one write.
        done = await asyncio.gather(*map(self._store, by_segment.values()), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error
        return sum(count for count in done if isinstance(count, int))

    def _take(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            self._held[parcel.id] = parcel
            self._since.setdefault(parcel.id, time.monotonic())

    async def _store(self, parcels: Sequence[Parcel]) -> int:
        """The ranges of one segment, in order:

        1. those the engine has, and those that continue them: ingest in one write the records the engine lacks
        2. one behind a gap: another collector has what lies before; wait, or have it sent again
        """
        end = await self.engine.end(parcels[0].segment)
        known, records, run = end, list[bytes](), list[Parcel]()
        for parcel in parcels:
            if parcel.start > known or len(records) >= _MOST:
                break
            records += _beyond(parcel, known)
            known = max(known, parcel.end)
            run.append(parcel)
        else:
            parcel = None
        if known > end:
            rows, changed = await asyncio.to_thread(self.intake.rows, records)
            end = await self.engine.ingest(parcels[0].segment, end, known, rows)
            INGESTED.inc(len(rows))
            await self.engine.reclassify(changed)
        stored = [each for each in run if each.end <= end]
        for each in stored:
            await self.stream.stored(each, end)
            self._drop(each)
        if parcel is not None and parcel.start > end and time.monotonic() - self._since[parcel.id] > _GAP:
            await self.stream.again(parcel, end)
            self._drop(parcel)
        return len(stored)

    def _drop(self, parcel: Parcel) -> None:
        self._held.pop(parcel.id, None)
        self._since.pop(parcel.id, None)


def _beyond(parcel: Parcel, end: int) -> list[bytes]:
    """The records of the range that lie behind byte `end` of the segment."""
    at, first = parcel.end, len(parcel.records)
    while first and at - len(parcel.records[first - 1]) - _FRAME >= end:
        first -= 1
        at -= len(parcel.records[first]) + _FRAME
    return parcel.records[first:]
