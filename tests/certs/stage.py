"""A host at a CA that has renewal windows and profiles, with an injected clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy.certs import progress
from brandproxy.certs.ordering import Orders
from brandproxy.certs.upkeep import Upkeep
from brandproxy.certs.vault import Certificate
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.renewal import DAY
from brandproxy.model import Host, HostState
from tests.certs.fake_ca import FakeCA

HOST = "links.acme.test"


class Stage:
    """A host at a CA with windows; the clock is `at`."""

    def __init__(self, context: Context, ca: FakeCA, host: Host) -> None:
        self.context, self.ca, self.host = context, ca, host
        self.at = time.time()
        self._upkeep: Upkeep | None = None

    async def plan(self, *, restarted: bool = False) -> Upkeep:
        """One round of everything the control role would begin now."""
        if restarted or self._upkeep is None:
            self._upkeep = Upkeep(self.context, lambda: self.at)
        upkeep = self._upkeep
        upkeep.planner.facts.clear()
        await upkeep.load()
        upkeep.planner._sweep_at = 0.0
        for _ in range(3):
            await self.context.directory.load(self.context.store)
            for host, step in await upkeep.plan():
                await upkeep.work(host, step)
        return upkeep

    def close(self) -> None:
        assert self._upkeep is not None
        self._upkeep.orders.accounts.close()

    async def known(self) -> progress.Progress:
        return await progress.read(self.context.store, HOST)

    async def certificate(self) -> Certificate:
        found = await Orders(self.context).vault.get(HOST)
        assert found is not None
        return found

    async def serial(self) -> str:
        return (await self.certificate()).serial


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr("brandproxy.certs.preflight.Preflight.check", nothing)  # DNS is not what is tested here
    stage: Stage
    with FakeCA(tmp_path, 45 * DAY, lambda: stage.at) as ca:
        settings = Settings(data=tmp_path / "data", certs={"ca": ca.url, "acme_trust": ca.trust})
        async with open_context(settings, actor="test") as context:
            await context.registry.add_tenant("acme")
            host = await context.registry.add_host(HOST, "acme", HostState.VERIFIED)
            stage = Stage(context, ca, host)
            await stage.plan()
            yield stage
            stage.close()
