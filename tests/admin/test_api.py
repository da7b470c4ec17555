"""Tenants, hosts, keys, kill list and audit trail over HTTP."""

from __future__ import annotations

import re

import httpx
import pytest
from openapi_spec_validator import validate

from brandproxy.admin import api
from brandproxy.admin.operations import Operation
from brandproxy.context import Context
from brandproxy.model import HostState
from tests.admin.conftest import bearer


async def test_an_operator_drives_a_tenant_from_beginning_to_end(
    client: httpx.AsyncClient, operator: dict[str, str]
) -> None:
    made = await client.post("/v1/tenants", headers=operator, json={"slug": "new", "policy": {"opens": True}})
    assert made.status_code == 201
    assert made.json()["policy"]["opens"] is True
    assert (await client.post("/v1/tenants", headers=operator, json={"slug": "new"})).status_code == 409
    host = await client.post("/v1/hosts", headers=operator, json={"name": "Links.New.example", "tenant": "new"})
    assert host.json()["name"] == "links.new.example"
    changed = await client.patch("/v1/tenants/new", headers=operator, json={"home": "https://new.example/"})
    assert (changed.json()["home"], changed.json()["policy"]["opens"]) == ("https://new.example/", True)
    rotated = await client.post("/v1/tenants/new/rotate-key", headers=operator)
    assert [key["number"] for key in rotated.json()["keys"]] == [1, 0]
    revoked = await client.post("/v1/tenants/new/keys/0/revoke", headers=operator)
    assert revoked.json()["keys"][1]["revoked_at"]
    stopped = await client.post("/v1/hosts/links.new.example/suspend", headers=operator, json={"reason": "spam"})
    assert (stopped.json()["state"], stopped.json()["reason"]) == ("suspended", "spam")
    again = await client.post("/v1/hosts/links.new.example/resume", headers=operator)
    assert again.json()["state"] == "pending"
    assert (await client.delete("/v1/tenants/new", headers=operator)).status_code == 409
    assert (await client.delete("/v1/hosts/links.new.example", headers=operator)).status_code == 204
    assert (await client.delete("/v1/tenants/new", headers=operator)).status_code == 204
    trail = (await client.get("/v1/audit", headers=operator)).json()["items"]
    assert {"tenant.add", "host.add", "host.state", "host.remove", "tenant.remove"} <= {e["what"] for e in trail}
    assert all(entry["actor"].startswith("key ") for entry in trail if entry["subject"] == "new")


async def test_no_answer_holds_a_secret(
    context: Context, client: httpx.AsyncClient, operator: dict[str, str]
) -> None:
    secret = (await context.registry.tenant("acme")).keys[0].secret
    for path in [operation.path for operation in api.OPERATIONS if operation.method == "GET"]:
        answer = await client.get(
            path.replace("{slug}", "acme")
            .replace("{name}", "links.rival.example")
            .replace("{domain}", "rival.example"),
            headers=operator,
        )
        assert answer.status_code == 200
        assert "secret" not in answer.text
        assert "hash" not in answer.text
        assert secret.hex() not in answer.text


async def test_a_tenants_key_never_sees_or_changes_another_tenant(
    context: Context, client: httpx.AsyncClient, acme: dict[str, str], operator: dict[str, str]
) -> None:
    kept = await client.post("/v1/keys", headers=operator, json={"tenant": "rival"})
    rule = {"kind": "campaign", "value": "x", "tenant": "rival"}
    block = await client.post("/v1/blocks", headers=operator, json=rule)
    values = {
        "slug": "rival",
        "name": "links.rival.example",
        "number": "0",
        "zone": "x.example",
        "selector": "bp1",
        "domain": "rival.example",
    }
    for operation in api.OPERATIONS:
        mine = values | {"id": (block if "blocks" in operation.path else kept).json()["id"]}
        path = re.sub(r"{(\w+)}", lambda match, mine=mine: mine[match[1]], operation.path)
        for body in ({}, {"tenant": "rival", "name": "a.rival.example", "slug": "rival", **rule}):
            answer = await client.request(operation.method, path, headers=acme, json=body)
            told = re.sub(r"tenant 'rival'|no host links\.rival|no sender rival", "", answer.text)
            assert "rival" not in told
            assert answer.status_code in (400, 403, 404) or operation.method == "GET", (operation.path, answer)
            assert answer.status_code < 500
    assert (await context.registry.host("links.rival.example")).state is HostState.PENDING
    assert len((await client.get("/v1/blocks", headers=operator)).json()) == 1


async def test_only_an_operator_vouches_for_a_name(
    context: Context, client: httpx.AsyncClient, operator: dict[str, str]
) -> None:
    path = "/v1/hosts/links.rival.example/accept"
    rival = await bearer(context, "rival")
    assert (await client.post(path, headers=rival, json={"reason": "mine"})).status_code == 403
    assert (await client.post(path, headers=operator, json={})).status_code == 400
    accepted = (await client.post(path, headers=operator, json={"reason": "seen their contract"})).json()
    assert (accepted["state"], accepted["accepted"]) == ("verified", "seen their contract")
    trail = (await client.get("/v1/audit", headers=operator, params={"subject": "links.rival.example"})).json()
    (entry,) = [entry for entry in trail["items"] if entry["what"] == "host.accept"]
    assert entry["details"]["reason"] == "seen their contract"
    assert entry["details"]["after"]["state"] == "verified"
    assert entry["actor"].startswith("key ")


async def test_a_tenants_key_drives_its_own_things(
    context: Context, client: httpx.AsyncClient, acme: dict[str, str]
) -> None:
    made = await client.post("/v1/hosts", headers=acme, json={"name": "links.acme.example", "tenant": "acme"})
    assert made.status_code == 201
    listed = (await client.get("/v1/hosts", headers=acme)).json()
    assert [host["name"] for host in listed["items"]] == ["links.acme.example"]
    assert (await client.patch("/v1/tenants/acme", headers=acme, json={"name": "Acme"})).json()["name"] == "Acme"
    bad = {"origins": [{"name": "m", "url": "file:///etc", "public": []}]}
    assert (await client.patch("/v1/tenants/acme", headers=acme, json=bad)).status_code == 403
    key = (await client.post("/v1/keys", headers=acme, json={"tenant": "acme"})).json()
    assert (await client.delete(f"/v1/keys/{key['id']}", headers=acme)).status_code == 204
    assert (await client.delete("/v1/hosts/links.acme.example", headers=acme)).status_code == 204


async def test_no_key_and_bad_input_are_problems_with_a_next_step(
    client: httpx.AsyncClient, operator: dict[str, str]
) -> None:
    for operation in api.OPERATIONS:
        answer = await client.request(operation.method, operation.path)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
    for body in (b"", b"{", b'{"slug": 7}', b'{"slug": "A B"}', b"[" * 5000, b'"' + b"x" * 300_000):
        answer = await client.post("/v1/tenants", headers=operator, content=body)
        assert (answer.status_code, bool(answer.json()["action"])) == (400, True)


ODD = ["%00", "%ff", "%F0%9F%92%A9", "..%2f..", "x" * 600, "a%0d%0ab", "%ed%a0%80", "*", "a..b", "-1", "99"]
TEXTS = ["\\ud800", "\\u0000", "x" * 5000, "\\u202e", "", "  ", "{{7*7}}"]


@pytest.mark.parametrize("operation", api.OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
async def test_hostile_names_and_texts_are_answered_never_crash(
    client: httpx.AsyncClient, operator: dict[str, str], operation: Operation
) -> None:
    for odd in ODD:
        path = re.sub(r"{(\w+)}", odd, operation.path)
        body = {"slug": "acme", "name": "links.acme.example", "tenant": "acme", "kind": "link", "value": "x"}
        answer = await client.request(operation.method, path, headers=operator, json=body)
        assert answer.status_code < 500, (path, answer.text)
    for text in TEXTS:
        fields = ("slug", "name", "tenant", "note", "reason", "value", "home", "zone", "assetlinks")
        body_text = "{" + ", ".join(f'"{field}": "{text}"' for field in fields) + ', "kind": "link"}'
        path = re.sub(r"{(\w+)}", "acme", operation.path)
        answer = await client.request(operation.method, path, headers=operator, content=body_text.encode())
        assert answer.status_code < 500, (path, text, answer.text)
    for query in ("?after=%ff&before=%00&subject=%ed%a0%80&tenant=%ff", "?after=&after=x"):
        answer = await client.request(operation.method, operation.path + query, headers=operator)
        assert answer.status_code < 500


async def test_hosts_and_audit_come_in_pages(
    context: Context, client: httpx.AsyncClient, operator: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_PAGE", 2)
    for number in range(4):
        await context.registry.add_host(f"h{number}.acme.example", "acme")
    seen: list[str] = []
    after = ""
    while True:
        page = (await client.get(f"/v1/hosts?tenant=acme&after={after}", headers=operator)).json()
        seen += [host["name"] for host in page["items"]]
        if not (after := page["next"]):
            break
    assert seen == [f"h{number}.acme.example" for number in range(4)]
    first = (await client.get("/v1/audit", headers=operator)).json()
    second = (await client.get(f"/v1/audit?before={first['next']}", headers=operator)).json()
    assert first["items"][-1]["id"] > second["items"][0]["id"]


def test_the_description_is_valid_openapi_and_names_every_route() -> None:
    document = {
        "openapi": "3.1.0",
        "info": {"title": "admin", "version": "1"},
        "paths": api.PATHS,
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }
    validate(document)
    assert {(o.path, o.method.lower()) for o in api.OPERATIONS} == {
        (path, method) for path, item in api.PATHS.items() for method in item
    }
