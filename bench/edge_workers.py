"""Two workers beside one, all of them busy: how many clicks more.

The client needs cores of its own, which small machines have not. So the kernel holds each worker to `SHARE` of a
core (cgroups): it has as much to do as it may use, two of them each on a core of its own, and the client has what
is left of both. That takes root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import monotonic

import psutil

from bench.edge import CLIENT_CORE, ROUNDS, SECONDS, SERVER_CORE, Server, ab
from bench.report import Row

SHARE, PERIOD = 0.3, 20_000  # of a core; microseconds
_CORES = f"{SERVER_CORE},{CLIENT_CORE}"
_ROOTS = [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")]  # version 1, 2
_CLICKS = 300  # a second and worker
_AT_ONCE = 64  # connections: enough to keep two busy


def rows(one: Server, two: Server) -> list[Row]:
    """Rates of full handshakes with a click each; no row where workers cannot be held."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    busy: dict[int, list[float]] = {1: [], 2: []}
    try:
        with ExitStack() as stack:
            for server in (one, two):
                stack.enter_context(held(server.processes[1:]))
            for _ in range(ROUNDS):
                for count, server in ((1, one), (2, two)):
                    before, start = sum(server.shares()), monotonic()
                    sample = ab(server, int(SECONDS * _CLICKS * count), _AT_ONCE, _CORES)
                    rates[count].append(sample.rate)
                    busy[count].append((sum(server.shares()) - before) / (monotonic() - start) / SHARE / count)
    except OSError as error:
        print(f"two-workers: not measured, workers cannot be held to a part of a core: {error}")
        return []
    ratio = median(rates[2]) / median(rates[1])
    used = f"one uses {median(busy[1]):.0%} of that, two {median(busy[2]):.0%}"
    note = f"each held to {SHARE:.0%} of a core; {used}"
    return [Row("two-workers", median(rates[2]), "clicks/s", "one-worker", ratio, note)]


@contextmanager
def held(workers: Sequence[psutil.Process]) -> Iterator[None]:
    """Each to `SHARE` of a core of its own. Raises OSError where the kernel does not do it."""
    root = next((root for root in _ROOTS if (root / "cgroup.procs").exists()), _ROOTS[-1])
    second = (root / "cgroup.controllers").exists()
    with ExitStack() as stack:
        for core, worker in enumerate(workers):
            for thread in Path(f"/proc/{worker.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core % (os.cpu_count() or 1)})
            if second:
                (root / "cgroup.subtree_control").write_text("+cpu")
            group = root / f"brandproxy-bench-{worker.pid}"
            group.mkdir()
            stack.callback(group.rmdir)
            limit(group, second)
            (group / "cgroup.procs").write_text(str(worker.pid))
            stack.callback((root / "cgroup.procs").write_text, str(worker.pid))
        yield


def limit(group: Path, second: bool) -> None:
    quota = int(SHARE * PERIOD)
    if second:
        (group / "cpu.max").write_text(f"{quota} {PERIOD}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
