"""What happens when something dies: Postfix keeps the mail and delivers later; none is lost, none doubled.

The filter is a process of its own here, as in production, and is killed with -9 while mails are underway.
BRANDPROXY_DRILL_MAILS (default 12) is how many.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.filters.conftest import HTML, LINK, installation
from tests.filters.mails import number
from tests.filters.mta import Postfix, Sink, postfix, send, start_sink, wait_for

COUNT = int(os.environ.get("BRANDPROXY_DRILL_MAILS", "12"))
KILLS = 2

pytestmark = pytest.mark.timeout(120)


@contextmanager
def filter_process(data: Path, command: str, port: int, *options: str) -> Iterator[Filter]:
    running = Filter(data, command, port, options)
    running.start()
    try:
        yield running
    finally:
        running.kill()


class Filter:
    """`brandproxy milter` or `smtp` on a port, to be killed and started again."""

    def __init__(self, data: Path, command: str, port: int, options: tuple[str, ...]) -> None:
        self._call = [sys.executable, "-m", "brandproxy", command, "--listen", f"127.0.0.1:{port}", *options]
        self._environment = os.environ | {
            "BRANDPROXY_DATA": str(data),
            "BRANDPROXY_MAIL_LISTENERS": '{"smtp": "*", "milter": "*"}',
        }
        self._port = port

    def start(self) -> None:
        self._process = subprocess.Popen(self._call, env=self._environment, stderr=subprocess.DEVNULL)
        wait_for(self._port)

    def kill(self, signal_: int = signal.SIGKILL) -> int:
        self._process.send_signal(signal_)
        return self._process.wait(30)

    def kill_and_start(self) -> None:
        self.kill()
        self.start()


async def patiently(mta: Postfix, at: int) -> None:
    """A client that comes back when it is told to, with the same mail: it was not taken."""
    mail = b"X-Number: %d\r\n" % at + HTML
    for _ in range(60):
        try:
            await asyncio.to_thread(send, mta.port, "news@acme.example", ["you@example.org"], mail)
            return
        except OSError:  # smtplib's errors are: 4xx answers, and connections that broke
            await asyncio.sleep(0.3)
    raise AssertionError(f"mail {at} was never taken")


async def submit(mta: Postfix, count: int) -> None:
    gate = asyncio.Semaphore(5)

    async def one(at: int) -> None:
        async with gate:
            await patiently(mta, at)

    await asyncio.gather(*map(one, range(count)))


def check(sink: Sink, count: int) -> None:
    assert sorted(number(mail.message) for mail in sink.received) == list(range(count))
    assert not [mail for mail in sink.received if LINK in mail.message]


@asynccontextmanager
async def behind_milter(tmp_path: Path, sink: Sink) -> AsyncIterator[tuple[Filter, Postfix]]:
    port = free_port()
    async with installation(tmp_path):
        with (
            filter_process(tmp_path, "milter", port) as filter_,
            postfix(sink.port, main=f"smtpd_milters = inet:127.0.0.1:{port}") as mta,
        ):
            yield filter_, mta


async def test_the_milter_killed_in_mid_message(tmp_path: Path) -> None:
    """Postfix has the whole message and no answer: it asks the client to come back."""
    async with start_sink() as sink, behind_milter(tmp_path, sink) as (filter_, mta):
        work = asyncio.ensure_future(submit(mta, COUNT))
        for _ in range(KILLS):
            await asyncio.sleep(0.4)
            await asyncio.to_thread(filter_.kill_and_start)
        await work
        await sink.until(COUNT, 60, mta)
        check(sink, COUNT)


@asynccontextmanager
async def behind_proxy(data: Path, sink: Sink) -> AsyncIterator[tuple[Filter, Postfix]]:
    port = free_port()
    async with installation(data):
        with (
            filter_process(data, "smtp", port, "--next-hop", f"127.0.0.1:{sink.port}") as filter_,
            postfix(port) as mta,
        ):
            yield filter_, mta


async def test_the_proxy_killed_in_mid_message(tmp_path: Path) -> None:
    """The next hop knows sender and recipient of each: it keeps none, Postfix keeps all and delivers later."""
    async with start_sink() as sink, behind_proxy(tmp_path, sink) as (filter_, mta):
        sink.before_data = asyncio.Event()
        await submit(mta, 5)
        async with asyncio.timeout(20):
            while sink.halfway < 5:
                await asyncio.sleep(0.05)
        await asyncio.to_thread(filter_.kill)
        sink.before_data.set()
        filter_.start()
        await sink.until(5, 60, mta)
        check(sink, 5)


async def test_the_proxy_killed_at_any_moment(tmp_path: Path) -> None:
    """None is lost. A mail is doubled only when the kill fell between the next hop's taking it and the answer's
    way to Postfix, which no SMTP relay can tell from a loss (RFC 1047)."""
    async with start_sink() as sink, behind_proxy(tmp_path, sink) as (filter_, mta):
        sink.delay = 0.05
        work = asyncio.ensure_future(submit(mta, COUNT))
        kills = []
        for _ in range(KILLS):
            await asyncio.sleep(0.4)
            kills.append(time.monotonic())
            await asyncio.to_thread(filter_.kill_and_start)
        await work
        await sink.settled(mta, COUNT)
        first = {number(mail.message): mail for mail in reversed(sink.received)}
        assert sorted(first) == list(range(COUNT))
        for mail in sink.received:
            earlier = first[number(mail.message)]
            assert mail is earlier or any(abs(earlier.at - kill) < 0.5 for kill in kills)


async def test_next_hop_down_then_up(tmp_path: Path) -> None:
    """The proxy's next hop is away: mail waits in the queue before it, and is delivered when it is back."""
    port, away = free_port(), free_port()
    async with installation(tmp_path):
        with (
            filter_process(tmp_path, "smtp", port, "--next-hop", f"127.0.0.1:{away}"),
            postfix(port) as mta,
        ):
            await submit(mta, 5)
            await asyncio.sleep(1)
            assert mta.queued() == 5
            async with start_sink(away) as sink:
                await sink.settled(mta, 5)
                check(sink, 5)


async def test_next_hop_slow_and_refusing(tmp_path: Path) -> None:
    port = free_port()
    async with start_sink() as sink, installation(tmp_path):
        with (
            filter_process(tmp_path, "smtp", port, "--next-hop", f"127.0.0.1:{sink.port}"),
            postfix(port) as mta,
        ):
            sink.delay = 1.0
            sink.refuse = ["451 4.3.0 not now"] * 4
            await submit(mta, 6)
            await sink.until(6, 60, mta)
            check(sink, 6)


async def test_store_away_after_the_start(tmp_path: Path) -> None:
    """Tenants are known from memory: mail flows on. An unknown one cannot be told from a new one: come back."""
    async with start_sink() as sink, behind_milter(tmp_path, sink) as (_, mta):
        await submit(mta, 1)
        for path in tmp_path.glob("store.db*"):
            path.write_bytes(b"not a database any more" * 100)
        await patiently(mta, 1)
        with pytest.raises(OSError, match="451"):
            await asyncio.to_thread(
                send, mta.port, "a@example.net", ["you@example.org"], b"X-Brandproxy-Tenant: new\r\n" + HTML
            )
        await sink.until(2, 20)
        check(sink, 2)


async def test_sigterm_ends_what_was_begun(tmp_path: Path) -> None:
    async with start_sink() as sink, behind_milter(tmp_path, sink) as (filter_, mta):
        work = asyncio.ensure_future(submit(mta, 10))
        await asyncio.sleep(0.3)
        assert await asyncio.to_thread(filter_.kill, signal.SIGTERM) == 0
        filter_.start()
        await work
        await sink.until(10, 60, mta)
        check(sink, 10)
