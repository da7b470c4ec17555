"""The spool: what a commit promises, and what reading finds after crashes and damage."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
from prometheus_client import REGISTRY

from brandproxy.errors import BadInput, SpoolFull
from brandproxy.spool import Spool, read, remove, segments, writer


def everything(directory: Path) -> list[bytes]:
    return [record for segment in segments(directory) for record in read(segment).records]


async def test_an_awaited_append_can_be_read_while_the_writer_lives(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w1")
    await spool.append(b"one")
    await spool.append(b"two")
    (segment,) = segments(tmp_path)
    assert not segment.sealed
    batch = read(segment)
    assert batch.records == [b"one", b"two"]
    assert read(segment, batch.end).records == []
    await spool.append(b"three")
    assert read(segment, batch.end).records == [b"three"]
    await spool.close()
    assert [s.sealed for s in segments(tmp_path)] == [True]


async def test_appends_in_flight_together_share_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = writer._write_all
    monkeypatch.setattr(writer, "_write_all", lambda fd, data: (writes.append(fd), write(fd, data)))
    spool = Spool(tmp_path, "w1")

    async def one(number: int) -> None:
        await spool.append(b"%d" % number)

    await asyncio.gather(*(one(number) for number in range(500)))
    await spool.close()
    assert len(everything(tmp_path)) == 500
    assert len(writes) < 20


@pytest.mark.parametrize(("durability", "waits"), [("fsync", True), ("os", False)])
async def test_a_commit_waits_for_the_disk_unless_told_otherwise(
    tmp_path: Path, durability: Literal["fsync", "os"], waits: bool
) -> None:
    spool = Spool(tmp_path, "w1", durability)
    await spool.append(b"one")
    assert bool(fcntl.fcntl(spool._file._fd, fcntl.F_GETFL) & os.O_DSYNC) is waits
    await spool.close()


@pytest.mark.parametrize(
    ("nice", "policy"), [(0, os.SCHED_BATCH), (1, os.SCHED_OTHER)], ids=["by_default", "with_a_nice_value"]
)
def test_the_writing_thread_interrupts_nobody_unless_the_operator_has_chosen(
    tmp_path: Path, nice: int, policy: int
) -> None:
    code = f"""
import asyncio, os, pathlib
from brandproxy.spool import Spool
os.nice({nice})
async def main():
    spool = Spool(pathlib.Path({str(tmp_path)!r}), "w1")
    await spool.append(b"one")
    print(os.sched_getscheduler(0), os.sched_getscheduler(spool._thread.native_id))
    await spool.close()
asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.split() == [str(os.SCHED_OTHER), str(policy)]


async def test_what_comes_while_the_disk_is_busy_shares_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = writer._write_all
    monkeypatch.setattr(
        writer, "_write_all", lambda fd, data: (time.sleep(0.1), writes.append(fd), write(fd, data))
    )
    spool = Spool(tmp_path, "w1")
    first = spool.append(b"1")
    later = spool.append(b"2", b"3")
    assert later is spool.append(b"4")
    assert (first is later, spool.waiting) == (False, 4)
    await first
    assert spool.waiting == 3
    await later
    assert (len(writes), spool.waiting) == (3, 0)  # the head of the segment, the first, all others
    await spool.close()
    assert everything(tmp_path) == [b"1", b"2", b"3", b"4"]


async def test_a_cancelled_waiter_does_not_disturb_the_others(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w1")

    async def wait(record: bytes) -> None:
        await spool.append(record)

    first, second = asyncio.create_task(wait(b"1")), asyncio.create_task(wait(b"2"))
    await asyncio.sleep(0)
    first.cancel()
    await second
    await spool.close()
    assert everything(tmp_path) == [b"1", b"2"]


async def test_segments_rotate_by_size_and_read_in_limited_steps(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w1", segment_bytes=2000)
    sent = [b"%d " % number + b"x" * 300 for number in range(40)]
    for record in sent:
        await spool.append(record)
    await spool.close()
    found: list[bytes] = []
    assert len(segments(tmp_path)) > 4
    for segment in segments(tmp_path):
        offset = 0
        while (batch := read(segment, offset, limit=2)).records:
            assert len(batch.records) <= 2
            found += batch.records
            offset = batch.end
        remove(segment)
    assert found == sent
    assert segments(tmp_path) == []


async def test_rotation_by_age(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w1", segment_seconds=0.05)
    await spool.append(b"1")
    await asyncio.sleep(0.1)
    await spool.append(b"2")
    await spool.close()
    assert len(segments(tmp_path)) == 2


async def test_records_larger_than_a_read_chunk_come_back_whole(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w1")
    sent = [bytes([n]) * (1 << 20) for n in range(5)]
    for record in sent:
        await spool.append(record)
    await spool.close()
    assert everything(tmp_path) == sent


@pytest.mark.parametrize("cut", [1, 5, 9, 12])
async def test_a_torn_tail_hides_only_the_torn_record(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path, "w1")
    await spool.append(b"whole")
    await spool.append(b"torn!")
    await spool.close()
    (segment,) = segments(tmp_path)
    os.truncate(segment.path, segment.path.stat().st_size - cut)
    assert read(segment).records == [b"whole"]


@pytest.mark.parametrize("offset", range(0, 14, 3))
async def test_damage_in_the_middle_costs_the_damaged_record_only(tmp_path: Path, offset: int) -> None:
    spool = Spool(tmp_path, "w1")
    for record in (b"first", b"second", b"third"):
        await spool.append(record)
    await spool.close()
    (segment,) = segments(tmp_path)
    data = bytearray(segment.path.read_bytes())
    data[data.index(b"second") - 10 + offset] ^= 0xFF
    segment.path.write_bytes(data)
    assert read(segment).records == [b"first", b"third"]


async def test_a_killed_writer_leaves_a_sealed_segment_with_every_acknowledged_record(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, pathlib, signal
from brandproxy.spool import Spool
async def main():
    spool = Spool(pathlib.Path({str(tmp_path)!r}), "w1")
    for number in range(50):
        await spool.append(b"%d" % number)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert [segment.sealed for segment in segments(tmp_path)] == [True]
    assert everything(tmp_path) == [b"%d" % number for number in range(50)]


async def test_a_spool_at_its_bound_counts_what_it_loses(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w1", max_bytes=1000)
    kept = 0
    for _ in range(20):
        try:
            await spool.append(b"x" * 100)
            kept += 1
        except SpoolFull:
            pass
    await spool.close()
    assert 0 < kept < 20
    assert spool.lost == 20 - kept
    assert REGISTRY.get_sample_value("brandproxy_spool_lost_total", {"spool": tmp_path.name}) == spool.lost
    assert len(everything(tmp_path)) == kept


@pytest.mark.parametrize("error", [OSError(5, "I/O error"), MemoryError()])
async def test_a_failed_write_is_not_read_later_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def not_on_disk(fd: int, data: bytes) -> None:
        os.write(fd, data)
        raise error

    spool = Spool(tmp_path, "w1")
    await spool.append(b"before")
    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write_all", not_on_disk)
        with pytest.raises(SpoolFull):
            await spool.append(b"lost")
    await spool.append(b"after")
    await spool.close()
    assert everything(tmp_path) == [b"before", b"after"]
    assert spool.lost == 1


async def test_a_closed_spool_refuses_and_counts(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w1")
    await spool.close()
    with pytest.raises(SpoolFull):
        spool.append(b"late")
    assert spool.lost == 1
    assert segments(tmp_path) == []


async def test_an_active_segment_cannot_be_removed_and_foreign_files_are_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w1")
    await spool.append(b"1")
    with pytest.raises(BadInput):
        remove(segments(tmp_path)[0])
    await spool.close()
    (tmp_path / "zz-other.seg").write_bytes(b"bpspool\x63" + b"?" * 40)
    with pytest.raises(BadInput):
        read(segments(tmp_path)[-1])
