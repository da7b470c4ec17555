"""Purging over HTTP: a tenant's key reaches its own objects only."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from brandproxy.context import Context
from brandproxy.model import Origin
from brandproxy.store import keys

PUBLIC = "https://media.acme.example/"


@pytest.fixture
async def origin(context: Context) -> None:
    media = Origin("media", "https://storage.example/", (PUBLIC,))
    await context.registry.change_tenant("acme", lambda tenant: replace(tenant, origins=(media,)), "test")


async def test_an_order_is_kept_for_every_edge_and_in_the_audit_trail(
    client: httpx.AsyncClient, context: Context, acme: dict[str, str], origin: None
) -> None:
    body = {"tenant": "acme", "url": PUBLIC + "logo.png"}
    assert (await client.post("/v1/assets/purge", headers=acme, json=body)).status_code == 204
    assert (await client.post("/v1/assets/purge", headers=acme, json={"tenant": "acme"})).status_code == 204
    assert len(await context.store.list(keys.PURGE)) == 2
    trail = [entry.value for entry in await context.store.list(keys.AUDIT)]
    assert sum(b"asset.purge" in value and b"logo.png" in value for value in trail) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [({"tenant": "rival"}, 404), ({"tenant": "acme", "url": "https://elsewhere.example/x.png"}, 400),
     ({"tenant": "../x"}, 400), ({"tenant": "nobody"}, 404), ({}, 400)],
)  # fmt: skip
async def test_nobody_purges_what_is_not_theirs(
    client: httpx.AsyncClient,
    context: Context,
    acme: dict[str, str],
    origin: None,
    body: dict[str, str],
    status: int,
) -> None:
    assert (await client.post("/v1/assets/purge", headers=acme, json=body)).status_code == status
    assert (await client.post("/v1/assets/purge", json=body)).status_code == 401
    assert await context.store.list(keys.PURGE) == []


async def test_an_origin_is_checked_before_it_is_kept(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    for url in ("ftp://x/", "https://x", "https://u@x/"):
        body = {"origins": [{"name": "media", "url": url}]}
        assert (await client.patch("/v1/tenants/acme", headers=operator, json=body)).status_code == 400
