"""The control port's administration over a real store, without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from brandproxy import access, web
from brandproxy.admin import api
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.errors import BrandproxyError


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    async with open_context(Settings(data=tmp_path), actor="test") as context:
        for slug in ("acme", "rival"):
            await context.registry.add_tenant(slug)
        await context.registry.add_host("links.rival.example", "rival")
        yield context


@pytest.fixture
async def client(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    handlers = {BrandproxyError: web.on_error, HTTPException: web.on_error}
    app = Starlette(routes=api.routes(context), exception_handlers=handlers)  # type: ignore[arg-type]
    app.state.context = context
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
        yield client


async def bearer(context: Context, tenant: str | None) -> dict[str, str]:
    _, text = await access.create_key(context.store, tenant)
    return {"authorization": f"Bearer {text}"}


@pytest.fixture
async def operator(context: Context) -> dict[str, str]:
    return await bearer(context, None)


@pytest.fixture
async def acme(context: Context) -> dict[str, str]:
    return await bearer(context, "acme")
