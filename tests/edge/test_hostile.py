"""Requests nobody honest sends: only errors or a closed connection, and good clicks go on meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from brandproxy.core.tokens import Click
from brandproxy.errors import BadToken
from tests.edge.conftest import HOST, RunningEdge, prepare

URL = "https://shop.example/"
IDLE = int(os.environ.get("EDGE_IDLE_CONNECTIONS", "1000"))  # the drill of the issue is 10000
MUTATIONS = int(os.environ.get("EDGE_FORGERIES", "200000"))  # the drill of the issue is 1000000


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    running = prepare(tmp_path_factory.mktemp("hostile"))
    running.start()
    yield running
    running.stop()


def send(edge: RunningEdge, data: bytes, wait: float = 5.0) -> bytes:
    """What comes back until the edge closes or falls silent."""
    answer = b""
    with socket.create_connection(("127.0.0.1", edge.http), timeout=wait) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while chunk := sock.recv(65536):
                answer += chunk
        except OSError:
            pass
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def shapes(token: str) -> dict[str, bytes]:
    click, host = f"/c/{token}".encode(), HOST.encode()
    good = b"Host: " + host + b"\r\n"
    return {
        "no host": b"GET " + click + b" HTTP/1.1\r\n\r\n",
        "two hosts": b"GET " + click + b" HTTP/1.1\r\n" + good + good + b"\r\n",
        "length and chunked": b"POST / HTTP/1.1\r\n" + good
        + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET " + click + b" HTTP/1.1\r\n\r\n",
        "two lengths": b"POST / HTTP/1.1\r\n" + good + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n",
        "chunked twice": b"POST / HTTP/1.1\r\n" + good + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "chunk size": b"POST / HTTP/1.1\r\n" + good + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "negative length": b"POST / HTTP/1.1\r\n" + good + b"Content-Length: -1\r\n\r\n",
        "obs-fold": b"GET " + click + b" HTTP/1.1\r\nHost: " + host + b"\r\nX: a\r\n b\r\n\r\n",
        "space before colon": b"GET " + click + b" HTTP/1.1\r\nHost : " + host + b"\r\n\r\n",
        "bare CR": b"GET " + click + b" HTTP/1.1\r\n" + good + b"X: a\rLocation: https://evil.example\r\n\r\n",
        "CRLF in the path": b"GET /c/%0d%0aLocation:%20https://evil.example HTTP/1.1\r\n" + good + b"\r\n",
        "raw CRLF in the path": b"GET /c/x\r\nLocation: https://evil.example HTTP/1.1\r\n" + good + b"\r\n",
        "CRLF in the host": b"GET " + click + b" HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n",
        "NUL in the host": b"GET " + click + b" HTTP/1.1\r\nHost: links\x00.acme.example\r\n\r\n",
        "user-info in the host": b"GET " + click + b" HTTP/1.1\r\nHost: x@" + host + b"\r\n\r\n",
        "absolute form elsewhere": b"GET http://evil.example/ HTTP/1.1\r\n" + good + b"\r\n",
        "authority form": b"CONNECT evil.example:443 HTTP/1.1\r\n" + good + b"\r\n",
        "asterisk form": b"OPTIONS * HTTP/1.1\r\n" + good + b"\r\n",
        "huge header": b"GET " + click + b" HTTP/1.1\r\n" + good + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        "many headers": b"GET " + click + b" HTTP/1.1\r\n" + good + b"X: a\r\n" * 20_000 + b"\r\n",
        "endless target": b"GET /c/" + b"A" * 70_000 + b" HTTP/1.1\r\n" + good + b"\r\n",
        "long target": b"GET /c/" + b"A" * 9_500 + b" HTTP/1.1\r\n" + good + b"\r\n",
        "bad escape": b"GET /c/%zz%1 HTTP/1.1\r\n" + good + b"\r\n",
        "overlong UTF-8": b"GET /c/%c0%ae%c0%ae%c0%af HTTP/1.1\r\n" + good + b"\r\n",
        "raw 8-bit path": b"GET /c/\xff\xfe HTTP/1.1\r\n" + good + b"\r\n",
        "dot segments": b"GET /c/../a/../../etc/passwd HTTP/1.1\r\n" + good + b"\r\n",
        "backslashes": b"GET /c\\..\\" + token.encode() + b" HTTP/1.1\r\n" + good + b"\r\n",
        "double slash": b"GET //evil.example/" + token.encode() + b" HTTP/1.1\r\n" + good + b"\r\n",
        "HTTP/0.9": b"GET " + click + b"\r\n",
        "HTTP/3.0": b"GET " + click + b" HTTP/3.0\r\n" + good + b"\r\n",
        "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "unknown method": b"BREW " + click + b" HTTP/1.1\r\n" + good + b"\r\n",
        "TLS on the plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        "noise": random.Random(7).randbytes(4000),
        "body too long": b"POST /u/" + token.encode() + b" HTTP/1.1\r\n" + good
        + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000,
    }  # fmt: skip


@pytest.mark.parametrize("shape", list(shapes("t" * 40)))
def test_a_hostile_shape_gets_an_error_or_nothing(target: RunningEdge, shape: str) -> None:
    answer = send(target, shapes(target.token(Click(URL)))[shape])
    assert all(400 <= status < 500 or status in (501, 505) for status in statuses(answer)), answer[:300]
    assert b"evil.example" not in answer
    assert b"location:" not in answer.lower()


def test_a_websocket_upgrade_is_just_a_request(target: RunningEdge) -> None:
    token = target.token(Click(URL))
    request = f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert statuses(send(target, request.encode())) == [302]


def test_pipelined_clicks_are_answered_in_order(target: RunningEdge) -> None:
    urls = [f"https://shop.example/{n}" for n in range(20)]
    data = b"".join(f"GET /c/{target.token(Click(url))} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() for url in urls)
    answer = send(target, data)
    found = [line[10:].decode() for line in answer.split(b"\r\n") if line.lower().startswith(b"location: ")]
    assert found == urls
    with socket.create_connection(("127.0.0.1", target.http), timeout=5) as sock:  # byte by byte, then at once
        for byte in data[:150]:
            sock.sendall(bytes([byte]))
        sock.sendall(data[150:])
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
    assert statuses(answer) == [302] * 20


def test_requests_that_come_while_an_answer_is_written_down_wait_their_turn(target: RunningEdge) -> None:
    urls = [f"https://shop.example/{n}" for n in range(6)]
    with socket.create_connection(("127.0.0.1", target.http), timeout=5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for url in urls:
            sock.sendall(f"GET /c/{target.token(Click(url))} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            time.sleep(0.0003)
        answer = b""
        while answer.count(b"HTTP/1.1 302") < 6:
            answer += sock.recv(65536)
    found = [line[10:].decode() for line in answer.split(b"\r\n") if line.lower().startswith(b"location: ")]
    assert found == urls


def test_no_forged_token_is_ever_followed(target: RunningEdge) -> None:
    """Mutations of a genuine token against the ring itself; a sample of them over the wire."""
    ring, draw = target.rings["acme"], random.Random(20261123)
    token = target.token(Click("https://shop.example/a?b=c", "spring", "m-1", "r-1", 7, 1_790_000_000))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted, wire = [], []
    for number in range(MUTATIONS):
        text = list(token)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(text))
            match draw.randrange(4):
                case 0:
                    text[at] = draw.choice(alphabet)
                case 1:
                    text.insert(at, draw.choice(alphabet))
                case 2 if len(text) > 1:
                    del text[at]
                case _:
                    text[at], text[-at - 1] = text[-at - 1], text[at]
        forged = "".join(text)
        if forged == token:
            continue
        with contextlib.suppress(BadToken):
            ring.open("c", forged)
            accepted.append(forged)
        if number % (MUTATIONS // 50) == 0:
            wire.append(forged)
    assert accepted == []
    for forged in wire:
        answer = send(target, f"GET /c/{forged} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert statuses(answer) == [404]


def test_refusing_takes_as_long_wherever_the_mutation_is(target: RunningEdge) -> None:
    """Medians of interleaved rounds in one process; a comparison that stops early would differ by position."""
    ring = target.rings["acme"]
    token = target.token(Click("https://shop.example/" + "x" * 200))
    body = len(token) - 22

    def changed(at: int) -> str:
        return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]

    places = {"body start": 3, "body end": body - 1, "mac start": body, "mac end": len(token) - 2}
    times: dict[str, list[int]] = {place: [] for place in places}
    for _ in range(300):
        for place, at in places.items():
            forged = changed(at)
            start = time.perf_counter_ns()
            for _ in range(10):
                try:
                    ring.open("c", forged)
                except Exception:
                    pass
            times[place].append(time.perf_counter_ns() - start)
    middles = [statistics.median(found) for found in times.values()]
    assert max(middles) < 1.25 * min(middles), times.keys()


PARAMETERS = ["url", "u", "redirect", "next", "to", "dest", "r", "target", "return", "goto", "link", "q"]


def test_no_parameter_header_or_body_opens_a_redirect(target: RunningEdge) -> None:
    token = target.token(Click(URL))
    evil = "https://evil.example/"
    query = "&".join(f"{name}={evil}" for name in PARAMETERS)
    headers = "".join(
        f"{name}: {evil}\r\n"
        for name in ("X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL", "Referer", "Forwarded", "Origin")
    )
    for path in ("/", "/c/", f"/c/{token}", "/u/x", "/o/x.gif", "/robots.txt", f"/{evil}", f"//{evil[8:]}"):
        for method in ("GET", "HEAD", "POST"):
            request = f"{method} {path}?{query} HTTP/1.1\r\nHost: {HOST}\r\n{headers}"
            answer = send(target, f"{request}Content-Length: 0\r\n\r\n".encode())
            assert b"evil" not in answer, (method, path)
            assert len(statuses(answer)) == 1


def clicks_meanwhile(edge: RunningEdge, seconds: float) -> list[float]:
    """Seconds each good click took, one after the other on its own connection."""
    token, took = edge.token(Click(URL)), []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        start = time.perf_counter()
        answer = send(edge, f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        took.append(time.perf_counter() - start)
        assert answer.startswith(b"HTTP/1.1 302 ")
        time.sleep(0.01)
    return took


def resident(edge: RunningEdge) -> int:
    assert edge.process is not None
    return sum(child.memory_info().rss for child in psutil.Process(edge.process.pid).children())


def test_idle_and_dripping_connections_cost_bounded_memory_and_no_good_click(target: RunningEdge) -> None:
    before = resident(target)
    opened = [socket.create_connection(("127.0.0.1", target.http)) for _ in range(IDLE)]
    drip = f"GET /c/{target.token(Click(URL))} HTTP/1.1\r\nHost: {HOST}\r\n".encode()
    stop = threading.Event()

    def dripping() -> None:
        for byte in drip * 10:
            for sock in opened[:50]:
                try:
                    sock.send(bytes([byte]))
                except OSError:
                    pass
            if stop.wait(0.1):
                return

    thread = threading.Thread(target=dripping)
    thread.start()
    try:
        took = clicks_meanwhile(target, 2.0)
        grown = resident(target) - before
    finally:
        stop.set()
        thread.join()
        for sock in opened:
            sock.close()
    assert statistics.median(took) < 0.05, "a good click waits for hostile ones"
    assert grown < 5_000_000 + 20_000 * IDLE


def test_tls_garbage_ends_in_a_closed_connection_and_good_handshakes_go_on(target: RunningEdge) -> None:
    draw = random.Random(11)
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    for number in range(200):
        with socket.create_connection(("127.0.0.1", target.https), timeout=5) as sock:
            try:
                sock.sendall((hello if number % 2 else b"") + draw.randbytes(draw.randint(1, 2000)))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
            except ConnectionError:
                pass
    with socket.create_connection(("127.0.0.1", target.https), timeout=5) as raw:
        sock = target.client_tls().wrap_socket(raw, server_hostname=HOST)
        assert isinstance(sock, ssl.SSLSocket)
        sock.close()


def test_a_request_that_never_ends_is_cut_off(tmp_path) -> None:
    """Slowloris: the bounds are seconds, so the drill runs beside a shortened clock of its own worker."""
    code_bounds = {"BRANDPROXY_EDGE_PATIENCE": "1"}
    running = prepare(tmp_path, **code_bounds)
    running.start()
    try:
        silent = socket.create_connection(("127.0.0.1", running.http), timeout=10)
        half = socket.create_connection(("127.0.0.1", running.http), timeout=10)
        half.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n".encode())
        start = time.monotonic()
        for sock in (silent, half):
            with sock:
                try:
                    assert sock.recv(4096) == b""
                except ConnectionResetError:
                    pass
        assert time.monotonic() - start < 8
    finally:
        running.stop()


def test_beyond_the_connection_limit_the_idle_ones_make_room(tmp_path) -> None:
    running = prepare(tmp_path, BRANDPROXY_EDGE_MAX_CONNECTIONS="50")
    running.start()
    try:
        with contextlib.ExitStack() as opened:
            for _ in range(120):
                opened.enter_context(socket.create_connection(("127.0.0.1", running.http)))
            assert clicks_meanwhile(running, 0.3)
    finally:
        running.stop()
