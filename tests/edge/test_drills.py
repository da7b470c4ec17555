"""What kills and full disks do to clicks: the load client's own log against what analytics holds.

`EDGE_KILLS` sets how often a worker and then the whole server is killed (the drill of the issue is 10).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from brandproxy import shipping
from brandproxy.context import open_context
from brandproxy.core.tokens import Click
from brandproxy.engines import open_engine
from tests.conftest import need_program
from tests.edge.conftest import HOST, RUN, RunningEdge, prepare

KILLS = int(os.environ.get("EDGE_KILLS", "2"))
RATE = 200  # clicks a second


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a read-only directory")
@pytest.mark.parametrize("ran_before", [False, True])
def test_with_a_read_only_data_directory_links_still_redirect(tmp_path: Path, ran_before: bool) -> None:
    edge = prepare(tmp_path / "data")
    if ran_before:
        edge.start()
        edge.stop()
    frozen = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    command = [need_program("unshare", "util-linux"), "-m", "sh", "-c", frozen, str(edge.data), sys.executable]
    process = subprocess.Popen([*command, "-c", RUN], env=edge.environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"edge:")
        url = f"http://127.0.0.1:{edge.http}/c/{edge.token(Click('https://shop.example/'))}"
        answer = httpx.get(url, headers={"host": HOST}, trust_env=False)
        assert (answer.status_code, answer.headers["location"]) == (302, "https://shop.example/")
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert edge.events() == []


class Load:
    """Clicks at a steady rate, each with a recipient of its own; `answered` is the client's log."""

    def __init__(self, edge: RunningEdge) -> None:
        self.edge = edge
        self.answered: list[str] = []
        self.failed = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, lane: int) -> None:
        number, due = 0, time.monotonic()
        while not self._stop.is_set():
            recipient = f"{lane}-{number}"
            number += 1
            if self._click(recipient):
                self.answered.append(recipient)
            else:
                self.failed += 1
            due = max(due + 4 / RATE, time.monotonic() - 0.2)
            time.sleep(max(0.0, due - time.monotonic()))

    def _click(self, recipient: str) -> bool:
        token = self.edge.token(Click("https://shop.example/", "drill", "m-1", recipient, 1))
        request = f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.edge.http), timeout=5) as sock:
                sock.sendall(request.encode())
                return sock.recv(65536).startswith(b"HTTP/1.1 302 ")
        except OSError:
            return False


def workers(edge: RunningEdge) -> list[psutil.Process]:
    assert edge.process is not None
    return psutil.Process(edge.process.pid).children()


def kill_everything(edge: RunningEdge) -> None:
    assert edge.process is not None
    doomed = [edge.process.pid, *(child.pid for child in workers(edge))]
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    edge.process.wait(10)
    assert edge.process.stdout is not None
    edge.process.stdout.close()
    edge.process = None


def in_analytics(edge: RunningEdge) -> Counter[str]:
    """How often each recipient's click is there, after everything spooled was taken in, twice."""

    async def collect() -> Counter[str]:
        settings = edge.settings()
        engine = open_engine(settings)
        try:
            async with open_context(settings) as context:
                await shipping.drain(context, engine)
                await shipping.drain(context, engine)
            rows = await engine.query("SELECT recipient FROM events WHERE campaign = 'drill'")
        finally:
            await engine.close()
        return Counter(row[0] for row in rows)

    return asyncio.run(collect())


@pytest.mark.timeout(600)
def test_every_answered_click_is_in_analytics_once_whatever_is_killed(tmp_path: Path) -> None:
    edge = prepare(tmp_path, workers=2)
    edge.start()
    try:
        with Load(edge) as load:
            for _ in range(KILLS):
                time.sleep(0.7)
                workers(edge)[0].kill()
                time.sleep(0.7)
                kill_everything(edge)
                in_analytics(edge)  # the collector works meanwhile
                edge.start()
            time.sleep(0.5)
    finally:
        edge.stop()
    assert len(load.answered) > 100 * KILLS
    counted = in_analytics(edge)
    assert [recipient for recipient in load.answered if counted[recipient] != 1] == []
    assert max(counted.values()) == 1


def test_a_killed_worker_is_started_again_and_workers_end_with_their_parent(tmp_path: Path) -> None:
    edge = prepare(tmp_path, workers=2)
    edge.start()
    first = {child.pid for child in workers(edge)}
    os.kill(min(first), signal.SIGKILL)
    deadline = time.monotonic() + 15
    while len({c.pid for c in workers(edge) if c.status() != psutil.STATUS_ZOMBIE} - {min(first)}) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    left = workers(edge)
    assert edge.process is not None
    edge.stop(signal.SIGKILL)
    _, alive = psutil.wait_procs(left, timeout=20)
    assert alive == []


def test_a_request_in_flight_is_answered_before_the_edge_stops(tmp_path: Path) -> None:
    edge = prepare(tmp_path)
    edge.start()
    with Load(edge) as load:
        time.sleep(0.5)
        edge.stop()
    counted = in_analytics(edge)
    assert load.answered
    assert [recipient for recipient in load.answered if counted[recipient] != 1] == []


def test_a_disk_that_hangs_holds_up_no_redirect_for_long_and_is_told(tmp_path: Path) -> None:
    edge = prepare(tmp_path)
    hang = "import time; from brandproxy.edge import app; app.DISK_PATIENCE = 0.5; "
    hang += "from brandproxy.spool import writer; write = writer._write_all; "
    hang += "writer._write_all = lambda fd, data: (time.sleep(4), write(fd, data)); "
    with (tmp_path / "log").open("wb") as log:
        edge.start(["-c", hang + RUN], stderr=log)
        try:
            token = edge.token(Click("https://shop.example/"))
            for extra in ("", "TE: x\r\n"):  # at once, and by the parser
                start = time.monotonic()
                with socket.create_connection(("127.0.0.1", edge.http), timeout=10) as sock:
                    sock.sendall(f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\n{extra}\r\n".encode())
                    assert sock.recv(65536).startswith(b"HTTP/1.1 302 ")
                assert time.monotonic() - start < 3.5
        finally:
            edge.stop()
    assert (tmp_path / "log").read_text().count("the disk does not follow") == 2
    assert len(edge.events()) == 2  # it came back: nothing was lost


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_fails_no_redirect_and_every_loss_is_counted(tmp_path: Path) -> None:
    edge = prepare(tmp_path)
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(spool)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        log = (tmp_path / "log").open("wb")
        with log:
            edge.start(stderr=log)
            deadline = time.monotonic() + 60
            with Load(edge) as load:
                while len(load.answered) < 600 and time.monotonic() < deadline:  # a third more than 64 KiB hold
                    time.sleep(0.1)
            edge.stop()
        assert load.failed == 0
        kept = in_analytics(edge)
        assert 0 < len(kept) < len(load.answered)
        totals = [
            int(line.split()[-1]) for line in (tmp_path / "log").read_text().splitlines() if "lost in all" in line
        ]
        assert totals[-1] == len(load.answered) - len(kept)
    finally:
        subprocess.run(["umount", str(spool)], check=True)
