"""A CA, a DNS server and an edge that answers challenges: all real or nearly so, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from brandproxy.certs import maintain
from brandproxy.certs import progress as progresses
from brandproxy.certs.progress import Progress
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.model import Host, HostState
from brandproxy.onboarding import watch
from brandproxy.store import keys
from tests.parts import KEY, ChallengeServer, Knot, Pebble


class World:
    """One installation, its edge's challenge answers, its CA."""

    def __init__(self, folder: Path, knot: Knot) -> None:
        self.folder, self.knot = folder, knot
        self.answers: Callable[[str], Awaitable[bytes | None]] | None = None
        self.server = ChallengeServer(self._answer)
        self.pebble = Pebble(folder / "pebble", knot.server, self.server.port)
        self._context: Context | None = None

    def settings(self, **certs: Any) -> Settings:
        return Settings(
            data=self.folder / "data",
            edge={"domain": "edge.test", "public_http_port": self.server.port},
            dns={
                "servers": self.knot.server,
                "pending_seconds": 0.5,
                "update_server": self.knot.server,
                "update_key": KEY,
                "nameservers": "ns.mail.acme.test",
            },
            certs={"ca": self.pebble.url, "acme_trust": self.pebble.trust, "caa": "pebble.test", **certs},
        )

    @asynccontextmanager
    async def context(self, **certs: Any) -> AsyncIterator[Context]:
        async with open_context(self.settings(**certs), actor="test") as context:
            self._context = context
            yield context

    async def host(
        self, context: Context, name: str, state: HostState = HostState.PENDING, zone: str = ""
    ) -> Host:
        """A host whose records are right."""
        try:
            await context.registry.tenant("acme")
        except Exception:
            await context.registry.add_tenant("acme")
        host = await context.registry.add_host(name, "acme", state, zone)
        if not zone:
            await self.knot.put(name, "CNAME", f"{host.target}.")
        return host

    async def progress(self, context: Context, name: str) -> Progress:
        return await progresses.read(context.store, name)

    async def _answer(self, token: str) -> bytes | None:
        if self.answers is not None:
            return await self.answers(token)
        assert self._context is not None
        return await challenge(self._context, token)


async def challenge(context: Context, token: str) -> bytes | None:
    """The answer to a challenge, whichever host it was ordered for."""
    found = await context.store.list(keys.CHALLENGE)
    return next((entry.value for entry in found if entry.key.endswith(f"/{token}")), None)


@pytest.fixture
async def world(tmp_path: Path, knot: Knot) -> AsyncIterator[World]:
    world = World(tmp_path, knot)
    async with world.server:
        world.pebble.start()
        yield world
        world.pebble.stop()


@asynccontextmanager
async def control(context: Context, watching: bool = True) -> AsyncIterator[None]:
    """What the control role runs."""
    tasks = [asyncio.create_task(context.directory.follow(context.store)), asyncio.create_task(maintain(context))]
    tasks += [asyncio.create_task(watch(context))] if watching else []
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
