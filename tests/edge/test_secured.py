"""What our own TLS transport promises: records in any pieces, half-closes, alerts, bounds. A client that holds the
records in its hand (MemoryBIO), against a real edge."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator

import psutil
import pytest

from brandproxy.core.tokens import Click, Unsubscribe
from tests.edge.conftest import HOST, RunningEdge, prepare
from tests.edge.test_hostile import statuses

URL = "https://shop.example/"


class Client:
    """A TLS client whose records are ours to delay, join and break."""

    def __init__(self, edge: RunningEdge, version: ssl.TLSVersion, name: str = HOST) -> None:
        context = edge.client_tls()
        context.minimum_version = context.maximum_version = version
        self.sock = socket.create_connection(("127.0.0.1", edge.https), timeout=5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def handshake(self, step: int = 1 << 20, keep_last: bool = False) -> bytes:
        """Shake hands, `step` bytes a segment. `keep_last`: give our last flight back instead of sending it."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send(self.outgoing.read(), step)
                self.receive()
            else:
                last = self.outgoing.read()
                if not keep_last:
                    self.send(last, step)
                return last

    def records(self, plaintext: bytes) -> bytes:
        self.tls.write(plaintext)
        return self.outgoing.read()

    def goodbye(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()

    def send(self, data: bytes, step: int = 1 << 20) -> None:
        for at in range(0, len(data), step):
            self.sock.sendall(data[at : at + step])

    def receive(self) -> None:
        data = self.sock.recv(65536)
        self.incoming.write(data) if data else self.incoming.write_eof()

    def read_all(self) -> bytes:
        """Plaintext until the edge says goodbye; a cut connection raises SSLEOFError."""
        answer = b""
        while True:
            try:
                chunk = self.tls.read(65536)
            except ssl.SSLZeroReturnError:
                return answer
            except ssl.SSLWantReadError:
                self.receive()
                continue
            if not chunk:
                return answer
            answer += chunk


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def client(request: pytest.FixtureRequest, edge: RunningEdge) -> Iterator[Client]:
    with Client(edge, request.param) as made:
        yield made


def click(edge: RunningEdge, extra: str = "Connection: close\r\n") -> bytes:
    return f"GET /c/{edge.token(Click(URL))} HTTP/1.1\r\nHost: {HOST}\r\n{extra}\r\n".encode()


def test_a_click_arrives_byte_by_byte(edge: RunningEdge, client: Client) -> None:
    client.handshake(step=1)
    client.send(client.records(click(edge)), step=1)
    assert statuses(client.read_all()) == [302]  # read_all: ended by a goodbye, not by a cut


def test_the_request_may_come_with_the_end_of_the_handshake(edge: RunningEdge) -> None:
    with Client(edge, ssl.TLSVersion.TLSv1_3) as client:
        last = client.handshake(keep_last=True)
        client.send(last + client.records(click(edge)))
        assert statuses(client.read_all()) == [302]
        assert client.tls.session is not None
        assert client.tls.session.has_ticket


def test_a_client_under_nagles_algorithm_does_not_wait_for_an_acknowledgement(edge: RunningEdge) -> None:
    """It holds its request back until it hears from us, 40 ms if we say nothing to the end of its handshake."""
    took = []
    for _ in range(10):
        with Client(edge, ssl.TLSVersion.TLSv1_3) as client:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            client.handshake()
            request = client.records(click(edge))
            start = time.perf_counter()
            client.send(request)
            assert statuses(client.read_all()) == [302]
            took.append(time.perf_counter() - start)
    assert min(took) < 0.035


def test_one_request_in_many_records_and_many_requests_in_one_segment(edge: RunningEdge, client: Client) -> None:
    client.handshake()
    request = click(edge, extra="")
    client.send(b"".join(client.records(request[at : at + 7]) for at in range(0, len(request), 7)))
    client.send(client.records(request) + client.records(request) + client.records(click(edge)))
    assert statuses(client.read_all()) == [302] * 4


def test_a_client_that_says_goodbye_behind_its_request_is_answered(edge: RunningEdge, client: Client) -> None:
    client.handshake()
    client.send(client.records(click(edge, extra="")) + client.goodbye())
    assert statuses(client.read_all()) == [302]


def test_a_body_may_come_in_pieces_and_a_half_closed_post_is_answered(edge: RunningEdge, client: Client) -> None:
    client.handshake()
    token = edge.token(Unsubscribe("https://127.0.0.1:9/u", ""))
    body = b"List-Unsubscribe=One-Click"
    head = f"POST /u/{token} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    client.send(client.records(head))
    client.send(client.records(body[:9]))
    client.send(client.records(body[9:]) + client.goodbye())
    assert statuses(client.read_all()) == [202]


@pytest.mark.parametrize("size", [16_383, 16_384, 16_385, 49_152])
def test_the_largest_records_are_read_whole(edge: RunningEdge, client: Client, size: int) -> None:
    client.handshake()
    token = edge.token(Unsubscribe("https://127.0.0.1:9/u", "", "spring", "m", f"r-{size}"))
    body = b"List-Unsubscribe=One-Click&".ljust(size, b"x")
    head = f"POST /u/{token} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    client.send(client.records(head.encode()) + client.records(body))
    assert statuses(client.read_all()) == [202]


def test_a_changed_record_ends_the_connection_and_is_no_request(edge: RunningEdge, client: Client) -> None:
    client.handshake()
    before = len(edge.events())
    record = bytearray(client.records(click(edge)))
    record[-1] ^= 1
    client.send(bytes(record))
    with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)bad.record.mac|decrypt|reset"):
        client.read_all()
    assert len(edge.events()) == before


def test_an_unknown_name_is_refused_with_the_alert_that_says_so(edge: RunningEdge) -> None:
    with (
        Client(edge, ssl.TLSVersion.TLSv1_3, "unknown.example") as client,
        pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"),
    ):
        client.handshake()


def test_plain_http_on_the_tls_port_is_closed(edge: RunningEdge) -> None:
    with socket.create_connection(("127.0.0.1", edge.https), timeout=5) as sock:
        sock.sendall(click(edge))
        answer = b""
        with contextlib.suppress(ConnectionError):
            while chunk := sock.recv(4096):
                answer += chunk
    assert b"HTTP/" not in answer


def test_a_cut_handshake_and_a_cut_request_leave_no_connection(edge: RunningEdge, client: Client) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.send(client.outgoing.read()[:100])
    client.sock.shutdown(socket.SHUT_WR)
    assert client.sock.recv(4096) == b""


def test_handshakes_that_stand_still_count_as_connections_and_make_room(tmp_path) -> None:
    running = prepare(tmp_path, BRANDPROXY_EDGE_MAX_CONNECTIONS="50")
    running.start()
    try:
        with contextlib.ExitStack() as opened:
            for _ in range(120):
                opened.enter_context(socket.create_connection(("127.0.0.1", running.https)))
            with Client(running, ssl.TLSVersion.TLSv1_3) as client:
                client.handshake()
                client.send(client.records(click(running)))
                assert statuses(client.read_all()) == [302]
            assert running.process is not None
            worker = psutil.Process(running.process.pid).children()[0]
            assert len([c for c in worker.net_connections() if c.status == "ESTABLISHED"]) <= 51
    finally:
        running.stop()
