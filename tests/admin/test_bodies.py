"""What comes in over HTTP is held to its ranges and forms, and nothing unknown is swallowed."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from brandproxy.admin import api
from brandproxy.context import Context
from brandproxy.model import Policy

NUMBERS = {"keep_days": 36_500, "max_links": 100_000, "token_max_age": 3_153_600_000}
PATHS = {
    "{slug}": "acme", "{name}": "links.rival.example", "{zone}": "z.example", "{id}": "0", "{selector}": "bp1",
    "{number}": "0",
}  # fmt: skip


def path_of(operation: Any) -> str:
    path: str = operation.path
    for part, value in PATHS.items():
        path = path.replace(part, value)
    return path


async def change(
    client: httpx.AsyncClient, key: dict[str, str], body: bytes | str, **headers: str
) -> httpx.Response:
    return await client.patch("/v1/tenants/acme", headers=key | headers, content=body)


async def policy(context: Context) -> Policy:
    return (await context.registry.tenant("acme")).policy


@pytest.mark.parametrize("name", NUMBERS)
async def test_every_number_is_taken_within_its_range_and_refused_outside(
    context: Context, client: httpx.AsyncClient, acme: dict[str, str], name: str
) -> None:
    most = NUMBERS[name]
    for text in ("0", "1", str(most)):
        answer = await change(client, acme, f'{{"policy": {{"{name}": {text}}}}}')
        assert (answer.status_code, answer.json()["policy"][name]) == (200, int(text))
    for text in ("-1", str(most + 1), "1" + "0" * 40, "1" + "0" * 400, "1" + "0" * 5000, "1.5", "1.0", "true",
                 '"5"', "[]", "{}", "NaN", "Infinity", "1e400", "-0.1"):  # fmt: skip
        answer = await change(client, acme, f'{{"policy": {{"{name}": {text}}}}}')
        assert (text, answer.status_code) == (text, 400)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["action"]
    assert getattr(await policy(context), name) == most
    assert (await change(client, acme, f'{{"policy": {{"{name}": null}}}}')).status_code == 200
    assert getattr(await policy(context), name) == getattr(Policy(), name)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"polcy": {}}', "polcy: there is no such field; known: name, policy"),
        ('{"polcy": null}', "polcy: there is no such field"),
        ('{"policy": {"keep_dys": 5}}', "policy.keep_dys: there is no such field; known: clicks"),
        ('{"policy": {"keep_dys": null}}', "policy.keep_dys: there is no such field"),
        ('{"policy": {"opens": true, "opens": false}}', "field 'opens' is given twice"),
        ('{"policy": 5}', "policy: "),
        ('{"policy": []}', "policy: "),
        ('{"policy": {"exclude": ["["]}}', "policy.exclude.0: "),
        ('{"policy": {"exclude": {"0": "a"}}}', "policy.exclude: "),
        ('{"policy": {"exclude": [null]}}', "policy.exclude.0: "),
        ('{"policy": {"signed": "maybe"}}', "policy.signed: "),
        ('{"name": "a\\u0000b"}', "name: "),
        ('{"name": "\\ud800"}', "body: Invalid JSON"),
        ('{"name": "' + "x" * 100_000 + '"}', "name: "),
        ('{"home": "javascript:alert(1)"}', "home: "),
        ('{"home": "https://user@evil.example/"}', "home "),
        ('{"assetlinks": "not json"}', "assetlinks is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, ""),
        ("[]", "not an object"),
        ("5", "not an object"),
        ("", "not JSON"),
        ("{}{}", "not JSON"),
        ("{'name': 'a'}", "not JSON"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
async def test_what_nobody_reads_or_cannot_be_meant_is_refused_by_name(
    context: Context, client: httpx.AsyncClient, acme: dict[str, str], body: str, said: str
) -> None:
    before = await context.registry.tenant("acme")
    answer = await change(client, acme, body)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]
    assert len(answer.content) < 3000
    assert await context.registry.tenant("acme") == before


async def test_a_change_keeps_what_it_does_not_name_and_null_gives_back_the_default(
    context: Context, client: httpx.AsyncClient, acme: dict[str, str]
) -> None:
    first = {"name": "Acme", "policy": {"address_privacy": "none", "exclude": ["a.example/*"], "keep_days": 90}}
    await change(client, acme, json.dumps(first), **{"content-type": "application/merge-patch+json"})
    answer = await change(client, acme, '{"policy": {"opens": true}}', **{"content-type": "application/json"})
    kept = answer.json()["policy"]
    assert (kept["opens"], kept["address_privacy"], kept["exclude"]) == (True, "none", ["a.example/*"])
    answer = await change(client, acme, '{"policy": {"exclude": null, "keep_days": null}}')
    assert (answer.json()["policy"]["exclude"], answer.json()["policy"]["keep_days"]) == ([], 0)
    assert (await policy(context)).address_privacy == "none"
    answer = await change(client, acme, '{"policy": null}')
    assert (await policy(context), answer.json()["name"]) == (Policy(), "Acme")
    assert (await change(client, acme, "{}")).status_code == 200


async def test_another_patch_format_is_refused_with_the_ones_there_are(
    client: httpx.AsyncClient, acme: dict[str, str]
) -> None:
    answer = await change(client, acme, "[]", **{"content-type": "application/json-patch+json"})
    assert answer.status_code == 415
    assert answer.headers["accept-patch"] == "application/merge-patch+json, application/json"


@pytest.mark.parametrize("operation", api.OPERATIONS, ids=lambda o: f"{o.method} {o.path}")
async def test_every_operation_refuses_a_parameter_it_does_not_know_or_gets_twice(
    client: httpx.AsyncClient, operator: dict[str, str], operation: Any
) -> None:
    known = [name for name, _ in operation.query]
    for query in ("tennant=acme", *(f"{name}=a&{name}=a" for name in known)):
        answer = await client.request(operation.method, f"{path_of(operation)}?{query}", headers=operator)
        assert (query, answer.status_code) == (query, 400)
        assert query.partition("=")[0] in answer.json()["detail"]
        assert all(name in answer.json()["action"] for name in known) or "&" in query


@pytest.mark.parametrize(
    "operation", [o for o in api.OPERATIONS if o.method != "GET"], ids=lambda o: f"{o.method} {o.path}"
)
async def test_every_operation_refuses_a_field_it_does_not_know(
    client: httpx.AsyncClient, operator: dict[str, str], operation: Any
) -> None:
    answer = await client.request(
        operation.method, path_of(operation), headers=operator, content=b'{"scopez": ["analytics:read"]}'
    )
    assert answer.status_code == 400
    assert "scopez" in answer.text or "takes no body" in answer.text


def test_the_description_states_the_ranges_and_that_nothing_else_is_taken() -> None:
    change = api.PATHS["/v1/tenants/{slug}"]["patch"]["requestBody"]["content"]
    assert set(change) == {"application/merge-patch+json", "application/json"}
    schema = change["application/merge-patch+json"]["schema"]
    assert schema["additionalProperties"] is False
    policy = next(one for one in schema["properties"]["policy"]["anyOf"] if one["type"] == "object")
    keep = policy["properties"]["keep_days"]["anyOf"][0]
    assert (keep["minimum"], keep["maximum"], policy["additionalProperties"]) == (0, 36_500, False)
    shown = api.PATHS["/v1/tenants/{slug}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert shown["properties"]["policy"]["properties"]["keep_days"]["maximum"] == 36_500
    made = api.PATHS["/v1/tenants"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert made["additionalProperties"] is False
