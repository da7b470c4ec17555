"""The collector: what was spooled is counted once, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy import shipping, spool
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.events import encode
from brandproxy.engines import Engine, open_engine
from brandproxy.engines.base import EngineUnavailable
from tests.analytics.conftest import event

COUNT = "SELECT count(*) FROM events"


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[tuple[Context, Engine]]:
    settings = Settings(data=tmp_path / "var")
    async with open_context(settings) as context:
        engine = open_engine(settings)
        yield context, engine
        await engine.close()


async def spooled(context: Context, records: list[bytes], writer: str = "w") -> None:
    writing = spool.Spool(context.settings.data / "spool", writer, "os")
    for record in records:
        await writing.append(record)
    await writing.close()


async def test_every_record_is_counted_once_and_its_segment_goes(parts: tuple[Context, Engine]) -> None:
    context, engine = parts
    for writer in ("a", "b"):
        await spooled(context, [encode(event()) for _ in range(50)], writer)
    assert await shipping.drain(context, engine) == 100
    assert await shipping.drain(context, engine) == 0
    assert await engine.query(COUNT) == [(100,)]
    assert list((context.settings.data / "spool").iterdir()) == []


async def test_a_collector_that_starts_again_goes_on_where_it_was(parts: tuple[Context, Engine]) -> None:
    context, engine = parts
    writing = spool.Spool(context.settings.data / "spool", "w", "os")
    for number in range(5):
        await writing.append(encode(event()))
        await shipping.drain(context, engine)  # a new collector each time, beside a living writer
        assert await engine.query(COUNT) == [(number + 1,)]
    await writing.close()


async def test_a_segment_delivered_again_counts_once(parts: tuple[Context, Engine], tmp_path: Path) -> None:
    context, engine = parts
    await spooled(context, [encode(event()) for _ in range(7)])
    [segment] = spool.segments(context.settings.data / "spool")
    copy = segment.path.read_bytes()
    await shipping.drain(context, engine)
    segment.path.write_bytes(copy)
    await shipping.drain(context, engine)
    assert await engine.query(COUNT) == [(7,)]


async def test_unreadable_records_are_set_aside_and_stop_nothing(parts: tuple[Context, Engine]) -> None:
    context, engine = parts
    good = encode(event())
    bad = [
        b"not json", b"[1]", b"{}", b"[" * 5000, b"\xff\xfe", b"null",
        good.replace(b'"acme"', b"[]"), good.replace(b'"acme"', b'"\\ud800"'), good.replace(b'"GET"', b"null"),
        good.replace(b'"click",', b'"click",1e300,', 1), good.replace(b",[],", b",[1],"),
        good.replace(b",[],", b",0,"),
    ]  # fmt: skip
    await spooled(context, [good, *bad, encode(event())])
    await shipping.drain(context, engine)
    assert await engine.query(COUNT) == [(2,)]
    lines = (context.settings.data / "dead-letter" / "events").read_text().split()
    assert [bytes.fromhex(line) for line in lines] == bad


async def test_a_segment_of_an_unknown_format_does_not_stop_the_others(parts: tuple[Context, Engine]) -> None:
    context, engine = parts
    await spooled(context, [encode(event())])
    strange = context.settings.data / "spool" / "0000-x.seg"
    strange.write_bytes(b"something else")
    await shipping.drain(context, engine)
    assert await engine.query(COUNT) == [(1,)]
    assert strange.exists()


async def test_events_wait_while_the_engine_is_away(
    parts: tuple[Context, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, engine = parts
    monkeypatch.setattr(shipping, "_RETRY", 0.02)
    ingest, left = engine.ingest, [3]

    async def flaky(*args: object) -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise EngineUnavailable("away")
        return await ingest(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "ingest", flaky)
    await spooled(context, [encode(event())])
    task = asyncio.create_task(shipping.collect(context, engine))
    async with asyncio.timeout(5):
        while await engine.query(COUNT) != [(1,)]:
            await asyncio.sleep(0.02)
    task.cancel()


async def test_a_scanner_that_opens_every_link_is_found_out_also_for_its_first_click(
    parts: tuple[Context, Engine],
) -> None:
    context, engine = parts
    now = 1_790_000_000_000_000
    clicks = [event(now + n * 100_000, message="m", recipient="r", link=n) for n in range(4)]
    collector = shipping.Collector(context, engine)
    verdicts = []
    for n, click in enumerate(clicks):
        await spooled(context, [encode(click)], f"w{n}")
        while await collector.turn():
            pass
        verdicts.append([list(m) for (m,) in await engine.query("SELECT machine FROM events ORDER BY at_us")])
    assert verdicts[0] == [[]]
    assert verdicts[-1] == [["burst"]] * 4
