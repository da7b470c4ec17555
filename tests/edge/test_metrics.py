"""One scrape shows the whole edge: every worker's counters and gauges, whatever became of a worker."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from pathlib import Path
from urllib.request import urlopen

import psutil

from brandproxy.core.tokens import Click
from tests.conftest import free_port
from tests.edge.conftest import HOST, RunningEdge, eventually, prepare


def clicked(edge: RunningEdge, count: int) -> None:
    """`count` clicks at once, so that more than one worker has to take some."""
    token = edge.token(Click("https://shop.example/"))
    request = f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    with contextlib.ExitStack() as opened:
        socks = [
            opened.enter_context(socket.create_connection(("127.0.0.1", edge.http), timeout=5))
            for _ in range(count)
        ]
        for sock in socks:
            sock.sendall(request.encode())
        for sock in socks:
            assert sock.recv(65536).startswith(b"HTTP/1.1 302 ")


def test_counters_and_gauges_are_those_of_all_workers_and_outlive_a_kill(tmp_path: Path) -> None:
    port = free_port()
    edge = prepare(tmp_path, workers=2, BRANDPROXY_METRICS_LISTEN=f"127.0.0.1:{port}")
    edge.start(["-m", "brandproxy", "serve", "--role", "edge"])

    def figure(name: str) -> float:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else -1.0

    records = 'brandproxy_spool_records_total{spool="spool"}'
    try:
        clicks = 0
        while len(list((tmp_path / "spool").glob("*.seg"))) < 2:  # until both workers took some
            clicked(edge, 40)
            clicks += 40
            assert clicks < 4000
        assert edge.process is not None
        workers = psutil.Process(edge.process.pid).children()
        assert eventually(lambda: figure(records) == clicks)
        with contextlib.ExitStack() as opened:
            for _ in range(20):
                opened.enter_context(socket.create_connection(("127.0.0.1", edge.http)))
            assert eventually(lambda: figure("brandproxy_edge_connections") == 20)
        os.kill(workers[0].pid, signal.SIGKILL)
        psutil.wait_procs(workers[:1], timeout=10)
        assert eventually(
            lambda: len(psutil.Process(edge.process.pid).children()) == 2 and figure(records) == clicks, 10
        )
        clicked(edge, 40)
        assert eventually(lambda: figure(records) == clicks + 40)
        assert eventually(lambda: figure("brandproxy_edge_connections") == 0)
    finally:
        edge.stop()
