"""The milter on a socket: driven by another implementation of the protocol, and by a real Postfix."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from miltertest import MilterConnection, constants

from brandproxy.context import Context
from brandproxy.filters import milter
from tests.filters.conftest import HTML, LINK, installation, running
from tests.filters.mta import postfix, send, start_sink


@pytest.fixture
async def context(tmp_path: Path, port: int) -> AsyncIterator[Context]:
    async with installation(tmp_path, milter=f"127.0.0.1:{port}") as context, running(milter.run, context):
        yield context


def converse(port: int, *, sender: str = "<news@acme.example>") -> list[tuple[str, dict[str, object]]]:
    """One message through the milter, as a mail server tells it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        server = MilterConnection(sock)
        server.optneg_mta(actions=constants.SMFI_V2_ACTS)  # it cannot read a reply that names macros
        server.send(constants.SMFIC_MAIL, args=[sender])
        server._send(constants.SMFIC_RCPT, args=["<b@example.org>"])
        head, _, body = HTML.decode().partition("\r\n\r\n")
        for line in head.split("\r\n"):
            name, _, value = line.partition(":")
            server._send(constants.SMFIC_HEADER, name=name, value=value)
        server.send(constants.SMFIC_EOH)
        server._send(constants.SMFIC_BODY, buf=body)
        replies: list[tuple[str, dict[str, object]]] = server.send_eom()
        server._send(constants.SMFIC_QUIT)
        return replies


async def test_links_come_back_under_the_tenants_host(context: Context, port: int) -> None:
    replies = await asyncio.to_thread(converse, port)
    assert [command for command, _ in replies] == [constants.SMFIR_REPLBODY, constants.SMFIR_CONTINUE]
    body = replies[0][1]["buf"]
    assert isinstance(body, str)
    assert "https://links.acme.example/c/" in body
    assert LINK.decode() not in body


async def test_mail_of_nobody_is_let_go_untouched(context: Context, port: int) -> None:
    replies = await asyncio.to_thread(converse, port, sender="<a@example.net>")
    assert [command for command, _ in replies][-1:] == [constants.SMFIR_CONTINUE]


async def test_postfix_delivers_the_rewritten_mail_once(context: Context, port: int) -> None:
    async with start_sink() as sink:
        with postfix(sink.port, main=f"smtpd_milters = inet:127.0.0.1:{port}") as mta:
            await asyncio.to_thread(send, mta.port, "news@acme.example", ["b@example.org"], HTML)
            (received,) = await sink.until(1, 20)
    assert b"https://links.acme.example/c/" in received.message
    assert LINK not in received.message
