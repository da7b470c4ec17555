"""A real DNS server, and an installation that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from tests.parts import Knot


@pytest.fixture
async def context(tmp_path: Path, knot: Knot) -> AsyncIterator[Context]:
    settings = Settings(
        data=tmp_path,
        edge={"domain": "edge.test"},
        dns={"servers": knot.server, "pending_seconds": 0.3, "live_seconds": 0.5},
        certs={"ca": "https://ca.test/dir"},
    )
    async with open_context(settings, actor="test") as context:
        await context.registry.add_tenant("acme")
        yield context
