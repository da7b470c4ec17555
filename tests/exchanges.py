"""Generated HTTP/1 exchanges whose right answers are known by construction, and how to ask and read them.

A generated body holds a whole request, or the beginning of one, that nobody asked for: it must never be answered.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

UPGRADES = (
    "Connection: Upgrade\r\nUpgrade: foo\r\n", "Connection: upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
    "Upgrade: TLS/1.0\r\n", "CONNECTION:upgrade , keep-alive\r\nupgrade:h2c,websocket\r\n",
)  # fmt: skip
SIDE = (
    "", "", "", "TE: trailers\r\n", "TE: chunked\r\nConnection: TE\r\n", "Connection: keep-alive\r\n",
    "Connection: content-length, transfer-encoding\r\n", "Trailer: Host\r\n", "Keep-Alive: timeout=5\r\n",
    "Content_Length: 7\r\n", "X-Content-Length: 5\r\n", "Accept: */*\r\nUser-Agent: a\tb\r\n", *UPGRADES,
)  # fmt: skip
BROKEN = {  # fields that no message may have, or none with a body; what they get
    "Content-Length: 3\r\nContent-Length: 0\r\n": 400, "Content-Length: 3, 3\r\n": 400,
    "Content-Length: +3\r\n": 400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n": 400,
    "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n": 400, "Transfer-Encoding: chunked, identity\r\n": 400,
    "Transfer-Encoding: gzip, chunked\r\n": 501,
    "Transfer-Encoding:\x0bchunked\r\n": 400, "Transfer-Encoding : chunked\r\n": 400, " folded\r\n": 400,
    "X: a\r\n b\r\n": 400, "X: a\nContent-Length: 3\r\n": 400, "X: a\rb\r\n": 400, "X: \0\r\n": 400,
    "Host: other.example\r\n": 400, "Expect: nothing\r\n": 417, "Content-Length: 99999999999999999999\r\n": 413,
}  # fmt: skip
LINES = {"HTTP/2.0": 505, "HTTP/0.9": 505, "http/1.1": 400, "HTTP/1.1 ": 400}


@dataclass(frozen=True, slots=True)
class Message:
    """`status` is 0 for a well-formed one; `last`: the connection ends with its answer."""

    data: bytes
    method: str
    target: str
    body: bytes
    status: int
    last: bool


@dataclass(frozen=True, slots=True)
class Site:
    """Where to ask: `targets` by GET or HEAD, `hidden` is what bodies hold."""

    host: str
    targets: Sequence[str]
    hidden: bytes


def draw_message(draw: random.Random, site: Site, last: bool) -> Message:
    method = draw.choice(("GET", "GET", "GET", "HEAD", "POST"))
    target, version, more, body, framing = draw.choice(site.targets), "HTTP/1.1", draw.choice(SIDE), b"", ""
    written, sent, status = target, b"", 0
    if draw.random() < 0.5:
        size = len(site.hidden)
        body = site.hidden[: draw.choice((size, size - 4, draw.randrange(1, size)))]  # whole, unfinished, cut
        framing, sent = draw.choice((_sized, _chunked))(draw, body)
        if draw.random() < 0.2:
            more += "Expect: 100-continue\r\n"
    if draw.random() < 0.1:
        written = f"http://{site.host}{target}"
    if draw.random() < 0.05:
        version = "HTTP/1.2"
    kind = draw.random()
    if kind < 0.12:
        more, status = draw.choice(list(BROKEN.items()))
        framing, body, sent = "", b"", b"abc"
    elif kind < 0.15:
        version, status = draw.choice(list(LINES.items()))
    elif kind < 0.17:
        method, status = "BREW", 501
    elif last or kind < 0.2:
        more, last = "Connection: close\r\n" + more.replace("Connection:", "X-Connection:"), True
    fields = [f"Host: {site.host}\r\n", framing, more]
    if not more.startswith(" "):
        draw.shuffle(fields)
    head = f"{method} {written} {version}\r\n{''.join(fields)}\r\n"
    return Message(head.encode("latin-1") + sent, method, target, body, status, last or status != 0)


def _sized(draw: random.Random, body: bytes) -> tuple[str, bytes]:
    return f"{draw.choice(('Content-Length', 'content-length'))}: {len(body)}\r\n", body


def _chunked(draw: random.Random, body: bytes) -> tuple[str, bytes]:
    places = sorted({0, len(body), *(draw.randrange(len(body)) for _ in range(draw.randrange(3)))})
    sent = b"".join(
        b"%x%b\r\n%b\r\n" % (end - start, draw.choice((b"", b"", b";a=b")), body[start:end])
        for start, end in pairwise(places)
    )
    trailer = draw.choice((b"", b"", b"Content-Length: 5\r\n", b"Host: evil.example\r\n"))
    name = draw.choice(("Transfer-Encoding: chunked", "transfer-encoding:Chunked"))
    return f"{name}\r\n", sent + b"0\r\n" + trailer + b"\r\n"


def draw_exchange(draw: random.Random, site: Site) -> list[Message]:
    """One to four messages for one connection, the last of which ends it."""
    messages: list[Message] = []
    count = draw.randint(1, 4)
    while not messages or not messages[-1].last:
        messages.append(draw_message(draw, site, len(messages) + 1 >= count))
    return messages


def draw_smuggling(draw: random.Random, site: Site) -> list[Message]:
    """One upgrade request whose body is a request that is not finished: it would swallow what comes next."""
    method, body = draw.choice(("GET", "POST")), site.hidden[:-4]
    framing, sent = draw.choice((_sized, _chunked))(draw, body)
    head = f"{method} {site.targets[0]} HTTP/1.1\r\nHost: {site.host}\r\n{draw.choice(UPGRADES)}{framing}\r\n"
    return [Message(head.encode() + sent, method, site.targets[0], body, 0, False)]


def cuts(draw: random.Random, size: int) -> list[tuple[int, int]]:
    """Where the bytes are cut into writes."""
    places = sorted({0, size, *(draw.randrange(size) for _ in range(draw.choice((0, 0, 1, 1, 2, 6))))})
    return list(pairwise(places))


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    location: bytes


def converse(sock: socket.socket, sent: bytes, pieces: list[tuple[int, int]], pause: float = 0.002) -> bytes:
    """Everything that comes back until the other side closes, or is silent for longer than the socket waits."""
    answer = b""
    with contextlib.suppress(OSError):
        for number, (start, end) in enumerate(pieces):
            if number:
                time.sleep(pause)
            sock.sendall(sent[start:end])
    with contextlib.suppress(ConnectionError, TimeoutError):
        while piece := sock.recv(65536):
            answer += piece
    return answer


_HEAD = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")


def replies(answer: bytes, methods: Sequence[str]) -> list[Reply]:
    """The final answers in a stream, read to its last byte; `methods` of the requests, in order."""
    found: list[Reply] = []
    at = 0
    while at < len(answer):
        match = _HEAD.match(answer, at)
        assert match, answer[at : at + 200]
        at = match.end()
        if match[1] == b"100":
            continue
        length = re.search(rb"(?i)^content-length: *(\d+)", match[2], re.MULTILINE)
        method = methods[len(found)] if len(found) < len(methods) else "GET"
        at += 0 if method == "HEAD" or match[1] in (b"204", b"304") or length is None else int(length[1])
        found.append(_reply(match))
    return found


def status_lines(answer: bytes) -> list[Reply]:
    """What looks like a final answer, wherever it stands: proxies send bodies of their own even to HEAD."""
    return [_reply(match) for match in _HEAD.finditer(answer) if match[1] != b"100"]


def _reply(match: re.Match[bytes]) -> Reply:
    location = re.search(rb"(?i)^location: *(\S+)", match[2], re.MULTILINE)
    return Reply(int(match[1]), location[1] if location else b"")
