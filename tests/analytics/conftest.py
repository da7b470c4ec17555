"""A control port's application over a real store and a real engine, without a server."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from brandproxy.access import create_key
from brandproxy.analytics.api import PATHS, routes
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.ids import uuid7
from brandproxy.engines import Engine, open_engine
from brandproxy.errors import BrandproxyError
from brandproxy.guard import openapi_route
from brandproxy.intake import row
from brandproxy.model import Event
from brandproxy.web import on_error

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"


def event(at_us: int = 0, **fields: object) -> Event:
    at_us = at_us or int(time.time() * 1e6)
    base = {"kind": "click", "tenant": "acme", "host": "links.acme.example", "agent": BROWSER}
    return Event(id=uuid7(at_us // 1000), at_us=at_us, **(base | fields))  # type: ignore[arg-type]


def some_events(count: int, seed: int = 1, until_us: int = 0, days: int = 60) -> list[Event]:
    """Events of three tenants over `days`, with repeated recipients, machines and missing references."""
    draw = random.Random(seed)
    until_us = until_us or int(time.time() * 1e6)
    found = []
    for _ in range(count):
        at_us = until_us - draw.randrange(days * 86_400_000_000)
        kind = draw.choice(["click", "click", "open", "open", "open", "unsubscribe"])
        link = draw.randrange(5)
        found.append(
            event(
                at_us,
                kind=kind,
                tenant=draw.choice(["acme", "acme", "globex", "initech"]),
                host=draw.choice(["links.acme.example", "go.acme.example"]),
                campaign=draw.choice(["spring", "summer", ""]),
                message=f"m{draw.randrange(40)}",
                recipient=draw.choice(["", *(f"r{n}" for n in range(25))]),
                link=link,
                url=f"https://shop{link % 3}.example/p/{link}" if kind == "click" else "",
                sent_at=draw.choice([0, at_us // 1_000_000 - draw.randrange(1, 90_000)]),
                agent=draw.choice([BROWSER, PHONE, ""]),
                machine=draw.choice([(), (), (), ("head",), ("agent", "burst")]),
            )
        )
    return found


async def put(engine: Engine, events: list[Event], source: str = "segment") -> None:
    await engine.ingest(source, 0, 1, [row(e) for e in events])


@dataclass
class Port:
    app: Starlette
    context: Context
    engine: Engine
    client: httpx.AsyncClient
    operator: str
    acme: str
    globex: str

    async def get(self, path: str, key: str = "", **params: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.operator}"}
        given = {name: str(value) for name, value in params.items()}
        return await self.client.get(path, params=given, headers=headers)


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    settings = Settings(data=tmp_path / "var")
    async with open_context(settings) as context:
        for slug in ("acme", "globex"):
            await context.registry.add_tenant(slug)
        await context.directory.load(context.store)
        engine = open_engine(settings)
        app = Starlette(
            routes=[*routes(context, engine), openapi_route(PATHS)], exception_handlers={BrandproxyError: on_error}
        )
        app.state.context = context
        keys = [(await create_key(context.store, tenant))[1] for tenant in (None, "acme", "globex")]
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
            yield Port(app, context, engine, client, *keys)
        await engine.close()
