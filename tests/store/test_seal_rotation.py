"""The master key can be rotated: everything sealed by the old one opens with the new one alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from brandproxy.certs import Vault
from brandproxy.certs.devca import DevCA
from brandproxy.config import Settings
from brandproxy.context import open_context
from brandproxy.errors import BadSettings
from brandproxy.store.seal import open_seal, reseal

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
HOST = "links.acme.example"


async def test_after_resealing_the_old_key_can_go(tmp_path: Path) -> None:
    def settings(key: str) -> Settings:
        return Settings(data=tmp_path, master_key=key)

    async with open_context(settings(OLD)) as context:
        before = await context.registry.add_tenant("acme")
        await Vault(context.store, open_seal(context.settings)).put(DevCA(tmp_path).issue(HOST, time.time()))
    async with open_context(settings(f"{NEW},{OLD}")) as context:
        assert await reseal(context.store, open_seal(context.settings)) == 2
    async with open_context(settings(NEW)) as context:
        assert await context.registry.tenant("acme") == before
        assert await Vault(context.store, open_seal(context.settings)).get(HOST) is not None
    with pytest.raises(BadSettings):
        async with open_context(settings(OLD)) as context:
            await context.registry.tenant("acme")
