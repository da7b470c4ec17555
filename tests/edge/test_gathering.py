"""Who waits for whom before a click or an open is answered."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brandproxy.core.tokens import Click, Open
from brandproxy.edge import gathering
from brandproxy.edge.gathering import Gathering
from brandproxy.spool import Spool, read, segments, writer
from tests.edge.conftest import HOST, RUN, RunningEdge, prepare
from tests.edge.test_hostile import statuses

URL = "https://shop.example/"


class Asked:
    """A connection with a record to write, or with what its decision raises."""

    def __init__(self, record: bytes | None, fault: Exception | None = None) -> None:
        self.record, self.fault = record, fault
        self.sent: list[bool] = []
        self.aborted = False

    def decide(self) -> bytes | None:
        if self.fault is not None:
            raise self.fault
        return self.record

    def send(self, written: bool) -> None:
        self.sent.append(written)

    def abort(self) -> None:
        self.aborted = True


def wait_for_company(monkeypatch: pytest.MonkeyPatch, quiet: float, patience: float) -> None:
    monkeypatch.setattr(gathering, "QUIET", quiet)
    monkeypatch.setattr(gathering, "PATIENCE", patience)
    monkeypatch.setattr(gathering, "LONGER", patience)


async def answered(*asked: Asked) -> None:
    async with asyncio.timeout(10):
        while not all(one.sent for one in asked):
            await asyncio.sleep(0.01)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What spools write."""
    found: list[bytes] = []
    write = writer._write_all
    monkeypatch.setattr(writer, "_write_all", lambda fd, data: (found.append(data), write(fd, data)))
    return found


def everything(directory: Path) -> list[bytes]:
    return [record for segment in segments(directory) for record in read(segment).records]


async def test_nobody_waits_when_all_who_could_come_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_company(monkeypatch, 60.0, 60.0)
    spool = Spool(tmp_path, "w1")
    gather, one, two = Gathering(spool, ["one", "two"]), Asked(b"1"), Asked(b"2")
    gather.join(one)
    await asyncio.sleep(0.1)
    assert not one.sent
    gather.join(two)
    await answered(one, two)
    await spool.close()


async def test_who_waits_for_the_disk_will_not_come_and_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_company(monkeypatch, 60.0, 60.0)
    write = writer._write_all
    monkeypatch.setattr(writer, "_write_all", lambda fd, data: (time.sleep(0.2), write(fd, data)))
    spool = Spool(tmp_path, "w1")
    gather, two = Gathering(spool, ["one", "two"]), Asked(b"2")
    spool.append(b"1")
    gather.join(two)
    await answered(two)
    await spool.close()
    assert (everything(tmp_path), spool.waiting) == ([b"1", b"2"], 0)


async def test_a_click_waits_while_others_come_and_no_longer_and_they_share_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: list[bytes]
) -> None:
    wait_for_company(monkeypatch, 1.5, 60.0)
    spool = Spool(tmp_path, "w1")
    gather, asked = Gathering(spool, range(100)), [Asked(b"%d" % number) for number in range(4)]
    for one in asked:
        gather.join(one)
        await asyncio.sleep(0.6)
    assert not any(one.sent for one in asked)  # 2.4 seconds after the first came
    await answered(*asked)
    await spool.close()
    assert everything(tmp_path) == [b"0", b"1", b"2", b"3"]
    assert len(writes) == 2  # the head of the segment, and all of them


async def test_nobody_waits_longer_because_company_never_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_company(monkeypatch, 0.1, 0.3)
    spool = Spool(tmp_path, "w1")
    gather, first = Gathering(spool, range(100_000)), Asked(b"1")
    gather.join(first)
    async with asyncio.timeout(10):
        while not first.sent:
            gather.join(Asked(b"more"))
            await asyncio.sleep(0.01)
    await spool.close()


@pytest.mark.parametrize(("others", "sleeps"), [(None, False), (["asset"], False), ([], True)])
async def test_only_where_nothing_else_is_to_be_done_does_the_process_sleep_while_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[str] | None, sleeps: bool
) -> None:
    wait_for_company(monkeypatch, 0.5, 60.0)
    spool = Spool(tmp_path, "w1")
    one, start = Asked(b"1"), time.monotonic()
    Gathering(spool, range(3), others).join(one)
    await asyncio.sleep(0.1)
    assert (time.monotonic() - start > 0.45) is sleeps
    await answered(one)
    await spool.close()


async def test_what_came_while_the_process_slept_shares_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: list[bytes]
) -> None:
    wait_for_company(monkeypatch, 0.3, 60.0)
    spool = Spool(tmp_path, "w1")
    gather, one, two = Gathering(spool, range(3), []), Asked(b"1"), Asked(b"2")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        asyncio.get_running_loop().add_reader(ours, lambda: (ours.recv(1), gather.join(two)))
        gather.join(one)
        threading.Timer(0.1, theirs.send, [b"x"]).start()
        await answered(one, two)
        asyncio.get_running_loop().remove_reader(ours)
    await spool.close()
    assert len(writes) == 2  # the head of the segment, and both


async def test_what_goes_wrong_with_one_goes_wrong_with_that_one_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, "w1")
    gather, broken = Gathering(spool, range(3)), Asked(None, RuntimeError("what nobody thought of"))
    others = [Asked(b"1"), Asked(b"2")]
    for one in (others[0], broken, others[1]):
        gather.join(one)
    await answered(*others)
    await spool.close()
    assert [one.sent for one in (others[0], broken, others[1])] == [[True], [], [True]]
    assert (broken.aborted, others[0].aborted) == (True, False)
    assert "what nobody thought of" in caplog.text


async def test_when_the_spool_takes_nothing_all_are_answered_and_counted_as_lost(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w1")
    await spool.close()
    asked = [Asked(b"1"), Asked(b"2")]
    gather = Gathering(spool, asked)
    for one in asked:
        gather.join(one)
    assert [one.sent for one in asked] == [[False], [False]]
    assert (spool.lost, spool.waiting) == (2, 0)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    """An edge that waits a second for company, and a connection nobody asks on, so that it does."""
    edge = prepare(tmp_path_factory.mktemp("patient"))
    edge.start(["-c", "from brandproxy.edge import gathering as g; g.QUIET = g.PATIENCE = 1.0; " + RUN])
    with connect(edge):
        yield edge
    edge.stop()


def connect(edge: RunningEdge) -> socket.socket:
    return socket.create_connection(("127.0.0.1", edge.http), timeout=10)


def request(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n".encode()


def until_closed(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_what_comes_while_a_request_waits_is_answered_in_its_turn(patient: RunningEdge) -> None:
    click = f"/c/{patient.token(Click(URL))}"
    pixel = f"/o/{patient.token(Open('spring'))}.gif"
    whole, last = request(click), request(pixel, "Connection: close\r\n")
    for pieces in ([whole, last], [whole[:20], whole[20:], last], [whole[:20], whole[20:] + last]):
        with connect(patient) as sock:
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(0.1)
            answer = until_closed(sock)
        assert statuses(answer) == [302, 200]
        assert answer.index(b"location: " + URL.encode()) < answer.index(b"GIF89a")


def test_who_ends_his_side_while_his_request_waits_is_answered_all_the_same(patient: RunningEdge) -> None:
    with connect(patient) as sock:
        sock.sendall(request(f"/c/{patient.token(Click(URL))}"))
        sock.shutdown(socket.SHUT_WR)
        assert statuses(until_closed(sock)) == [302]


def test_a_click_whose_client_left_while_it_waited_is_recorded(patient: RunningEdge) -> None:
    with connect(patient) as sock:
        sock.sendall(request(f"/c/{patient.token(Click(URL, recipient='r-gone'))}"))
        time.sleep(0.2)
    with connect(patient) as sock:
        sock.sendall(request(f"/c/{patient.token(Click(URL))}", "Connection: close\r\n"))
        until_closed(sock)
    (event,) = [event for event in patient.events() if event.recipient == "r-gone"]
    assert event.address == "127.0.0.0"  # truncated, as the tenant wants it


def test_told_to_stop_an_edge_answers_what_waits_and_does_not_stay_for_the_rest(tmp_path: Path) -> None:
    edge = prepare(tmp_path)
    edge.start(["-c", "from brandproxy.edge import gathering as g; g.QUIET = g.PATIENCE = 1.0; " + RUN])
    with connect(edge), connect(edge) as whole, connect(edge) as begun:
        whole.sendall(request(f"/c/{edge.token(Click(URL))}"))
        begun.sendall(b"GET /c/")
        time.sleep(0.2)
        start = time.monotonic()
        edge.stop()
        assert time.monotonic() - start < 6.0
        assert statuses(until_closed(whole)) == [302]
        assert statuses(until_closed(begun)) == []
    assert len(edge.events()) == 1
