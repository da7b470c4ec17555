"""The probe of our own challenge URL, when somebody else answers there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest

from brandproxy.certs.preflight import _fault

ANSWER = "the-right-answer"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
    except ConnectionError:
        writer.close()


async def _dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n")
    try:
        for letter in ANSWER:
            writer.write(letter.encode())
            await writer.drain()
            await asyncio.sleep(0.3)
    except ConnectionError:
        pass
    writer.close()


async def _redirecting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


@pytest.mark.parametrize(
    ("serve", "code"),
    [(_endless, "challenge-hijacked"), (_dripping, "challenge-unreachable"), (_redirecting, "challenge-hijacked")],
)
async def test_a_stranger_cannot_hold_us_flood_us_or_send_us_elsewhere(
    serve: Serve, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brandproxy.certs.preflight._TIMEOUT", 1.0)
    writers: list[asyncio.StreamWriter] = []

    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve(reader, writer)

    server = await asyncio.start_server(serving, "127.0.0.1", 0)
    port, begun = server.sockets[0].getsockname()[1], time.monotonic()
    async with httpx.AsyncClient(timeout=1.0, trust_env=False) as client:
        fault = await _fault(client, f"http://127.0.0.1:{port}/x", "links.acme.test", ANSWER)
    assert fault is not None
    assert fault[0] == code
    assert time.monotonic() - begun < 2.5
    server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0.4)  # the stranger notices
