"""Any JSON by any tenant's key: others' answers, the control process and the count of events stay as they are.

On the whole control application with a real store and a real engine. `ANY_JSON` sets how many requests are made.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brandproxy import roles
from brandproxy.access import create_key
from brandproxy.analytics import upkeep
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.engines import Engine, open_engine
from brandproxy.intake import row
from brandproxy.model import Event
from brandproxy.quotas import Limits

MANY = int(os.environ.get("ANY_JSON", "600"))
KNOWN = {
    "slug": "acme", "tenant": "acme", "name": "links.acme.example", "domain": "acme.example", "id": "0",
    "selector": "bp1",
    "number": "0", "zone": "acme.example",
}  # fmt: skip
WORDS = (
    "policy", "keep_days", "max_links", "token_max_age", "exclude", "name", "home", "tenant", "slug", "url",
    "kinds",
    "value", "kind", "scopes", "expires_at", "note", "recipient", "domain", "approach", "reason", "origins",
)  # fmt: skip
VALUES = (
    -1, 0, 1, 10**40, 1.5, True, None, "", "5", "acme", "beta", "[", "*", "a\0", "../beta", "links.beta.example",
    "click", "https://x.example/", "x" * 3000, [], {}, [None], ["admin"], "\ud800", "é",
)  # fmt: skip
leaves = st.sampled_from(VALUES) | st.integers() | st.floats() | st.text(max_size=20)
bodies = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=12,
)


@dataclass
class Stage:
    context: Context
    engine: Engine
    client: httpx.AsyncClient
    acme: dict[str, str]
    beta: dict[str, str]
    operations: list[tuple[str, str]]

    async def others(self) -> list[Any]:
        """What beta's key is told, and how many events there are."""
        paths = (
            "/v1/tenants",
            "/v1/hosts",
            "/v1/blocks",
            "/v1/webhooks",
            "/v1/senders",
            "/v1/analytics/summary?until=2030-01-01",
        )
        found: list[Any] = []
        for path in paths:
            answer = await self.client.get(path, headers=self.beta)
            assert answer.status_code == 200
            found.append(answer.json())
        return [*found, await self.engine.query("SELECT tenant, count(*) FROM events GROUP BY 1 ORDER BY 1")]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_context(Settings(data=tmp_path), actor="test") as context:
        for slug in ("acme", "beta"):
            await context.registry.add_tenant(slug)
            await context.registry.add_host(f"links.{slug}.example", slug)
        await context.directory.load(context.store)
        engine = open_engine(context.settings)
        old = [int((time.time() - days * 86400) * 1e6) for days in (1, 400)]
        people = [
            Event(f"{at + n:032x}", "click", at, t, "h.example")
            for n, t in enumerate(("acme", "beta"))
            for at in old
        ]
        await engine.ingest("segment", 0, 1, [row(event) for event in people])
        app = roles.build_control(context, engine)
        keys = [{"authorization": f"Bearer {(await create_key(context.store, t))[1]}"} for t in ("acme", "beta")]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
            found = [
                (method.upper(), path) for path, item in paths.items() for method in item if "/live" not in path
            ]
            yield Stage(context, engine, client, *keys, found)
        await engine.close()


def filled(path: str, draw: random.Random) -> str:
    for name, value in KNOWN.items():
        given = (
            value
            if draw.random() < 0.7
            else draw.choice(["%00", "..", "é", "x" * 600, "%ED%A0%80", "9" * 40, "-1"])
        )
        path = path.replace(f"{{{name}}}", given)
    return path


async def test_any_json_by_a_tenants_key_changes_nothing_for_others(stage: Stage, monkeypatch: Any) -> None:
    monkeypatch.setattr("brandproxy.web.BUDGET", type("Free", (), {"spend": lambda *_: None})())
    before, loop = await stage.others(), asyncio.get_running_loop()
    requests: list[tuple[Any, int]] = []

    @settings(max_examples=MANY, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(bodies, st.integers(0, 1 << 32))
    def collect(body: Any, seed: int) -> None:
        requests.append((body, seed))

    await loop.run_in_executor(None, collect)
    for body, seed in requests:
        draw = random.Random(seed)
        method, path = draw.choice(stage.operations)
        query = draw.choice(["", "?tenant=acme", "?tenant=beta", "?limit=-1", "?x=1", "?tenant=acme&tenant=beta"])
        content = json.dumps(body).encode() if method != "GET" else b""
        url = filled(path, draw) + query
        answer = await stage.client.request(method, url, headers=stage.acme, content=content)
        assert answer.status_code < 500 or answer.status_code == 503, (method, url, content, answer.text)
    await upkeep.forget_old(stage.context, stage.engine, int(time.time()))
    assert await stage.others() == before


async def test_a_tenant_may_have_so_much_and_no_more_however_it_is_asked(tmp_path: Path) -> None:
    few = Limits(webhooks=3, keys=3, hosts=3, senders=3, blocks=3, mailings=3)
    asks: list[tuple[str, Any]] = [
        ("/v1/webhooks", lambda n: {"url": f"https://hooks.acme.example/{n}"}),
        ("/v1/keys", lambda n: {"tenant": "acme", "note": str(n)}),
        ("/v1/hosts", lambda n: {"tenant": "acme", "name": f"l{n}.acme{n}.example"}),
        ("/v1/blocks", lambda n: {"tenant": "acme", "kind": "domain", "value": f"d{n}.example"}),
    ]
    async with open_context(Settings(data=tmp_path, limits=few), actor="test") as context:
        await context.registry.add_tenant("acme")
        engine = open_engine(context.settings)
        app = roles.build_control(context, engine)
        acme, operator = [
            {"authorization": f"Bearer {(await create_key(context.store, t))[1]}"} for t in ("acme", None)
        ]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
            for path, body in asks:
                together = [client.post(path, headers=acme, json=body(n)) for n in range(8)]
                answers = await asyncio.gather(*together)
                there = 1 if path == "/v1/keys" else 0
                assert (path, sum(a.status_code == 201 for a in answers)) == (path, 3 - there)
                refused = next(a for a in answers if a.status_code == 409).json()
                assert path.rpartition("/")[2] in refused["detail"]
                assert f"limits.{path.rpartition('/')[2]}" in refused["action"]
                more = body(9) if path != "/v1/webhooks" else body(9) | {"tenant": "acme"}
                assert (await client.post(path, headers=operator, json=more)).status_code == 201
        await engine.close()
