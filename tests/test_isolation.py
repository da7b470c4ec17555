"""Every route × everybody who may ask, from one table: the routes of the whole control port, with the rules that
its own description declares. A route that is added is asked here without a line more; one that is not described,
or open to everybody without being named in OPEN, fails.

What acme has holds SECRET wherever there is room for it, and no request ever does: an answer to anybody else that
holds it has leaked.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from brandproxy import access, blocks
from brandproxy.access import Scope
from brandproxy.admin import api as admin
from brandproxy.analytics import api as analytics
from brandproxy.analytics.dashboard import clickmap
from brandproxy.analytics.webhooks import api as webhooks
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.engines import Engine, open_engine
from brandproxy.filters import http as rewriting
from brandproxy.guard import Guarded, Open, Rule, rule_of
from brandproxy.model import BlockKind
from brandproxy.roles import build_control
from brandproxy.store import keys
from brandproxy.web import Budget, openapi
from brandproxy.webhooks.book import Book
from tests.analytics.conftest import event, put
from tests.conftest import free_port

SECRET = "zebra"
OPEN = {
    "/login", "/static/{name}", "/openapi.json", "/caddy/ask", "/onboarding/static/{name}", "/onboarding/{link}",
    "/onboarding/{link}/status",
}  # fmt: skip
DOCUMENT = openapi(analytics.PATHS, webhooks.PATHS, admin.PATHS, rewriting.PATHS)
MAIL = b"From: a@acme.example\r\nTo: b@example.net\r\nContent-Type: text/plain\r\n\r\nhttps://shop.example/\r\n"

# What acme has by these names: for paths, and for bodies that ask for more than a tenant.
NAMES = {
    "slug": "acme", "name": "links.acme.example", "message": "m1", "recipient": "r1", "number": "0",
    "zone": "acme.example", "domain": "acme.example",
    "selector": "bp1", "link": "x", "host": "links.acme.example", "tenant": "acme",
    "url": "https://hook.example.net/", "value": "spring", "kind": "campaign", "key": "v=DKIM1; p=AAAA",
    "campaign": "spring", "reason": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Who:
    """Somebody who asks. `valid` False: a key that opens nothing (none, expired, revoked)."""

    name: str
    tenant: str | None = None
    scopes: frozenset[Scope] = frozenset()
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    valid: bool = True

    def has(self, scope: Scope) -> bool:
        return scope in self.scopes or (scope is Scope.ONBOARD and Scope.ADMIN in self.scopes)


@dataclass(frozen=True)
class Port:
    context: Context
    engine: Engine
    routes: list[Guarded | Open]
    base: str
    ids: dict[str, str]
    people: list[Who]


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    settings = Settings(data=tmp_path, edge={"domain": "edge.test"})
    async with open_context(settings) as context:
        engine = open_engine(settings)
        app = build_control(context, engine)
        app.state.budget = app.state.tries = Budget(1e6, 1_000_000)
        number = free_port()
        config = uvicorn.Config(app, port=number, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.02)
        ids, base = await furnish(context, engine), f"http://127.0.0.1:{number}"
        people = await everybody(context, base)
        yield Port(context, engine, app.routes, base, ids, people)  # type: ignore[arg-type]
        server.should_exit = True
        await task
        await engine.close()


async def furnish(context: Context, engine: Engine) -> dict[str, str]:
    """Two tenants; acme has one of everything. The ids of its things by the word before `{id}` in paths."""
    for slug in ("acme", "beta"):
        await context.registry.add_tenant(slug, f"{slug} {SECRET if slug == 'acme' else ''}")
    await context.registry.change_tenant(
        "acme", lambda tenant: replace(tenant, home=f"https://{SECRET}.example/"), f"tenant.change {SECRET}"
    )
    await context.registry.add_host("links.acme.example", "acme")
    await context.registry.add_host("links.beta.example", "beta")
    hook, _ = await Book(context).add("acme", f"https://{SECRET}.example/hook", ("click",), True)
    block = await blocks.add(context.store, BlockKind.CAMPAIGN, f"c-{SECRET}", "acme", SECRET)
    key, _ = await access.create_key(context.store, "acme", SECRET)
    await clickmap.keep(context, "acme", "spring", f"<p>{SECRET}</p>".encode())
    await context.directory.load(context.store)
    common = {"campaign": "spring", "recipient": "r1", "message": "m1", "agent": f"Agent {SECRET}"}
    await put(engine, [event(url=f"https://{SECRET}.example/{n}", link=n, **common) for n in range(5)])
    await put(engine, [event(tenant="beta", host="links.beta.example", campaign="own")], "beta")
    return {"webhooks": hook.id, "blocks": block.id, "keys": key.id}


async def everybody(context: Context, base: str) -> list[Who]:
    async def made(name: str, tenant: str | None, scopes: list[Scope], **more: Any) -> Who:
        _, text = await access.create_key(context.store, tenant, scopes=scopes, **more)
        return Who(name, tenant, frozenset(scopes), {"Authorization": f"Bearer {text}"})

    async def signed_in(who: Who) -> Who:
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            given = who.headers["Authorization"].removeprefix("Bearer ")
            answer = await client.post("/login", data={"key": given})
            cookie = answer.headers["set-cookie"].partition(";")[0]
        return replace(who, name=f"{who.name}, signed in", headers={"Cookie": cookie, "Origin": base})

    people = [Who("nobody", valid=False)]
    for tenant in ("beta", "acme", None):
        label = tenant or "operator"
        every = await made(label, tenant, [*Scope])
        people += [every, await signed_in(every)]
        people += [await made(f"{label} {scope}", tenant, [scope]) for scope in Scope]
    expired = await made("expired", None, [*Scope], expires_at=int(time.time()) + 1)
    revoked = await made("revoked", None, [*Scope])
    leaving = await made("signed in with a revoked key", None, [*Scope])
    gone = await signed_in(leaving)
    for who in (revoked, leaving):
        await access.revoke_key(context.store, who.headers["Authorization"].split("_")[1])
    await asyncio.sleep(1.1)
    return people + [replace(who, valid=False) for who in (expired, revoked, gone)]


@dataclass(frozen=True)
class Case:
    method: str
    path: str
    rule: Rule | None  # None: open to everybody


def cases(port: Port) -> list[Case]:
    """What can be asked; what reads comes before what changes, what removes comes last."""
    found = []
    for route in port.routes:
        methods = route.rules if isinstance(route, Guarded) else dict.fromkeys(route.methods or (), None)
        found += [Case(method, route.path, rule) for method, rule in methods.items() if method != "HEAD"]
    order = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return sorted(found, key=lambda case: (case.path == "/logout", order.index(case.method)))


def asked(port: Port, case: Case, named: bool) -> tuple[str, dict[str, Any]]:
    """URL and arguments of a request about acme's things; `named`: it names acme in query and body too."""

    def value(match: re.Match[str]) -> str:
        kind = case.path.split("/")[2] if case.path.startswith("/v1/") else ""
        return port.ids[kind] if match[1] == "id" else NAMES.get(match[1], "x")

    described = DOCUMENT["paths"].get(case.path, {}).get(case.method.lower(), {})
    known = {p["name"] for p in described.get("parameters", ()) if p["in"] == "query"}
    params = {name: NAMES[name] for name in ("tenant", "message", "recipient") if named and name in known}
    if case.rule is not None and not case.path.startswith("/v1/"):  # pages
        params = {"campaign": "spring", "message": "m1", "recipient": "r1"}
        params |= {"tenant": "acme"} if named else {}
    more: dict[str, Any] = {"params": params}
    content = described.get("requestBody", {}).get("content", {})
    if "message/rfc822" in content:
        more |= {"content": MAIL, "headers": {"Content-Type": "message/rfc822"}}
    elif content:
        schema = next(iter(content.values()))["schema"]
        body = {name: made(name, schema["properties"][name]) for name in schema.get("required", ())}
        own = {"tenant": "beta", "name": "own.beta.example", "domain": "own.example"}
        body |= {name: NAMES[name] if named else own[name] for name in own if name in schema["properties"]}
        more["json"] = body
    elif case.path == "/campaign/map" and case.method == "POST":
        more["files"] = {"mail": ("mail.html", b"<p>other</p>")}
    return re.sub(r"{(\w+)}", value, case.path), more


def made(name: str, schema: dict[str, Any]) -> Any:
    kind = schema.get("type")
    return 1 if kind in ("integer", "number") else [] if kind == "array" else NAMES.get(name, "x")


async def ask(client: httpx.AsyncClient, who: Who, case: Case, url: str, more: dict[str, Any]) -> tuple[int, str]:
    """Status and everything that came: of a feed what comes at first."""
    headers = {**more.get("headers", {}), **who.headers}
    async with client.stream(case.method, url, **(more | {"headers": headers})) as answer:
        text = f"{answer.headers}\n"
        try:
            async with asyncio.timeout(0.2 if "event-stream" in answer.headers.get("content-type", "") else 20):
                async for piece in answer.aiter_text():
                    text += piece
        except TimeoutError:
            pass
        page = case.rule is not None and not case.path.startswith("/v1/")
        status = 401 if page and answer.headers.get("location") == "/login" else answer.status_code
        return status, text


def expected(who: Who, case: Case) -> set[int] | None:
    """The statuses that the rule leaves this asker; None: it lets them in."""
    if case.rule is None:
        return None
    if not who.valid:
        return {401}
    if case.rule.scope is not None and not who.has(case.rule.scope):
        return {403}
    if case.rule.operator and who.tenant is not None:
        return {403}
    return None


def test_every_route_is_described_with_the_rule_it_follows(port: Port) -> None:
    described = {(m.upper(), path) for path, item in DOCUMENT["paths"].items() for m in item}
    there = set()
    for route in port.routes:
        assert isinstance(route, Guarded | Open), route
        if isinstance(route, Open):
            assert route.path in OPEN, f"{route.path} is open to everybody"
            continue
        for method, rule in route.rules.items():
            if route.path.startswith("/v1/"):
                operation = DOCUMENT["paths"].get(route.path, {}).get(method.lower())
                assert operation is not None, f"{method} {route.path} is not described"
                assert rule_of(operation, rule.counted) == rule
                there.add((method, route.path))
    assert there == described


async def test_everybody_gets_what_the_rule_says_and_nobody_what_is_anothers(port: Port) -> None:
    before = await everything_of_acme(port)
    strangers = [who for who in port.people if not who.valid or who.tenant == "beta"]
    count = 0
    async with httpx.AsyncClient(base_url=port.base, trust_env=False, timeout=30) as client:
        for case in cases(port):
            for who in strangers:
                for named in (False, True):
                    url, more = asked(port, case, named)
                    status, text = await ask(client, who, case, url, more)
                    about = f"{who.name}: {case.method} {url} {more} -> {status} {text[:600]}"
                    allowed = expected(who, case)
                    assert status < 500, about
                    assert allowed is None or status in allowed or case.path == "/logout", about
                    assert SECRET not in text, about
                    if allowed is None and case.rule is not None and anothers(case, named):
                        handed_on = status == 403 and not who.has(Scope.ANALYTICS_READ) and "webhooks" in url
                        assert status in (400, 404) or handed_on, about
                    if not named and "{" not in case.path and case.rule is not None:
                        assert "acme" not in text.replace("a@acme.example", ""), about
                    count += 1
    assert count > 800
    assert await everything_of_acme(port) == before, "a stranger has changed what is acme's"


def anothers(case: Case, named: bool) -> bool:
    """Whether a request is about things of acme by name, so that for others there are none."""
    if re.search(r"{(slug|name|id|domain)}", case.path):
        return True
    if case.path == "/logout" or (
        case.method == "GET" and case.path in ("/v1/hosts", "/v1/senders", "/v1/audit", "/")
    ):
        return False  # what one asks for within what one sees
    described = DOCUMENT["paths"].get(case.path, {}).get(case.method.lower(), {})
    schema = json.dumps([described.get("parameters"), described.get("requestBody")])
    return named and ('"tenant"' in schema or not case.path.startswith("/v1/"))


async def everything_of_acme(port: Port) -> dict[str, Any]:
    """All that is kept, but for what the asking itself leaves: uses, sessions, beta's own things."""
    found = {}
    for prefix in (keys.TENANT, keys.HOST, keys.ACCESS, keys.WEBHOOK, keys.BLOCK, keys.PURGE, "mailing/"):
        for entry in await port.context.store.list(prefix):
            if b"beta" not in entry.value and "beta" not in entry.key:
                found[entry.key] = entry.version
    [(events,)] = await port.engine.query("SELECT count(*) FROM events WHERE tenant = 'acme'", {})
    return found | {"events": events}


async def test_a_key_with_the_scope_is_let_in_and_one_without_is_told_which(port: Port) -> None:
    """The other half: the rules let in whom they should. What removes is asked last."""
    owners = [who for who in port.people if who.valid and who.tenant != "beta"]
    owners.sort(key=lambda who: who.scopes == frozenset(Scope))
    async with httpx.AsyncClient(base_url=port.base, trust_env=False, timeout=30) as client:
        for case in cases(port):
            for who in owners:
                if case.path == "/logout" or case.rule is None:
                    continue
                url, more = asked(port, case, named=True)
                status, text = await ask(client, who, case, url, more)
                about = f"{who.name}: {case.method} {url} {more} -> {status} {text[:300]}"
                allowed = expected(who, case)
                assert status < 500, about
                if allowed is not None:
                    assert status in allowed, about
                    missing = case.rule and case.rule.scope
                    assert missing is None or who.has(missing) or str(missing) in text, about
                elif case.method == "GET":
                    assert status in (200, 303, 404), about
                    assert status != 404 or "dkim" in url or "map" in url, about
                else:
                    assert status not in (401, 403) or "analytics:read" in text, about


async def test_the_live_feed_tells_each_key_its_own_events_only(port: Port) -> None:
    people = {who.name: who for who in port.people}

    async def first(who: Who) -> str:
        async with (
            httpx.AsyncClient(base_url=port.base, trust_env=False, headers=who.headers) as client,
            client.stream("GET", "/v1/analytics/live") as answer,
        ):
            seen = ""
            async for piece in answer.aiter_text():
                seen += piece
                if "event: event" in seen and "last" in seen:
                    break
            return seen

    feeds = [asyncio.create_task(first(people[n])) for n in ("beta", "beta, signed in", "acme", "operator")]
    await asyncio.sleep(1)
    await put(port.engine, [event(campaign=f"{SECRET}-1"), event(tenant="beta", campaign="b-1")], "live1")
    await asyncio.sleep(0.6)
    await put(port.engine, [event(campaign="last"), event(tenant="beta", campaign="last")], "live2")
    async with asyncio.timeout(10):
        seen = await asyncio.gather(*feeds)
    assert [SECRET in text for text in seen] == [False, False, True, True]
    assert ["b-1" in text for text in seen] == [True, True, False, True]


def test_the_table_can_fail() -> None:
    """A rule that nobody declared is never an open door."""
    assert expected(Who("x", valid=False), Case("GET", "/v1/x", Rule(Scope.ADMIN))) == {401}
    assert expected(Who("x", "beta", frozenset({Scope.REWRITE})), Case("GET", "/v1/x", Rule(Scope.ADMIN))) == {403}
    assert expected(
        Who("x", "beta", frozenset(Scope)), Case("GET", "/v1/x", Rule(Scope.ADMIN, operator=True))
    ) == {403}
    assert json.dumps(DOCUMENT).count('"security"') > 40
