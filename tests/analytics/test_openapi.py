"""The API and its OpenAPI document agree, whatever is asked."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from brandproxy.access import create_key
from brandproxy.admin import api as admin
from brandproxy.analytics import api as analytics
from brandproxy.analytics.webhooks import api as webhooks
from brandproxy.config import Settings
from brandproxy.context import open_context
from brandproxy.engines import open_engine
from brandproxy.filters import http as rewriting
from brandproxy.roles import build_control
from brandproxy.web import Budget, openapi
from brandproxy.webhooks.book import Book
from tests.conftest import free_port

from .conftest import put, some_events

# make a longer drill with BRANDPROXY_SCHEMATHESIS_EXAMPLES=200
EXAMPLES = int(os.environ.get("BRANDPROXY_SCHEMATHESIS_EXAMPLES", "5"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


async def _serve(data: Path, port: int, started: list[str], stop: threading.Event) -> None:
    settings = Settings(data=data)
    async with open_context(settings) as context:
        engine = open_engine(settings)
        for slug in ("acme", "globex"):
            await context.registry.add_tenant(slug)
        await put(engine, some_events(300, days=20))
        app = build_control(context, engine)
        app.state.budget = Budget(1e6, 1_000_000)
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1))
        task = asyncio.create_task(server.serve())
        await context.registry.add_host("go.globex.example", "globex")
        await context.registry.add_host("go.acme.example", "acme")
        hook, _ = await Book(context).add("globex", "https://globex.example/hook", ("click",), True)
        THEIRS["id"] = hook.id
        for tenant in (None, "acme"):
            started.append((await create_key(context.store, tenant))[1])
        while not stop.is_set():
            await asyncio.sleep(0.05)
        server.should_exit = True
        await task
        await engine.close()


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """The whole control port, with a server: its address, an operator's key, a key of tenant acme."""
    port, started, stop = free_port(), [], threading.Event()  # type: ignore[var-annotated]
    work = _serve(tmp_path_factory.mktemp("openapi"), port, started, stop)
    thread = threading.Thread(target=asyncio.run, args=[work])
    thread.start()
    while len(started) < 2:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}", started[0], started[1]
    stop.set()
    thread.join(10)


# what globex has, for every kind of name in a path
THEIRS = {
    "slug": "globex",
    "name": "go.globex.example",
    "message": "m3",
    "recipient": "r3",
    "number": "0",
    "id": "x",
}
ALL = (analytics.PATHS, webhooks.PATHS, admin.PATHS, rewriting.PATHS)
GETS = [path for paths in ALL for path, item in paths.items() if "get" in item]


@pytest.mark.parametrize("path", [path for path in GETS if not path.endswith("/live")])
def test_a_tenants_key_meets_nothing_of_another_on_any_route(path: str, control: tuple[str, str, str]) -> None:
    headers = {"Authorization": f"Bearer {control[2]}"}
    url = control[0] + re.sub(r"\{(\w+)\}", lambda name: THEIRS.get(name[1], "x"), path)
    with httpx.Client(trust_env=False) as client:
        for params in ({}, {"tenant": "globex"}, {"host": "go.globex.example"}):
            answer = client.get(url, params=params, headers=headers)
            assert answer.status_code in (200, 400, 403, 404)
            assert answer.status_code != 200 or "globex" not in answer.text
        assert client.get(url).status_code == 401


# The live feed has no end and a mail is no JSON, so these two have tests of their own.
schema = schemathesis.openapi.from_dict(openapi(*ALL)).exclude(path_regex="/live$|/v1/rewrite$")


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_answer_is_a_fault_or_other_than_documented(
    case: schemathesis.Case, control: tuple[str, str, str]
) -> None:
    headers = {"Authorization": f"Bearer {control[1]}"}
    case.call_and_validate(base_url=control[0], headers=headers, checks=CHECKS)
