"""Assets on the running edge: two worker processes, one cache, one truth after a purge."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from brandproxy.context import Context
from brandproxy.core.tokens import Asset
from brandproxy.model import Origin, Tenant
from brandproxy.storage import purge
from tests.edge.conftest import HOST, RunningEdge, eventually, prepare
from tests.storage.servers import Nginx, nginx


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Nginx]:
    (tmp_path / "root").mkdir()
    with nginx(tmp_path / "nginx", tmp_path / "root") as server:
        yield server


@pytest.fixture
def edge(tmp_path: Path, storage: Nginx) -> Iterator[RunningEdge]:
    running = prepare(tmp_path / "data", workers=2, BRANDPROXY_OUTBOUND_ALLOW="127.0.0.1")

    def change(tenant: Tenant) -> Tenant:
        return replace(tenant, origins=(Origin("media", storage.url, ("https://media.acme.example/",)),))

    async def add(context: Context) -> None:
        await context.registry.change_tenant("acme", change, "test")

    running.change(add)
    running.start()
    yield running
    running.stop()


def fetch(edge: RunningEdge, path: str) -> httpx.Response:
    """Over a connection of its own, so that either worker may answer."""
    url = f"http://127.0.0.1:{edge.http}/a/{edge.token(Asset('media', path))}/{path}"
    return httpx.get(url, headers={"host": HOST}, timeout=20)


def test_a_storm_over_two_processes_is_one_request_and_a_purge_reaches_both(
    edge: RunningEdge, storage: Nginx
) -> None:
    image = storage.folder / "logo.png"
    image.write_bytes(os.urandom(50_000))
    with ThreadPoolExecutor(16) as pool:
        bodies = {answer.content for answer in pool.map(lambda _: fetch(edge, "logo.png"), range(64))}
    assert bodies == {image.read_bytes()}
    assert storage.requests == ["GET /logo.png 200"]

    image.write_bytes(b"new")
    assert fetch(edge, "logo.png").content in bodies

    async def give(context: Context) -> None:
        tenant = await context.registry.tenant("acme")
        await purge.give(context.store, purge.of_url(tenant, "https://media.acme.example/logo.png", time.time()))

    edge.change(give)
    assert eventually(lambda: all(fetch(edge, "logo.png").content == b"new" for _ in range(20)), seconds=2.5)


def test_a_forged_token_asks_storage_nothing(edge: RunningEdge, storage: Nginx) -> None:
    token = edge.token(Asset("media", "logo.png"), tenant="globex")
    url = f"http://127.0.0.1:{edge.http}/a/{token}/logo.png"
    assert httpx.get(url, headers={"host": HOST}).status_code == 404
    assert storage.requests == []
