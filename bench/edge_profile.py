"""Where a click's microseconds go, stage by stage, in this process without sockets (`bench.edge --profile`)."""

from __future__ import annotations

import asyncio
import tempfile
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from bench.edge import HOST, prepare
from bench.report import Row
from brandproxy.blocks import KillList
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.edge.app import visit_of
from brandproxy.edge.connection import _RECORDED, _headers, render
from brandproxy.edge.links import Links
from brandproxy.spool.segment import frame

BROWSER = (
    "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"
    "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\n"
    "Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n"
    "Sec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\n"
)


def profile() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        token = prepare(Path(folder))[False]

        async def measure() -> list[Row]:
            async with open_context(Settings(data=Path(folder))) as context:
                return [
                    Row(name, value, "us", note=note)
                    for name, work, note in stages(context, token)
                    for value in [micros(work)]
                ]

        return asyncio.run(measure())


def stages(context: Context, token: str) -> Iterator[tuple[str, Callable[[], object], str]]:
    data = f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\n{BROWSER}\r\n".encode()
    match = _RECORDED.fullmatch(data)
    assert match is not None
    headers = _headers(match["headers"])
    site = context.directory.site(HOST)
    assert headers is not None
    assert site is not None
    visit = visit_of("GET", headers.items(), "127.0.0.1")
    links = Links(KillList())
    answer = links.click(site, token, visit)
    record = answer.record
    assert record is not None
    yield "request", lambda: _RECORDED.fullmatch(data), "shape of a browser's request"
    yield "headers", lambda: _headers(match["headers"]), "those that matter"
    yield "visit", lambda: visit_of("GET", headers.items(), "127.0.0.1"), "host, agent, hints, address"
    yield "site", lambda: context.directory.site(HOST), "host to tenant and keys"
    yield "token", lambda: site.ring.open("c", token), "verify and unpack"
    yield "click", lambda: links.click(site, token, visit), "token, kill list, location, record"
    yield "record", lambda: links.record("c", site, token, visit), "part of click"
    yield "render", lambda: render(answer, b"date: Mon, 23 Nov 2026 17:00:00 GMT\r\n", False), "answer to bytes"
    yield "frame", lambda: frame(record), "length and checksum"


def micros(work: Callable[[], object]) -> float:
    return median(timeit.repeat(work, number=5000, repeat=7)) / 5000 * 1e6
