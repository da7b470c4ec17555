"""The edge's processes: sockets and ticket secrets first, then fork, then watch.

Forking after the ticket secrets are made gives all workers the same, so that sessions resume whichever worker
accepts; the parent keeps them in step for workers it starts later. Call `run` in a process of its own without
other threads: threads do not survive a fork, and a lock one of them held would stay locked in every worker.

The parent does nothing but wait: a worker that ends is started again (at most one a second for each place);
SIGTERM or SIGINT is passed on, and the parent ends when all have drained. Workers end with the parent, however
it ends: the kernel sends them SIGTERM (prctl PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import select
import signal
import sys
import time
import traceback
from contextlib import suppress

from brandproxy import metrics, sockets
from brandproxy.children import end_with
from brandproxy.config import Settings
from brandproxy.edge.tickets import TicketSecrets
from brandproxy.edge.worker import BACKLOG, Listeners, serve
from brandproxy.errors import BadSettings, lines, told

log = logging.getLogger(__name__)

_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
_STARTUP = 60.0  # seconds until all workers should answer
_PATIENCE = 15.0  # seconds for draining before workers are killed


def run(settings: Settings) -> None:
    """Serve until SIGTERM. Raises BadSettings when an address cannot be bound, or a worker cannot even start."""
    _raise_file_limit()
    gc.disable()  # while a large directory is read it would only be walked in vain; workers enable it again
    listeners = Listeners(
        sockets.bind(settings.edge.http, BACKLOG),
        sockets.bind(settings.edge.https, BACKLOG),
        TicketSecrets(time.time()),
    )
    # The parent takes its signals one by one in `sigtimedwait`; workers undo this.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    count = settings.edge.worker_count()
    reader, writer = os.pipe()
    try:
        workers = {_fork(settings, listeners, number, writer): number for number in range(count)}
        if _await_ready(reader, count):
            print(f"edge: {count} workers on {settings.edge.http} and {settings.edge.https}", flush=True)
        _watch(workers, settings, listeners, writer)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for item in (listeners.http, listeners.https):
            item.close()
        os.close(reader)
        os.close(writer)


def _watch(workers: dict[int, int], settings: Settings, listeners: Listeners, ready: int) -> None:
    started = dict.fromkeys(workers.values(), time.monotonic())
    again: set[int] = set()  # workers that were started more than once
    while True:
        event = signal.sigtimedwait(_SIGNALS, 1.0)
        listeners.tickets.advance(time.time())
        if event is not None and event.si_signo in (signal.SIGTERM, signal.SIGINT):
            _stop(set(workers))
            return
        ended = [(workers.pop(pid), pid, status) for pid, status in _ended(set(workers))]
        for number, pid, status in ended:
            log.error("edge: worker %d (%d) ended with %d", number, pid, status)
            if status == os.EX_CONFIG and number not in again:
                _stop(set(workers))
                raise BadSettings("the edge cannot start with these settings", "Correct what it says above.")
            again.add(number)
        for number in set(started) - set(workers.values()):
            if time.monotonic() - started[number] >= 1.0:
                started[number] = time.monotonic()
                workers[_fork(settings, listeners, number, ready)] = number


def _stop(workers: set[int]) -> None:
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    while workers and time.monotonic() < deadline:
        signal.sigtimedwait({signal.SIGCHLD}, 0.2)
        workers -= {pid for pid, _ in _ended(workers)}
    for pid in workers:
        log.error("edge: worker %d did not drain in %.0f s and is killed", pid, _PATIENCE)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _ended(workers: set[int]) -> list[tuple[int, int]]:
    """(pid, exit code) of those that are no more. Asks for each by id: other children are not ours to reap."""
    found = []
    for pid in workers:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found


def _fork(settings: Settings, listeners: Listeners, number: int, ready: int) -> int:
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if not end_with(parent, signal.SIGTERM):
            os._exit(0)
        metrics.name_process(str(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        _run_worker(settings, listeners, number, ready)
        code = 0
    except BaseException as caught:
        error = told(caught)
        traceback.print_exc() if error is None else print(lines(error), file=sys.stderr)
        code = os.EX_CONFIG if isinstance(error, BadSettings) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # never back into the caller's stack, nor its exit handlers


def _run_worker(settings: Settings, listeners: Listeners, number: int, ready: int) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, suppress(asyncio.CancelledError):
        runner.run(serve(settings, listeners, number, ready))  # cancelled: told to end before it was ready


def _await_ready(reader: int, count: int) -> bool:
    deadline = time.monotonic() + _STARTUP
    while count and time.monotonic() < deadline:
        if select.select([reader], [], [], 0.2)[0]:
            count -= len(os.read(reader, count))
        if signal.sigpending() & _SIGNALS:
            return False  # for `_watch` to see to
    return count == 0


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
