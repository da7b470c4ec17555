"""Who may hold how many connections: nobody keeps others out."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from brandproxy.core.tokens import Click
from tests.edge.conftest import HOST, RunningEdge, prepare
from tests.edge.test_clients import header
from tests.edge.test_hostile import statuses


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    data: Path = tmp_path_factory.mktemp("edge")
    running = prepare(data, BRANDPROXY_EDGE_PROXY_PROTOCOL="true", BRANDPROXY_EDGE_MAX_CONNECTIONS_NETWORK="20")
    running.start()
    yield running
    running.stop()


def connect(edge: RunningEdge, address: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", edge.http), timeout=5)
    sock.sendall(header(address))
    return sock


def click(edge: RunningEdge, sock: socket.socket) -> list[int]:
    sock.sendall(f"GET /c/{edge.token(Click('https://shop.example/'))} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    return statuses(sock.recv(65536))


def is_open(sock: socket.socket) -> bool:
    sock.settimeout(0.5)
    try:
        return bool(sock.recv(1))
    except TimeoutError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize("network", ["198.51.100.{}", "2001:db8:5:{}::7"])
def test_one_network_holds_its_share_and_no_more_and_is_answered_all_the_same(
    balanced: RunningEdge, network: str
) -> None:
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(connect(balanced, "203.0.113.9"))
        assert click(balanced, other) == [302]
        held = [stack.enter_context(connect(balanced, network.format(n))) for n in range(1, 41)]
        newest = stack.enter_context(connect(balanced, network.format(77)))
        assert click(balanced, newest) == [302]
        assert sum(map(is_open, held)) == 19
        assert click(balanced, other) == [302], "a client of another network lost its connection"


def test_many_clients_behind_one_proxy_of_this_machine_are_no_network(tmp_path: Path) -> None:
    edge = prepare(tmp_path, BRANDPROXY_EDGE_MAX_CONNECTIONS_NETWORK="5")
    edge.start()
    try:
        with contextlib.ExitStack() as stack:
            held = [
                stack.enter_context(socket.create_connection(("127.0.0.1", edge.http), timeout=5))
                for _ in range(20)
            ]
            assert [click(edge, sock) for sock in held] == [[302]] * 20
    finally:
        edge.stop()
