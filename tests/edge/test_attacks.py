"""What many connections and odd timing get out of an edge: no answer twice, no memory, no lines in the log."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from brandproxy.core.tokens import Click, Unsubscribe
from brandproxy.edge.connection import Connection
from tests.edge.conftest import HOST, RUN, RunningEdge, eventually, prepare
from tests.edge.test_hostile import clicks_meanwhile, send, statuses

URL = "https://shop.example/"
GOOD = f"Host: {HOST}\r\n"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    running = prepare(tmp_path_factory.mktemp("attacks"))
    log = (running.data / "log").open("wb")
    with log:
        running.start(stderr=log)
        yield running
        running.stop()


def logged(edge: RunningEdge) -> str:
    return (edge.data / "log").read_text()


def worker(edge: RunningEdge) -> psutil.Process:
    assert edge.process is not None
    return psutil.Process(edge.process.pid).children()[0]


def connect(edge: RunningEdge) -> socket.socket:
    return socket.create_connection(("127.0.0.1", edge.http), timeout=10)


def click(edge: RunningEdge, extra: str = "") -> bytes:
    return f"GET /c/{edge.token(Click(URL))} HTTP/1.1\r\n{GOOD}{extra}\r\n".encode()


def test_a_message_gets_one_answer_however_its_body_breaks(target: RunningEdge) -> None:
    chunked = click(target, "Transfer-Encoding: chunked\r\n")
    before = len(target.events())
    assert statuses(send(target, chunked + b"ZZ\r\n")) == [400]
    assert len(target.events()) == before
    with connect(target) as sock:  # answered with 405 at once, then a body beyond all bounds
        sock.sendall(f"POST /c/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n".encode())
        time.sleep(0.2)
        sock.sendall(b"7a120\r\n")
        answer = b""
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                sock.sendall(b"x" * 10_000)
                time.sleep(0.001)
        with contextlib.suppress(ConnectionError):
            while chunk := sock.recv(65536):
                answer += chunk
    assert statuses(answer) in ([405], [])  # [], where the reset overtook it


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        (b"GET nonsense\r\n\r\n", 400),
        (f"GET / HTTP/1.1\r\n{GOOD}X: {'a' * 40_000}\r\n\r\n".encode(), 431),
        (f"GET /{'a' * 9_500} HTTP/1.1\r\n{GOOD}\r\n".encode(), 414),
    ],
    ids=["nonsense", "head too long", "target too long"],
)
def test_requests_before_a_broken_one_are_answered_and_none_behind_it(
    target: RunningEdge, broken: bytes, status: int
) -> None:
    data = click(target) + click(target) + broken + click(target)
    assert statuses(send(target, data)) == [302, 302, status]


def test_a_body_within_bounds_may_come_in_pieces(target: RunningEdge) -> None:
    token = target.token(Unsubscribe("https://127.0.0.1:9/u"))
    body = b"List-Unsubscribe=One-Click&" + b"x" * 60_000
    with connect(target) as sock:
        sock.sendall(f"POST /u/{token} HTTP/1.1\r\n{GOOD}Content-Length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 5000):
            sock.sendall(body[at : at + 5000])
            time.sleep(0.005)
        assert statuses(sock.recv(65536)) == [202]


def test_a_body_that_breaks_off_is_no_wish(target: RunningEdge) -> None:
    token = target.token(Unsubscribe("https://127.0.0.1:9/u"))
    before = sum(event.kind == "unsubscribe" for event in target.events())
    with connect(target) as sock:
        head = f"POST /u/{token} HTTP/1.1\r\n{GOOD}Content-Length: 5000\r\n\r\nList-Unsubscribe=One-Click"
        sock.sendall(head.encode())
    time.sleep(0.5)
    assert sum(event.kind == "unsubscribe" for event in target.events()) == before


@pytest.mark.parametrize("endless", [b"X: " + b"a" * 1000 + b"\r\n", b"1;" + b"e" * 1000 + b"\r\nx\r\n"])
def test_what_stands_around_a_body_is_bounded_and_is_no_header(target: RunningEdge, endless: bytes) -> None:
    """Trailers without end, chunks whose extensions are all there is."""
    token = target.token(Unsubscribe("https://127.0.0.1:9/u"))
    head = f"POST /u/{token} HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n".encode()
    sent = 0
    with connect(target) as sock:
        sock.sendall(head + (b"0\r\n" if endless.startswith(b"X") else b""))
        with contextlib.suppress(ConnectionError):
            for _ in range(3000):
                sock.sendall(endless)
                sent += len(endless)
                time.sleep(0.0002)
    assert sent < 2_000_000  # what the sockets' own buffers take


def test_who_asks_and_never_reads_is_not_read_from(target: RunningEdge) -> None:
    """One segment after the other, none of the answers read."""
    before = worker(target).memory_info().rss
    request = click(target) * 20
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", target.http))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(0.5)
        until, blocked = time.monotonic() + 10, False
        while time.monotonic() < until and not blocked:
            try:
                sock.sendall(request)
                time.sleep(0.0001)
            except (TimeoutError, ConnectionResetError):  # or cut off, for too many at once
                blocked = True
    assert blocked, "the edge goes on reading"
    assert worker(target).memory_info().rss - before < 20_000_000


def test_a_request_that_waits_is_not_answered_before_its_client_reads() -> None:
    """Each answer wakes the next request; a client that reads none of them must not keep that going."""
    written: list[bytes] = []

    class Echo(Connection):
        def _asset(self, data: bytes) -> bool:
            self._reply = data
            return True  # as if it waited for the disk

    class Full:
        """A transport whose buffer one answer fills."""

        reading = True

        def write(self, data: bytes) -> None:
            written.append(data)
            connection.pause_writing()

        def pause_reading(self) -> None:
            self.reading = False

        def resume_reading(self) -> None:
            self.reading = True

    front = SimpleNamespace(now=1.0, patience=15.0, admit=lambda *_: True)
    connection, transport = Echo(front, "127.0.0.1"), Full()  # type: ignore[arg-type]
    connection._transport = transport  # type: ignore[assignment]
    for data in (b"1", b"2"):
        connection.data_received(data)
    connection.send(True)
    assert (written, transport.reading) == ([b"1"], False)
    connection.data_received(b"3")  # was on its way
    assert written == [b"1"]
    connection.resume_writing()
    connection.send(True)
    assert (written, transport.reading) == ([b"1", b"23"], False)


def test_hostile_clients_write_no_log(target: RunningEdge) -> None:
    upgrade = click(target, "Connection: Upgrade\r\nUpgrade: websocket\r\n")
    for _ in range(20):
        send(target, upgrade)
        send(target, b"GET / HTTP/9\r\n\r\n")
        with connect(target) as sock:  # gone before we can ask who it was
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(click(target))
    for name in (b"\xff" * 12, b"a\x00b.example." + b"x"):
        hello = client_hello().replace(b"aaaa.example", name[:12].ljust(12, b"z"))
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", target.https), timeout=5) as sock:
                sock.sendall(hello)
                with contextlib.suppress(ConnectionError):
                    sock.recv(100)
    assert clicks_meanwhile(target, 0.1)
    assert [line for line in logged(target).splitlines() if not line.startswith("unsubscribe: ")] == []


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="aaaa.example")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_connections_that_drip_make_room_for_good_ones(tmp_path: Path) -> None:
    """More half requests than the edge takes connections: each good click is answered all the same."""
    running = prepare(tmp_path, BRANDPROXY_EDGE_MAX_CONNECTIONS="50")
    running.start()
    try:
        with contextlib.ExitStack() as opened:
            for _ in range(120):
                sock = opened.enter_context(connect(running))
                sock.sendall(f"GET / HTTP/1.1\r\n{GOOD}".encode())
            assert clicks_meanwhile(running, 0.5)
    finally:
        running.stop()


def test_running_out_of_descriptors_neither_ends_nor_spins_an_edge(tmp_path: Path) -> None:
    running = prepare(tmp_path)
    running.start(["-c", f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90)); {RUN}"])
    try:
        with contextlib.ExitStack() as opened:
            for _ in range(300):
                with contextlib.suppress(OSError):
                    opened.enter_context(connect(running))
            before = sum(worker(running).cpu_times()[:2])
            assert clicks_meanwhile(running, 1.0)
            assert sum(worker(running).cpu_times()[:2]) - before < 0.9
        assert eventually(lambda: bool(clicks_meanwhile(running, 0.1)))
    finally:
        running.stop()
