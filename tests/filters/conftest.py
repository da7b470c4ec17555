"""An installation with one tenant whose host is live, and mails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.model import HostState
from tests.conftest import free_port

LINK = b"https://acme.example/spring?a=1"
HTML = (
    b"From: Acme <news@acme.example>\r\nTo: b@example.org\r\nSubject: Spring\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: text/html; charset=utf-8\r\n\r\n<p><a href="' + LINK + b'">Spring</a></p>\r\n'
)


@asynccontextmanager
async def installation(data: Path, **mail: object) -> AsyncIterator[Context]:
    """Tenant `acme` with the live host links.acme.example; `mail` are settings of that section.

    The listeners are a pipeline of the tests' own unless `mail` says otherwise.
    """
    mail = {"listeners": {"smtp": "*", "lmtp": "*", "milter": "*"}} | mail
    settings = Settings(data=data, mail=mail)  # type: ignore[arg-type]
    async with open_context(settings, actor="test") as context:
        await context.registry.add_tenant("acme")
        await context.registry.add_host("links.acme.example", "acme")
        await context.registry.set_host_state("links.acme.example", HostState.LIVE, "test")
        await context.directory.load(context.store)
        yield context


@asynccontextmanager
async def running(
    run: Callable[[Context], Awaitable[None]], context: Context
) -> AsyncIterator[asyncio.Future[None]]:
    """A filter as it runs in its process."""
    task = asyncio.ensure_future(run(context))
    await asyncio.sleep(0.05)
    if task.done():
        await task
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def port() -> int:
    return free_port()
