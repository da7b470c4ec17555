"""On every HTTP port a body is never the next request, whatever a request says of upgrades (RFC 9112 §6.3)."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from brandproxy.core.tokens import Click
from tests.conftest import free_port
from tests.edge.conftest import HOST, RunningEdge, eventually, prepare
from tests.edge.test_hostile import statuses


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    running = prepare(tmp_path_factory.mktemp("smuggling"))
    running.start()
    yield running
    running.stop()


def exchange(port: int, *pieces: bytes) -> bytes:
    """What comes back for bytes sent in pieces."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        with contextlib.suppress(OSError):  # refused and closed before all was sent
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(0.1)
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while chunk := sock.recv(65536):
                answer += chunk
    return answer


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("protocol", ["foo", "websocket", "h2c"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_body_of_an_upgrade_request_is_no_request(
    target: RunningEdge, method: str, protocol: str, framing: str, pieces: int
) -> None:
    hidden = f"GET /c/{target.token(Click('https://shop.example/'))} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    size = f"Content-Length: {len(hidden)}" if framing == "length" else "Transfer-Encoding: chunked"
    upgrade = f"Connection: Upgrade\r\nUpgrade: {protocol}\r\n"
    head = f"{method} /robots.txt HTTP/1.1\r\nHost: {HOST}\r\n{upgrade}{size}\r\n\r\n"
    body = hidden if framing == "length" else f"{len(hidden):x}\r\n{hidden}\r\n0\r\n\r\n"
    sent = [head.encode(), body.encode()] if pieces == 2 else [(head + body).encode()]
    recorded = len(target.events())
    assert len(statuses(exchange(target.http, *sent))) <= 1
    assert len(target.events()) == recorded


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The control and the metrics port of a control role."""
    data, control, metrics = tmp_path_factory.mktemp("control"), free_port(), free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BRANDPROXY_")} | {
        "BRANDPROXY_DATA": str(data),
        "BRANDPROXY_CONTROL_LISTEN": f"127.0.0.1:{control}",
        "BRANDPROXY_METRICS_LISTEN": f"127.0.0.1:{metrics}",
    }
    process = subprocess.Popen([sys.executable, "-m", "brandproxy", "serve", "--role", "control"], env=environment)
    try:
        for port in (control, metrics):
            assert eventually(lambda port=port: b"200 OK" in exchange(port, GET), 60)
        yield control, metrics
    finally:
        process.terminate()
        process.wait(20)


GET = b"GET /openapi.json HTTP/1.1\r\nHost: control.example\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("path", ["/openapi.json", "/v1/rewrite"])
@pytest.mark.parametrize("which", [0, 1], ids=["control", "metrics"])
@pytest.mark.parametrize("protocol", ["foo", "websocket", "h2c"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_port_of_operators_takes_a_body_for_a_request(
    ports: tuple[int, int], method: str, protocol: str, which: int, path: str, pieces: int
) -> None:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: control.example\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n"
        f"Content-Length: {len(GET)}\r\n\r\n"
    ).encode()
    sent = [head, GET] if pieces == 2 else [head + GET]
    assert len(re.findall(rb"HTTP/1\.[01] \d", exchange(ports[which], *sent))) <= 1
