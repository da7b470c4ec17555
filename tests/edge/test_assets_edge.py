"""Assets on the running edge: two worker processes, one cache, one truth after a purge."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest

from brandproxy.context import Context
from brandproxy.core.tokens import Asset
from brandproxy.edge.connection import Connection
from brandproxy.model import Origin, Tenant
from brandproxy.storage import purge
from tests.edge.conftest import HOST, RunningEdge, eventually, prepare
from tests.storage.servers import Nginx, nginx


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Nginx]:
    (tmp_path / "root").mkdir()
    with nginx(tmp_path / "nginx", tmp_path / "root") as server:
        yield server


@pytest.fixture
def edge(tmp_path: Path, storage: Nginx) -> Iterator[RunningEdge]:
    running = prepare(tmp_path / "data", workers=2, BRANDPROXY_OUTBOUND_ALLOW="127.0.0.1")

    def change(tenant: Tenant) -> Tenant:
        return replace(tenant, origins=(Origin("media", storage.url, ("https://media.acme.example/",)),))

    async def add(context: Context) -> None:
        await context.registry.change_tenant("acme", change, "test")

    running.change(add)
    running.start()
    yield running
    running.stop()


def fetch(edge: RunningEdge, path: str) -> httpx.Response:
    """Over a connection of its own, so that either worker may answer."""
    url = f"http://127.0.0.1:{edge.http}/a/{edge.token(Asset('media', path))}/{path}"
    return httpx.get(url, headers={"host": HOST}, timeout=20)


def test_a_storm_over_two_processes_is_one_request_and_a_purge_reaches_both(
    edge: RunningEdge, storage: Nginx
) -> None:
    image = storage.folder / "logo.png"
    image.write_bytes(os.urandom(50_000))
    with ThreadPoolExecutor(16) as pool:
        bodies = {answer.content for answer in pool.map(lambda _: fetch(edge, "logo.png"), range(64))}
    assert bodies == {image.read_bytes()}
    assert storage.requests == ["GET /logo.png 200"]

    image.write_bytes(b"new")
    assert fetch(edge, "logo.png").content in bodies

    async def give(context: Context) -> None:
        tenant = await context.registry.tenant("acme")
        await purge.give(context.store, purge.of_url(tenant, "https://media.acme.example/logo.png", time.time()))

    edge.change(give)
    assert eventually(lambda: all(fetch(edge, "logo.png").content == b"new" for _ in range(20)), seconds=2.5)


def test_a_forged_token_asks_storage_nothing(edge: RunningEdge, storage: Nginx) -> None:
    token = edge.token(Asset("media", "logo.png"), tenant="globex")
    url = f"http://127.0.0.1:{edge.http}/a/{token}/logo.png"
    assert httpx.get(url, headers={"host": HOST}).status_code == 404
    assert storage.requests == []


def test_an_image_in_memory_is_answered_as_the_parser_would(edge: RunningEdge, storage: Nginx) -> None:
    (storage.folder / "logo.png").write_bytes(os.urandom(50_000))
    for _ in range(8):  # both processes have it in memory
        fetch(edge, "logo.png")
    url = f"http://127.0.0.1:{edge.http}/a/{edge.token(Asset('media', 'logo.png'))}/logo.png"
    with httpx.Client(headers={"host": HOST}) as fast, httpx.Client(headers={"host": HOST, "te": "x"}) as parsed:
        for _ in range(3):
            quick, slow = fast.get(url), parsed.get(url)
            assert (quick.status_code, quick.content) == (slow.status_code, slow.content)
            for answer in (quick, slow):
                del answer.headers["date"]  # raises where there is none; a second may have passed between
            assert sorted(quick.headers.items()) == sorted(slow.headers.items())
        assert fast.get(url, headers={"range": "bytes=0-9"}).status_code == 206
        assert fast.get(url, headers={"if-none-match": quick.headers["etag"]}).status_code == 304
        assert fast.head(url).content == b""
        closed = fast.get(url, headers={"connection": "close"})
        assert (closed.headers["connection"], closed.content) == ("close", quick.content)


def test_a_client_that_asks_and_never_reads_costs_little_memory(edge: RunningEdge, storage: Nginx) -> None:
    (storage.folder / "big.png").write_bytes(os.urandom(250_000))
    for _ in range(8):
        fetch(edge, "big.png")
    path = f"/a/{edge.token(Asset('media', 'big.png'))}/big.png"
    request = f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
    workers = psutil.Process(edge.process.pid).children() if edge.process else []
    before = sum(worker.memory_info().rss for worker in workers)
    greedy = [socket.create_connection(("127.0.0.1", edge.http)) for _ in range(10)]
    for _ in range(40):  # 100 MB asked for
        for client in greedy:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.send(request)
        time.sleep(0.005)
    time.sleep(0.3)
    grown = sum(worker.memory_info().rss for worker in workers) - before
    for client in greedy:
        client.close()
    assert grown < 30_000_000
    assert fetch(edge, "big.png").status_code == 200


@pytest.mark.parametrize("size", [250_000, 6_000_000])  # in memory; from disk
@pytest.mark.parametrize("tls", [True, False])
def test_a_client_that_asks_and_never_reads_costs_64_kib(
    edge: RunningEdge, storage: Nginx, tls: bool, size: int
) -> None:
    (storage.folder / "big.png").write_bytes(os.urandom(size))
    for _ in range(8):
        fetch(edge, "big.png")
    path = f"/a/{edge.token(Asset('media', 'big.png'))}/big.png"
    request = f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
    workers = psutil.Process(edge.process.pid).children() if edge.process else []

    def ask(stack: contextlib.ExitStack) -> None:
        sock = stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", edge.https if tls else edge.http))
        if tls:
            sock = stack.enter_context(edge.client_tls().wrap_socket(sock, server_hostname=HOST))
        sock.sendall(request)

    with contextlib.ExitStack() as stack:
        for _ in range(40):  # what is made once
            ask(stack)
        time.sleep(1.0)
        before = sum(worker.memory_info().rss for worker in workers)
        for _ in range(150):
            ask(stack)
        time.sleep(1.5)
        grown = sum(worker.memory_info().rss for worker in workers) - before
    assert grown / 150 < 72 * 1024  # 64 KiB, and what the allocator rounds up


def test_a_connection_whose_client_does_not_read_is_not_read_from_and_ends() -> None:
    reading: list[bool] = []
    transport = SimpleNamespace(
        get_extra_info=lambda _: None,
        pause_reading=lambda: reading.append(False),
        resume_reading=lambda: reading.append(True),
        set_write_buffer_limits=lambda _: None,
    )
    front = SimpleNamespace(now=100.0, patience=15, admit=lambda *_: True)
    connection = Connection(front)  # type: ignore[arg-type]
    connection.connection_made(transport)  # type: ignore[arg-type]
    assert connection.idle()
    connection.pause_writing()
    assert not connection.idle()
    assert (connection.overdue(129), connection.overdue(131)) == (False, True)
    front.now = 120.0
    connection.resume_writing()
    assert reading == [False, True]
    assert (connection.idle(), connection.overdue(131), connection.overdue(136)) == (True, False, True)
