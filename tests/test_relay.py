"""Events from the edges' spools over Redis into the engine (brandproxy/relay.py): each once, whatever is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from brandproxy import relay, spool
from brandproxy.core import events
from brandproxy.core.ids import uuid7
from brandproxy.engines.base import Row
from brandproxy.engines.duckdb import DuckEngine
from brandproxy.errors import Retryable
from brandproxy.intake import Intake
from brandproxy.model import Event
from brandproxy.relay import Shipper, StreamCollector
from brandproxy.spool import Spool
from brandproxy.stream import Stream, pack, unpack
from tests.redis_servers import Server


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def server(shared_server: Server) -> Server:
    shared_server.client().flushall()
    shared_server.client().config_set("maxmemory", 0)
    return shared_server


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[DuckEngine]:
    engine = DuckEngine(tmp_path / "events.duckdb")
    yield engine
    await engine.close()


@pytest_asyncio.fixture
async def parts(server: Server, engine: DuckEngine, tmp_path: Path) -> AsyncIterator[Parts]:
    parts = Parts(server, engine, tmp_path)
    yield parts
    for stream in parts.streams:
        await stream.leave()


class Parts:
    """Edges and collectors around one Redis and one engine."""

    def __init__(self, server: Server, engine: DuckEngine, folder: Path) -> None:
        self.server, self.engine, self.folder = server, engine, folder
        self.streams: list[Stream] = []

    def stream(self, consumer: str = "") -> Stream:
        self.streams.append(Stream(self.server.url, consumer))
        return self.streams[-1]

    def shipper(self, edge: str = "edge") -> Shipper:
        return Shipper(self.folder / edge, self.stream())

    def collector(self, name: str = "c1") -> StreamCollector:
        return StreamCollector(self.engine, self.stream(name), Intake(self.folder / "dead"))

    async def click(self, count: int, edge: str = "edge", seal: bool = True) -> Spool:
        writer = Spool(self.folder / edge, "w", "os")
        for _ in range(count):
            at = int(time.time() * 1e6)
            event = Event(uuid7(at // 1000), "click", at, "acme", "links.acme.com", url="https://a.example/")
            await writer.append(events.encode(event))
        if seal:
            await writer.close()
        return writer

    async def ids(self) -> list[str]:
        return [row[0] for row in await self.engine.query("SELECT id FROM events")]


async def settle(parts: Parts, expected: int, *turns: Callable[[], object], seconds: float = 20.0) -> None:
    """Turn shippers and collectors until the engine has the events and the spools are empty."""
    until = time.monotonic() + seconds
    while True:
        for turn in turns:
            try:
                await turn()  # type: ignore[misc]
            except Retryable:
                await asyncio.sleep(0.05)
        found = await parts.ids()
        left = list(parts.folder.glob("edge*/*.seg"))
        if len(found) == expected and not left:
            assert len(set(found)) == expected
            return
        assert time.monotonic() < until, f"{len(found)} of {expected} events, {len(left)} segments left"


def quick(collector: StreamCollector) -> Callable[[], object]:
    return lambda: collector.turn(wait_ms=20)


async def test_every_event_arrives_once_and_the_spool_empties(parts: Parts) -> None:
    await parts.click(300, "edge1")
    await parts.click(200, "edge2")
    collectors = [parts.collector("c1"), parts.collector("c2")]
    shippers = [parts.shipper("edge1"), parts.shipper("edge2")]
    await settle(parts, 500, *(s.turn for s in shippers), *map(quick, collectors))
    assert await parts.streams[0].waiting() == 0
    assert not [key for key in parts.server.client().keys("*") if b":at:" in key]


async def test_an_event_is_visible_within_two_seconds(parts: Parts) -> None:
    shipper, collector = parts.shipper(), parts.collector()
    writer = await parts.click(1, seal=False)
    started = time.monotonic()
    while not await parts.ids():
        await shipper.turn()
        await collector.turn(wait_ms=20)
        assert time.monotonic() - started < 2
    await writer.close()


async def test_what_has_gathered_is_written_at_once(
    parts: Parts, engine: DuckEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write costs the engine the same for one event as for thousands: behind by entries, not behind for ever."""
    monkeypatch.setattr(relay, "_BATCH", 10)
    await parts.click(300)
    shipper, collector = parts.shipper(), parts.collector()
    while await shipper.turn():
        pass
    assert await collector.stream.waiting() == 30
    writes: list[int] = []

    async def ingest(source: str, start: int, end: int, rows: Sequence[Row]) -> int:
        writes.append(len(rows))
        return await DuckEngine.ingest(engine, source, start, end, rows)

    monkeypatch.setattr(engine, "ingest", ingest)
    assert await collector.turn(wait_ms=20) == 30
    assert writes == [300]
    await settle(parts, 300, shipper.turn)


async def test_a_segment_stays_on_disk_until_the_engine_has_it(parts: Parts) -> None:
    await parts.click(10)
    shipper, collector = parts.shipper(), parts.collector()
    for _ in range(3):
        await shipper.turn()
    assert len(spool.segments(parts.folder / "edge")) == 1
    await settle(parts, 10, quick(collector), shipper.turn)


async def test_a_redis_that_lost_everything_loses_no_event_and_doubles_none(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(7)
    writer = await parts.click(50, seal=False)
    shipper, collector = parts.shipper(), parts.collector()
    total = 50
    for _ in range(8):
        monkeypatch.setattr(relay, "_BATCH", draw.randrange(1, 60))  # other ranges each time it is sent
        for turn in draw.choices([shipper.turn, quick(collector)], k=3):
            try:
                await turn()  # type: ignore[operator]
            except Retryable:
                pass
        if draw.random() < 0.6:
            parts.server.client().flushall()
        at = int(time.time() * 1e6)
        for _ in range(20):
            event = Event(uuid7(at // 1000), "click", at, "acme", "links.acme.com", url="https://a.example/")
            await writer.append(events.encode(event))
        total += 20
    await writer.close()
    await settle(parts, total, shipper.turn, quick(collector))


async def test_a_shipper_that_starts_again_goes_on_where_redis_says(parts: Parts) -> None:
    await parts.click(30)
    await parts.shipper().turn()
    collector = parts.collector()
    await settle(parts, 30, parts.shipper().turn, quick(collector))


async def test_what_a_dead_collector_held_is_stored_by_another(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_IDLE_MS", 200)
    monkeypatch.setattr(relay, "_CLAIM_EVERY", 0.1)
    await parts.click(40)
    shipper = parts.shipper()
    await shipper.turn()
    dead = parts.stream("dead")
    assert len(await dead.receive(10, 0)) == 1  # and never heard of again
    collector = parts.collector("living")
    await settle(parts, 40, quick(collector), shipper.turn)


async def test_ranges_that_arrive_in_the_wrong_hands_are_stored_in_order(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_BATCH", 5)
    await parts.click(60)
    shipper = parts.shipper()
    while await shipper.turn():
        pass
    collectors = [parts.collector(f"c{n}") for n in range(3)]
    monkeypatch.setattr(relay, "_TAKE", 1)  # neighbours go to different collectors
    await settle(parts, 60, *map(quick, collectors[::-1]), shipper.turn)


async def test_a_range_that_redis_lost_from_the_middle_is_sent_again(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_BATCH", 5)
    monkeypatch.setattr(relay, "_GAP", 0.2)
    await parts.click(20)
    shipper = parts.shipper()
    while await shipper.turn():
        pass
    client = parts.server.client()
    second = client.xrange("{brandproxy-events}:stream")[1][0]
    client.xdel("{brandproxy-events}:stream", second)
    await settle(parts, 20, quick(parts.collector()), shipper.turn)


async def test_full_memory_holds_events_back_in_the_spool(parts: Parts) -> None:
    shipper, collector = parts.shipper(), parts.collector()
    await collector.turn(wait_ms=1)
    parts.server.client().config_set("maxmemory", "1mb")
    await parts.click(50)
    for _ in range(3):
        with pytest.raises(Retryable):
            await shipper.turn()
    await collector.turn(wait_ms=1)
    assert await parts.ids() == []
    parts.server.client().config_set("maxmemory", 0)
    await settle(parts, 50, shipper.turn, quick(collector))


async def test_a_full_stream_can_still_be_emptied(parts: Parts) -> None:
    """What is stored leaves a Redis whose memory is full."""
    shipper = parts.shipper()
    await parts.collector("before").turn(wait_ms=1)
    await parts.click(50)
    await shipper.turn()
    parts.server.client().config_set("maxmemory", "1mb")
    collector = parts.collector("started while it was full")
    await settle(parts, 50, quick(collector), shipper.turn)


async def test_a_stream_of_too_many_entries_holds_events_back(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brandproxy.stream._SEND", relay_send_with_bound(3))
    monkeypatch.setattr(relay, "_BATCH", 5)
    await parts.click(50)
    shipper = parts.shipper()
    for _ in range(20):
        await shipper.turn()
    assert await shipper.stream.waiting() == 3
    await settle(parts, 50, shipper.turn, quick(parts.collector()))


def relay_send_with_bound(bound: int) -> str:
    from brandproxy import stream

    return stream._SEND.replace(str(stream.MOST), str(bound))


async def test_a_damaged_segment_costs_the_damaged_record_only(parts: Parts) -> None:
    await parts.click(20)
    [segment] = spool.segments(parts.folder / "edge")
    content = bytearray(segment.path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.path.write_bytes(content)
    await settle(parts, 19, parts.shipper().turn, quick(parts.collector()))


async def test_an_unreadable_record_is_set_aside_and_stops_nothing(parts: Parts) -> None:
    writer = await parts.click(3, seal=False)
    await writer.append(b"\xffnot ours")
    await writer.close()
    await settle(parts, 3, parts.shipper().turn, quick(parts.collector()))
    assert bytes.fromhex((parts.folder / "dead").read_text().strip()) == b"\xffnot ours"


def test_records_are_packed_byte_for_byte() -> None:
    draw = random.Random(3)
    for count in (0, 1, 50):
        records = [draw.randbytes(draw.randrange(200)) for _ in range(count)]
        assert unpack(pack(records)) == records
