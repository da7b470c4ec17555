"""An installation of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brandproxy.certs.vault import Vault
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.store.seal import open_seal


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    settings = Settings(data=tmp_path / "data", certs={"ca": "dev"})
    async with open_context(settings, actor="test") as context:
        yield context


@pytest.fixture
def vault(context: Context) -> Vault:
    return Vault(context.store, open_seal(context.settings))
