"""What the parser answers and what needs none share a connection, in any order and however the bytes come."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brandproxy.core.tokens import Click, Open, Unsubscribe
from tests.edge.conftest import HOST, RUN, RunningEdge, prepare
from tests.edge.test_hostile import statuses

SEEN = """
import asyncio
from brandproxy.edge import answers, app, parsed
seen = open({!r}, "ab", 0)
on_url = parsed.Parsed.on_url
parsed.Parsed.on_url = lambda self, url: (seen.write(url + b" "), on_url(self, url))[1]
async def slow(self, site, token):
    await asyncio.sleep(0.5)
    return answers.plain(404, "")
app.Edge._challenge = slow
"""
SLOW = "/.well-known/acme-challenge/nothing"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    """An edge that writes down what its parser is given, is slow with challenges, and has 2 s of patience."""
    edge = prepare(tmp_path_factory.mktemp("parsed"), BRANDPROXY_EDGE_PATIENCE="2")
    edge.start(["-c", SEEN.format(str(edge.data / "seen")) + RUN])
    yield edge
    edge.stop()


@contextlib.contextmanager
def connect(edge: RunningEdge, tls: bool) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", edge.https if tls else edge.http), timeout=10) as sock:
        if not tls:
            yield sock
            return
        with edge.client_tls().wrap_socket(sock, server_hostname=HOST) as secured:
            yield secured


def request(target: str, method: str = "GET", more: str = "", body: str = "") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n{body}".encode()


def until(sock: socket.socket, end: bytes) -> bytes:
    answer = b""
    while not answer.endswith(end):
        piece = sock.recv(65536)
        assert piece, answer
        answer += piece
    return answer


@pytest.mark.parametrize("tls", [False, True])
def test_a_click_needs_no_parser_whatever_was_asked_before_on_its_connection(
    watched: RunningEdge, tls: bool
) -> None:
    click, pixel = f"/c/{watched.token(Click('https://shop.example/'))}", f"/o/{watched.token(Open('spring'))}.gif"
    before, recorded = (watched.data / "seen").read_bytes(), len(watched.events())
    with connect(watched, tls) as sock:
        for target, end in (
            ("/robots.txt", b"Disallow: /\n"),
            (click, b"\r\n\r\n"),
            ("/nothing", b"</html>\n"),
            (pixel, b";"),
            (click, b"\r\n\r\n"),
        ):
            sock.sendall(request(target))
            until(sock, end)
    assert (watched.data / "seen").read_bytes().removeprefix(before).split() == [b"/robots.txt", b"/nothing"]
    assert len(watched.events()) == recorded + 3


def test_a_click_waits_for_the_answer_before_it(watched: RunningEdge) -> None:
    click = request(f"/c/{watched.token(Click('https://shop.example/'))}", more="Connection: close\r\n")
    with connect(watched, tls=False) as sock:
        sock.sendall(request(SLOW))
        time.sleep(0.1)
        sock.sendall(click)
        assert statuses(b"".join(iter(lambda: sock.recv(65536), b""))) == [404, 302]


def test_a_connection_in_use_outlives_the_patience_of_the_parser(watched: RunningEdge) -> None:
    click = request(f"/c/{watched.token(Click('https://shop.example/'))}")
    with connect(watched, tls=False) as sock:
        sock.sendall(request("/robots.txt"))
        until(sock, b"Disallow: /\n")
        for _ in range(6):
            sock.sendall(click)
            until(sock, b"\r\n\r\n")
            time.sleep(0.5)


UNSUBSCRIBE = "Content-Type: application/x-www-form-urlencoded\r\n"
CHUNKED = UNSUBSCRIBE + "Transfer-Encoding: chunked\r\n"
SIZED = UNSUBSCRIBE + "Content-Length: 15\r\n"
UPGRADE = (request("/robots.txt", "HEAD", "Upgrade: h2c\r\nConnection: upgrade\r\n"), 200)
ODD = [  # what a click may stand before or behind, and its answer
    (request("/robots.txt"), 200),
    (b"\r\n" + request("/"), 200),
    UPGRADE,
    (request("/u/forged", "POST", SIZED, "GET /c/x HTTP/1"), 404),
    (request("/u/forged", "POST", CHUNKED, "7\r\nGET /c/\r\n0\r\n\r\n"), 404),
]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_request_has_its_own_answer_in_any_order_and_however_it_is_cut(
    watched: RunningEdge, data: st.DataObject
) -> None:
    click = f"/c/{watched.token(Click('https://shop.example/'))}"
    pixel = f"/o/{watched.token(Open('spring'))}.gif"
    kinds = [(request(click), 302), (request(pixel), 200), (request(click, "HEAD"), 302), *ODD]
    asked = data.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6), "asked")
    asked.append((request(click, more="Connection: close\r\n"), 302))
    sent = b"".join(one for one, _ in asked)
    tempting = [match.start() for match in re.finditer(b"GET /", sent)]  # a body has one, too
    cuts = data.draw(st.lists(st.sampled_from(tempting) | st.integers(1, len(sent) - 1), max_size=6), "cuts")
    pause = data.draw(st.sampled_from([0.0, 0.02]), "pause")
    recorded = len(watched.events())
    places = sorted({0, *cuts, len(sent)})
    with connect(watched, tls=False) as sock:
        for start, end in pairwise(places):
            sock.sendall(sent[start:end])
            time.sleep(pause)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert statuses(answer) == [status for _, status in asked]
    links = sum(click.encode() in one or pixel.encode() in one for one, _ in asked)
    assert len(watched.events()) == recorded + links


def test_an_upgrade_that_is_not_granted_is_as_if_nobody_had_asked(watched: RunningEdge) -> None:
    """RFC 9110 §7.8. What Java's own HTTP client sends with its first request, and the click behind it."""
    token = watched.token(Unsubscribe("https://127.0.0.1:9/u"))
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    one_click = request(f"/u/{token}", "POST", f"{upgrade}Content-Length: 26\r\n", "List-Unsubscribe=One-Click")
    click = request(f"/c/{watched.token(Click('https://shop.example/'))}", more="Connection: close\r\n")
    with connect(watched, tls=False) as sock:
        sock.sendall(one_click + UPGRADE[0] + click)
        assert statuses(b"".join(iter(lambda: sock.recv(65536), b""))) == [202, 200, 302]
