"""The map of logins in the store: by command and API, in force without a restart, and only for the operator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import httpx
import pytest
from typer.testing import CliRunner

from brandproxy import access, identities
from brandproxy.cli import build
from brandproxy.context import Context
from brandproxy.errors import BadInput, NotFound
from brandproxy.filters.control import read
from brandproxy.filters.lookup import LOGIN, SENDER, Hints, Identity, Verdict
from brandproxy.filters.pipeline import Arrival, Pipeline
from brandproxy.grants import Grant
from brandproxy.model import HostState, Sender, SenderState
from brandproxy.store import Entry, Store, keys
from tests.filters.conftest import HTML, installation

ACME = b"https://links.acme.example/"


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(tmp_path, listeners={}, logins={"shop": "acme"}) as context:
        await context.registry.add_tenant("beta")
        await context.registry.add_host("links.beta.example", "beta")
        await context.registry.set_host_state("links.beta.example", HostState.LIVE, "test")
        await context.directory.load(context.store)
        yield context


async def owner(pipeline: Pipeline, login: str) -> str:
    return (await pipeline.process(Arrival("milter", HTML, identity=Identity(login=login)))).tenant


async def until(pipeline: Pipeline, login: str, tenant: str) -> float:
    """Seconds until the login's mail is that tenant's."""
    since = time.monotonic()
    async with asyncio.timeout(5):
        while await owner(pipeline, login) != tenant:
            await asyncio.sleep(0.02)
    return time.monotonic() - since


async def test_a_login_added_or_removed_is_in_force_within_two_seconds(context: Context) -> None:
    pipeline = Pipeline(context)
    await pipeline.start()
    following = asyncio.create_task(context.directory.follow(context.store))
    try:
        assert await owner(pipeline, "new@beta.example") == ""
        await identities.add(context.store, "*@Beta.example", Grant(("acme",)))
        assert await until(pipeline, "new@beta.example", "acme") < 2
        await identities.add(context.store, "new@beta.example", Grant(("beta",), ("acme.example",)))
        assert await until(pipeline, "NEW@beta.example", "beta") < 2
        await identities.remove(context.store, "new@beta.example")
        await identities.remove(context.store, "*@beta.example")
        assert await until(pipeline, "new@beta.example", "") < 2
        await identities.add(context.store, "shop", Grant(("beta",)))
        await asyncio.sleep(0.3)
        assert await owner(pipeline, "shop") == "acme"  # the settings go before the store
    finally:
        following.cancel()


async def test_a_hundred_thousand_logins_are_read_in_seconds() -> None:
    value = b'{"tenants": ["acme"], "domains": [], "header": false}'
    entries = [Entry(keys.identity(f"user{number}@shop.example"), value, number) for number in range(100_000)]

    class Full:
        async def list(self, prefix: str) -> list[Entry]:
            return entries if prefix == keys.IDENTITY else []

    book = identities.Book()
    began = time.process_time()
    await book.load(cast(Store, Full()))
    took = time.process_time() - began
    print(f"\n100,000 logins in {took:.2f} s of CPU")
    assert book.login("user99999@shop.example") is book.login("user0@shop.example")  # they share their rights
    assert took < 3


async def test_a_proven_sending_domain_is_its_tenants_and_nobody_elses(context: Context) -> None:
    pipeline = Pipeline(context)
    await pipeline.start()
    claims = (
        Sender("news.example", "acme", "l1", state=SenderState.PENDING),
        Sender("news.example", "beta", "l2", state=SenderState.PROVEN),
    )
    await context.store.put(keys.sender("news.example"), identities._SENDERS.dump_json(claims))
    await pipeline._book.load(context.store)
    said = Hints("", "", lambda: ["a@news.example"])
    decide = pipeline._lookup.decide
    assert decide(Identity(Grant(("beta",)), strict=True), said) == Verdict("beta")
    assert decide(Identity(Grant(("acme",)), strict=True), said) == Verdict("", SENDER)
    assert decide(Identity(login="shop"), said) == Verdict("", SENDER)
    assert decide(Identity(login="nobody"), said) == Verdict("", LOGIN)


@pytest.mark.parametrize("login", ["", "*", "@beta.example", "*@", "a*b", "*@*", "a\nb", "x" * 500, "*@a@*"])
async def test_what_is_no_login_is_refused(context: Context, login: str) -> None:
    with pytest.raises(BadInput):
        await identities.add(context.store, login, Grant(("acme",)))
    with pytest.raises((BadInput, NotFound)):
        await identities.remove(context.store, login)


async def test_a_record_nobody_can_read_gives_no_right(context: Context) -> None:
    for number, value in enumerate((b"x", b"[]", b"{}", b'{"tenants": []}', b'{"tenants": ["acme"], "more": 1}')):
        await context.store.put(keys.identity(f"odd{number}"), value)
    assert await identities.everything(context.store) == {}


async def test_the_operator_alone_keeps_the_map_over_http(context: Context) -> None:
    from brandproxy.engines import open_engine
    from brandproxy.roles import build_control

    engine = open_engine(context.settings)
    try:
        transport = httpx.ASGITransport(build_control(context, engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:

            async def ask(method: str, tenant: str | None, **more: object) -> httpx.Response:
                _, key = await access.create_key(context.store, tenant)
                headers = {"Authorization": f"Bearer {key}"}
                return await client.request(method, "/v1/mail/identities", headers=headers, **more)  # type: ignore[arg-type]

            new = {"login": "Shop-B@beta.example", "tenants": ["beta"], "domains": ["Beta.example"]}
            kept = {
                "login": "shop-b@beta.example",
                "tenants": ["beta"],
                "domains": ["beta.example"],
                "header": False,
            }
            assert (await ask("POST", "acme", json=new)).status_code == 403
            assert (await ask("POST", None, json=new)).json() == kept
            assert (await ask("POST", None, json={**new, "tenants": ["nowhere"]})).status_code == 404
            for wrong in ({"login": "*"}, {"tenants": []}, {"tenants": "beta"}, {"headers": True}, {"header": 1}):
                assert (await ask("POST", None, json={**new, **wrong})).status_code == 400
            assert (await ask("GET", None)).json() == {"identities": [kept], "after": ""}
            assert (await ask("GET", "beta")).status_code == 403
            assert (await ask("DELETE", "beta", params={"login": new["login"]})).status_code == 403
            assert (await ask("DELETE", None, params={"login": new["login"]})).status_code == 204
            assert (await ask("DELETE", None, params={"login": new["login"]})).status_code == 404
    finally:
        await engine.close()


def test_the_commands_keep_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRANDPROXY_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        result = CliRunner().invoke(build(), [*words])
        assert result.exit_code == 0, result.output
        return result.output

    run("tenant", "add", "acme")
    assert "sends for acme" in run("mail", "map", "add", "*@beta.example", "--tenant", "acme")
    assert '"*@beta.example"' in run("mail", "map", "list", "--json")
    assert "no longer" in run("mail", "map", "remove", "*@Beta.example")
    assert "empty" in run("mail", "map", "list")


def test_an_author_is_read_from_every_from_field() -> None:
    message = b"From: a@acme.example\r\nX: y\r\nFrom: =?utf-8?q?b?= <b@beta.example>, c@d.example\r\n\r\n"
    assert read(message).authors() == ["a@acme.example", "b@beta.example", "c@d.example"]
