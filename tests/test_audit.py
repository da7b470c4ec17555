"""The audit trail says what changed: before and after, and of a secret only that it did."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from brandproxy import access
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.differences import difference
from brandproxy.engines import open_engine
from brandproxy.model import Origin, Policy, Relay, SigningKey, Tenant
from brandproxy.roles import build_control
from brandproxy.store import keys


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    async with open_context(Settings(data=tmp_path, edge={"domain": "edge.test"}), actor="test") as context:
        for slug in ("acme", "beta"):
            await context.registry.add_tenant(slug)
        yield context


@pytest.fixture
async def operator(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    engine = open_engine(context.settings)
    _, key = await access.create_key(context.store, None)
    headers = {"Authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(build_control(context, engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers) as client:
        yield client
    await engine.close()


async def trail(context: Context) -> list[dict[str, Any]]:
    return [json.loads(entry.value) for entry in await context.store.list(keys.AUDIT)]


def tenant(**fields: Any) -> Tenant:
    return Tenant("acme", (SigningKey(0, b"\x01" * 32, 5),), "Acme", **fields)


def test_only_what_differs_is_told() -> None:
    before = tenant(policy=Policy(opens=False, exclude=("a.example",)))
    after = replace(before, home="https://acme.example/", policy=replace(before.policy, opens=True))
    assert difference(before, after) == {
        "before": {"home": "", "policy": {"opens": False}},
        "after": {"home": "https://acme.example/", "policy": {"opens": True}},
    }
    assert difference(before, before) == {}
    assert difference(None, before)["after"]["name"] == "Acme"
    assert difference(before, None)["before"]["slug"] == "acme"


def test_a_secret_is_absent_set_or_changed_and_never_told() -> None:
    plain = tenant(relay=Relay("mx.example"))
    first = replace(plain, relay=Relay("mx.example", user="u", password="hunter2"))
    second = replace(first, relay=Relay("mx.example", user="u", password="hunter3"))
    assert difference(plain, first)["before"]["relay"]["password"] == "absent"
    assert difference(plain, first)["after"]["relay"]["password"] == "set"
    assert difference(first, second) == {
        "before": {"relay": {"password": "set"}},
        "after": {"relay": {"password": "changed"}},
    }
    one = replace(plain, origins=(Origin("m", "s3://b/", sealed="gAAAAfirst"),))
    two = replace(plain, origins=(Origin("m", "s3://b/", sealed="gAAAAsecond"), Origin("n", "s3://c/")))
    told = difference(one, two)
    assert [origin["sealed"] for origin in told["after"]["origins"]] == ["changed", "absent"]
    rotated = replace(plain, keys=(SigningKey(1, b"\x02" * 32, 9), *plain.keys))
    everything = json.dumps([difference(plain, rotated), difference(first, None), difference(second, two), told])
    for secret in ("hunter", "gAAAA", "\\u0001", base64.b64encode(b"\x01" * 9).decode()[:10], (b"\x01" * 8).hex()):
        assert secret not in everything
    assert [key["number"] for key in difference(plain, rotated)["after"]["keys"]] == [1, 0]


def test_an_entry_is_no_copy_of_a_long_record() -> None:
    long = tenant(assetlinks="x" * 100_000, policy=Policy(exclude=tuple(f"h{n}.example" for n in range(900))))
    assert len(json.dumps(difference(None, long))) < 10_000


async def test_every_write_over_http_tells_before_and_after(context: Context, operator: httpx.AsyncClient) -> None:
    async def send(method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = (
            await operator.request(method, path, json=body)
            if body is not None
            else await operator.request(method, path)
        )
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    before = len(await trail(context))
    await send("POST", "/v1/tenants", {"slug": "new"}, 201)
    await send("PATCH", "/v1/tenants/acme", {"home": "https://acme.example/", "policy": {"opens": True}})
    await send("POST", "/v1/tenants/acme/rotate-key")
    await send("POST", "/v1/tenants/acme/keys/0/revoke")
    await send("POST", "/v1/hosts", {"name": "links.acme.example", "tenant": "acme"}, 201)
    await send("POST", "/v1/hosts/links.acme.example/suspend", {"reason": "spam"})
    await send("POST", "/v1/hosts/links.acme.example/transfer", {"tenant": "beta"})
    await send("DELETE", "/v1/hosts/links.acme.example", status=204)
    key = await send("POST", "/v1/keys", {"tenant": "acme", "scopes": ["rewrite"]}, 201)
    again = await send("POST", f"/v1/keys/{key['id']}/rotate", {"overlap_seconds": 60}, 201)
    await send("DELETE", f"/v1/keys/{again['id']}", status=204)
    block = await send("POST", "/v1/blocks", {"kind": "domain", "value": "phish.example"}, 201)
    await send("DELETE", f"/v1/blocks/{block['id']}", status=204)
    hook = await send("POST", "/v1/webhooks", {"url": "https://hook.example/x", "tenant": "acme"}, 201)
    await send("DELETE", f"/v1/webhooks/{hook['id']}", status=204)
    await send("DELETE", "/v1/tenants/new", status=204)
    entries = (await trail(context))[before:]
    changes = [entry for entry in entries if not entry["what"].startswith("sender.")]
    assert len(changes) >= 16
    for entry in changes:
        assert "before" in entry or "after" in entry, entry
    by_what = {entry["what"]: entry for entry in changes}
    assert by_what["tenant.add"]["after"]["slug"] == "new"
    assert by_what["tenant.remove"]["before"]["slug"] == "new"
    [changed] = [entry for entry in changes if entry["what"].startswith("tenant.change")]
    assert changed["before"] == {"home": "", "policy": {"opens": False}}
    assert changed["after"] == {"home": "https://acme.example/", "policy": {"opens": True}}
    assert by_what["key.rotate"]["before"]["expires_at"] is None
    assert by_what["key.rotate"]["after"]["expires_at"]
    assert by_what["block.remove"]["before"]["value"] == "phish.example"
    assert by_what["webhook.remove"]["before"]["url"] == "https://hook.example/x"
    everything = json.dumps(entries)
    for secret in (key["key"], again["key"], key["key"].split("_", 2)[2], hook["secret"], "gAAAA", "hash"):
        assert secret not in everything


async def test_a_tenant_is_not_told_whose_a_name_was_before(context: Context, operator: httpx.AsyncClient) -> None:
    await context.registry.add_host("links.shared.example", "acme")
    await context.registry.transfer_host("links.shared.example", "beta")
    _, key = await access.create_key(context.store, "beta")
    headers = {"Authorization": f"Bearer {key}"}
    for path in ("/v1/audit", "/v1/hosts", "/v1/hosts/links.shared.example"):
        answer = await operator.get(path, headers=headers)
        assert answer.status_code == 200
        assert "links.shared.example" in answer.text
        assert "acme" not in answer.text, path
    assert "acme" in (await operator.get("/v1/audit")).text
