"""API keys: scopes, expiry, rotation, last use, and what ends with a key."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from brandproxy import access, guard
from brandproxy.access import Principal, Scope
from brandproxy.admin.operations import Operation
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.errors import BadInput, BrandproxyError, Conflict, NotFound
from brandproxy.store import keys
from brandproxy.web import on_error
from tests.conftest import free_port


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    async with open_context(Settings(data=tmp_path), actor="test") as context:
        await context.registry.add_tenant("acme")
        yield context


async def who(context: Context, text: str) -> Principal:
    return await access.authenticate(context.store, f"Bearer {text}")


async def test_a_key_may_do_what_it_was_made_for_and_nothing_else(context: Context) -> None:
    for scope in Scope:
        _, text = await access.create_key(context.store, "acme", scopes=[scope])
        principal = await who(context, text)
        allowed = {other for other in Scope if principal.has(other)}
        assert allowed == ({scope, Scope.ONBOARD} if scope is Scope.ADMIN else {scope})
    for wrong in (["root"], [], ["admin", "Admin"], ["analytics"], [""]):
        with pytest.raises(BadInput, match="scope"):
            await access.create_key(context.store, "acme", scopes=wrong)


async def test_a_key_stored_before_there_were_scopes_keeps_its_rights(context: Context) -> None:
    _, text = await access.create_key(context.store, "acme")
    key_id = text.split("_")[1]
    entry = await context.store.get(keys.access(key_id))
    assert entry is not None
    old = {name: json.loads(entry.value)[name] for name in ("id", "hash", "tenant", "note", "created_at")}
    await context.store.put(keys.access(key_id), json.dumps(old).encode())
    assert (await who(context, text)).scopes == frozenset(Scope)
    [listed] = await access.list_keys(context.store)
    assert (listed.tenant, listed.expires_at) == ("acme", 0)


async def test_a_scope_of_a_newer_version_grants_nothing_here(context: Context) -> None:
    key, text = await access.create_key(context.store, "acme", scopes=["rewrite"])
    entry = await context.store.get(keys.access(key.id))
    assert entry is not None
    newer = json.loads(entry.value) | {"scopes": ["rewrite", "fly"], "unheard": 1}
    await context.store.put(keys.access(key.id), json.dumps(newer).encode())
    assert (await who(context, text)).scopes == {Scope.REWRITE}


async def test_a_key_ends_when_it_was_to(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())
    _, text = await access.create_key(context.store, "acme", expires_at=now + 100)
    assert (await who(context, text)).expires_at == now + 100
    monkeypatch.setattr(access.time, "time", lambda: now + 100.0)
    with pytest.raises(access.AccessDenied, match="expired"):
        await who(context, text)
    for past in (now, 1, -5, 10**40):
        with pytest.raises(BadInput):
            await access.create_key(context.store, "acme", expires_at=past)


async def test_a_rotated_key_works_beside_the_new_one_for_the_overlap(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    old, before = await access.create_key(context.store, "acme", "panel", ["rewrite"], now + 1000)
    ending, made, after = await access.rotate_key(context.store, old.id, 100)
    assert (made.scopes, made.tenant, made.note, made.replaces) == (old.scopes, "acme", "panel", old.id)
    assert made.expires_at == old.expires_at, "rotating makes no key live longer"
    assert (await who(context, before)).key_id == old.id
    assert (await who(context, after)).key_id == made.id
    monkeypatch.setattr(access.time, "time", lambda: float(ending.expires_at))
    with pytest.raises(access.AccessDenied):
        await who(context, before)
    assert (await who(context, after)).key_id == made.id
    with pytest.raises(Conflict):
        await access.rotate_key(context.store, old.id, 100)
    for wrong, overlap in (("none", 1), (made.id, -1), (made.id, access.MAX_OVERLAP + 1)):
        with pytest.raises((NotFound, BadInput)):
            await access.rotate_key(context.store, wrong, overlap)


async def test_a_leaked_key_is_rotated_without_overlap(context: Context) -> None:
    old, text = await access.create_key(context.store, "acme")
    await access.rotate_key(context.store, old.id, 0)
    with pytest.raises(access.AccessDenied):
        await who(context, text)


async def test_last_use_is_written_at_most_once_a_minute_and_revives_no_key(context: Context) -> None:
    key, text = await access.create_key(context.store, "acme")
    await who(context, text)
    await access.write_uses(context.store)
    [written] = await context.store.list(keys.ACCESS_USE)
    for _ in range(20):
        await who(context, text)
        await access.write_uses(context.store)
    assert await context.store.list(keys.ACCESS_USE) == [written], "not written again"
    assert abs(int(written.value) - time.time()) < 5
    assert (await access.last_uses(context.store))[key.id] == int(written.value)
    await access.revoke_key(context.store, key.id)
    access._written.clear()
    await access.write_uses(context.store)
    assert await context.store.list(keys.ACCESS_USE) == []
    assert await context.store.list(keys.ACCESS) == []


async def endless(request: Request, who: Principal) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        try:
            while True:
                await asyncio.sleep(0.02)
                yield b"more\n"
        finally:
            request.app.state.closed += 1

    kind = request.query_params["kind"]
    return StreamingResponse(pieces(), media_type=kind)


@pytest.fixture
async def served(context: Context, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Context, str]]:
    """A control port with one endless answer, and a quick heartbeat."""
    monkeypatch.setattr(guard, "HEARTBEAT", 0.1)
    rule = guard.Rule(Scope.ANALYTICS_READ)
    route = guard.Guarded("/stream", {"GET": (rule, endless)})
    app = Starlette(routes=[route], exception_handlers={BrandproxyError: on_error})
    app.state.context, app.state.closed = context, 0
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    yield context, f"http://127.0.0.1:{port}/stream"
    server.should_exit = True
    await task


@asynccontextmanager
async def streamed(url: str, text: str, kind: str) -> AsyncIterator[httpx.Response]:
    headers = {"Authorization": f"Bearer {text}"}
    async with (
        httpx.AsyncClient(trust_env=False, headers=headers, timeout=10) as client,
        client.stream("GET", url, params={"kind": kind}) as answer,
    ):
        yield answer


@pytest.mark.parametrize("kind", ["text/event-stream", "application/x-ndjson"])
@pytest.mark.parametrize("end", ["revoked", "expired", "rotated"])
async def test_a_stream_ends_with_its_key(served: tuple[Context, str], kind: str, end: str) -> None:
    context, url = served
    expires = int(time.time()) + 2 if end == "expired" else 0
    key, text = await access.create_key(context.store, "acme", expires_at=expires)
    seen = 0

    async def read() -> None:
        nonlocal seen
        async with streamed(url, text, kind) as answer:
            async for _ in answer.aiter_lines():
                seen += 1

    reading = asyncio.create_task(read())
    while not seen:
        await asyncio.sleep(0.01)
    if end == "revoked":
        await access.revoke_key(context.store, key.id)
    elif end == "rotated":
        await access.rotate_key(context.store, key.id, 0)
    async with asyncio.timeout(4):
        if kind == "text/event-stream":
            await reading
        else:  # nobody takes a part for the whole
            with pytest.raises(httpx.RemoteProtocolError):
                await reading
    assert seen


async def test_a_stream_goes_on_while_its_key_does(served: tuple[Context, str]) -> None:
    context, url = served
    _, text = await access.create_key(context.store, "acme")
    async with streamed(url, text, "text/event-stream") as answer:
        lines = answer.aiter_lines()
        for _ in range(40):  # eight heartbeats
            assert await anext(lines)


def test_what_declares_no_scope_does_not_load() -> None:
    async def run(*_: Any) -> Response:
        return Response()

    with pytest.raises(TypeError, match="scope"):
        Operation("GET", "/v1/x", "X", run)  # type: ignore[call-arg]
    for item in ({}, {"security": []}, {"security": [{"bearer": []}]}, {"security": [{"bearer": ["root"]}]}):
        with pytest.raises(guard.Undeclared):
            guard.described({"/v1/x": {"get": item}}, "/v1/x", {"GET": run})
        with pytest.raises(guard.Undeclared):
            guard.openapi_route({"/v1/x": {"get": item}})
    with pytest.raises(guard.Undeclared):
        guard.described({}, "/v1/x", {"GET": run})
    with pytest.raises(guard.Undeclared, match="/v1/x"):
        guard.checked([Route("/v1/x", run)])
