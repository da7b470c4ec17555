"""Readers side by side over generated and mutated exchanges: ours, the edge's short cut, and h11 as the stranger.

`HTTP_EXCHANGES` sets how many; the full run is 100000.
"""

from __future__ import annotations

import os
import random

import h11
import pytest

from brandproxy.core.http_body import Refused
from brandproxy.core.http_request import Head, Limits, RequestReader
from brandproxy.edge.app import visit_of
from brandproxy.edge.connection import _ASSET, _RECORDED, _fit
from tests.exchanges import Site, cuts, draw_exchange

EXCHANGES = int(os.environ.get("HTTP_EXCHANGES", "6000"))
LIMITS = Limits(head=32 * 1024, target=9_000, body=64 * 1024)
TOKEN = "t" * 40
HIDDEN = f"GET /c/{TOKEN} HTTP/1.1\r\nHost: links.acme.example\r\n\r\n".encode()
SITE = Site("links.acme.example", ("/", f"/c/{TOKEN}", f"/o/{TOKEN}.gif", f"/a/{TOKEN}/x.png"), HIDDEN)

Read = tuple[list[tuple[Head, bytes]], int]


def ours(data: bytes, pieces: list[tuple[int, int]]) -> Read:
    """Complete messages, and the status that ended the reading; 0: none did."""
    reader, found, bodies = RequestReader(LIMITS), [], []
    heads: list[Head] = []
    for start, end in pieces:
        reader.feed(data[start:end])
        try:
            while (event := reader.next_event()) is not None:
                if isinstance(event, Head):
                    heads.append(event)
                    bodies = []
                elif isinstance(event, bytes):
                    bodies.append(event)
                else:
                    found.append((heads[-1], b"".join(bodies)))
        except Refused as refused:
            return found, refused.status
    return found, 0


def strangers(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Method, target and body of each message that h11 takes, until it refuses one."""
    connection, found = h11.Connection(h11.SERVER, 1 << 20), []
    connection.receive_data(data)
    request, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                found.append((request.method, request.target, body))
                connection.send(h11.Response(status_code=204, headers=[]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.RemoteProtocolError:
        return found


@pytest.mark.parametrize("part", range(4))
def test_every_generated_exchange_is_read_as_it_was_made(part: int) -> None:
    draw = random.Random(20261129 + part)
    for _ in range(EXCHANGES // 4):
        messages = draw_exchange(draw, SITE)
        data = b"".join(message.data for message in messages)
        found, status = ours(data, cuts(draw, len(data)))
        good = [message for message in messages if not message.status]
        assert [(head.method.decode(), head.target.decode(), body) for head, body in found] == [
            (message.method, message.target, message.body) for message in good
        ], data
        assert status == messages[-1].status, data
        assert [head.persistent for head, _ in found] == [not message.last for message in good], data


@pytest.mark.parametrize("part", range(4))
def test_what_we_accept_a_stranger_frames_in_the_same_way(part: int) -> None:
    """Bytes changed, doubled, dropped: h11 may refuse more or less, but where both read, they read the same."""
    draw = random.Random(part)
    both = 0
    for _ in range(EXCHANGES // 4):
        messages = draw_exchange(draw, SITE)
        data = mutated(draw, b"".join(message.data for message in messages))
        found, _ = ours(data, cuts(draw, len(data)))
        seen = strangers(data)
        for (head, body), (method, target, other) in zip(found, seen, strict=False):
            assert (head.method, body) == (method, other), data
            assert target.endswith(head.target) or target.startswith((b"http", b"HTTP")), data
            both += 1
    assert both > EXCHANGES // 10


@pytest.mark.parametrize("part", range(4))
def test_the_short_cut_takes_nothing_that_the_reader_takes_otherwise(part: int) -> None:
    draw = random.Random(99 + part)
    taken = 0
    fields = (
        "User-Agent: Mozilla/5.0 (x)\r\n", "User-Agent:\ta\r\n", "Connection: close\r\n", "Connection: close \r\n",
        "X-Forwarded-For: 203.0.113.7, 10.0.0.1\r\n", "Purpose: prefetch\r\n", "Connection: keep-alive\r\n",
        "Upgrade: h2c\r\n", "Expect: 100-continue\r\n", "Content-Length: 0\r\n", "TE: x\r\n",
        "Range: bytes=0-\r\n", "Transfer-Encoding: chunked\r\n", "Host: other.example\r\n",
        "If-None-Match: x\r\n", "X:\r\n",
    )  # fmt: skip
    hosts = ("links.acme.example",) * 4 + ("h:80@evil", ":abc", "h\t", "h:80", "[::1]", "a,b", "h:99999", "")
    for _ in range(EXCHANGES // 4):
        parts = [f"Host: {draw.choice(hosts)}\r\n", *draw.sample(fields, draw.randrange(4))]
        draw.shuffle(parts)
        line = f"GET {draw.choice(SITE.targets[1:])} HTTP/1.{draw.choice('1110')}\r\n"
        data = f"{line}{''.join(parts)}\r\n".encode()
        if draw.random() < 0.5:
            data = mutated(draw, data)
        for shape in (_RECORDED, _ASSET):
            fits = _fit(shape, data)
            if fits is None:
                continue
            taken += 1
            match, headers = fits
            found, status = ours(data, [(0, len(data))])
            visit = visit_of("GET", headers.items(), "")
            if status:
                assert not visit.host, data  # so the short cut finds no site, and asks the reader
                continue
            ((head, body),) = found
            assert (body, head.minor) == (b"", int(match["minor"])), data
            assert visit_of("GET", head.fields, "") == visit, data
            connection = headers.get(b"connection", b"keep-alive").lower()
            if connection in (b"close", b"keep-alive"):
                assert head.persistent == (connection == b"keep-alive" and match["minor"] == b"1"), data
    assert taken > EXCHANGES // 20


def mutated(draw: random.Random, data: bytes) -> bytes:
    pieces = (
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"\0",
        b":",
        b",",
        b"0",
        b"\x0b",
        b"\x80",
        b"chunked",
        b"\r\n\r\n",
    )
    for _ in range(draw.choice((0, 1, 1, 2))):
        at = draw.randrange(len(data))
        match draw.randrange(4):
            case 0:
                data = data[:at] + draw.choice(pieces) + data[at:]
            case 1:
                data = data[:at] + data[at + 1 :]
            case 2:
                data = data[:at] + draw.choice(pieces) + data[at + 1 :]
            case _:
                end = at + draw.randrange(1, 40)
                data = data[:end] + data[at:end] + data[end:]
    return data or b"\r\n"
