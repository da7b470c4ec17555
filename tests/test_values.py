"""Ranges and forms: said once in the model, held by the registry, the library and what reads the store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import brandproxy
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.errors import BadInput
from brandproxy.model import Policy, Tenant
from brandproxy.store import keys
from brandproxy.store.records import Unreadable
from brandproxy.values import faults

BAD: dict[str, list[Any]] = {
    "keep_days": [-5, 10**40, 36_501, True, 1.5, "5", None],
    "token_max_age": [-1, 10**400, "", False],
    "max_links": [-1, 100_001, None],
    "exclude": [("[",), ("",), ("a b/",), ("x/\0",), ("\ud800/",), ("a" * 501,), "a", ("a",) * 1001],
    "include": [("bücher.example",), ("https://",), (5,)],
    "private": [("host:99999999/",), (None,)],
    "clicks": [1, "yes", None],
    "address_privacy": ["", "all", None],
}
GOOD: dict[str, list[Any]] = {
    "keep_days": [0, 1, 36_500],
    "token_max_age": [0, 3_153_600_000],
    "max_links": [0, 100_000],
    "exclude": [("*",), ("*.acme.com/account/*",), ("https://a.example:8443/x?y=[1]",), ("[::1]/x",)],
    "address_privacy": ["full", "none"],
}
BAD_CASES = [(name, value) for name, values in BAD.items() for value in values]
GOOD_CASES = [(name, value) for name, values in GOOD.items() for value in values]


@pytest.fixture
async def context(tmp_path: Path) -> Any:
    async with open_context(Settings(data=tmp_path)) as context:
        await context.registry.add_tenant("acme")
        await context.registry.add_tenant("beta")
        yield context


def short(case: tuple[str, Any]) -> str:
    return f"{case[0]}={str(case[1])[:30]!r}"


@pytest.mark.parametrize("case", BAD_CASES, ids=short)
def test_a_value_out_of_its_range_is_refused_by_the_library_and_by_json_alike(case: tuple[str, Any]) -> None:
    name, value = case
    policy = replace(Policy(), **{name: value})
    assert [fault.partition(":")[0].partition(".")[0] for fault in faults(policy)] == [name]
    with pytest.raises(ValueError, match=name):
        brandproxy.tenant("acme", b"s" * 32, policy=policy)
    if not (isinstance(value, tuple) and any(isinstance(item, str) and "\ud800" in item for item in value)):
        with pytest.raises(ValidationError):
            TypeAdapter(Policy).validate_json(json.dumps({name: value}), strict=True)


@pytest.mark.parametrize("case", GOOD_CASES, ids=short)
def test_a_value_at_the_end_of_its_range_is_taken_by_both(case: tuple[str, Any]) -> None:
    name, value = case
    assert faults(replace(Policy(), **{name: value})) == []
    assert getattr(TypeAdapter(Policy).validate_json(json.dumps({name: value}), strict=True), name) == value


async def test_nothing_out_of_range_is_ever_written(context: Context) -> None:
    for name, value in BAD_CASES:
        with pytest.raises(BadInput):
            await context.registry.change_tenant(
                "acme", lambda t, n=name, v=value: replace(t, policy=replace(t.policy, **{n: v})), "test"
            )
    assert (await context.registry.tenant("acme")).policy == Policy()


async def plant(context: Context, change: Any) -> None:
    """Write a record as an older version, or a hand, may have: no range is held."""
    seal = context.registry.codec.seal
    entry = await context.store.get(keys.tenant("acme"))
    assert entry is not None
    record = json.loads(seal.open(entry.value))
    change(record)
    await context.store.put(entry.key, seal.seal(json.dumps(record).encode()))


async def test_a_stored_value_out_of_range_counts_as_the_nearest_or_as_not_given(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(record: dict[str, Any]) -> None:
        record["policy"] |= {
            "keep_days": 10**40, "token_max_age": -1, "max_links": "many", "opens": True, "of_later": 1,
            "exclude": ["shop.example/*", "[", 5, "b"], "address_privacy": "everything",
        }  # fmt: skip
        record |= {"home": "javascript:alert(1)", "created_at": 10**30, "origins": [{"name": 5}]}

    await plant(context, spoil)
    tenant = await context.registry.tenant("acme")
    assert tenant.policy == Policy(
        keep_days=36_500, token_max_age=0, max_links=1000, exclude=("shop.example/*", "b"), opens=True
    )
    assert (tenant.home, tenant.origins) == ("", ())
    told = [record for record in caplog.records if "tenant/acme" in record.getMessage()]
    assert len(told) == 1
    assert "policy.keep_days" in told[0].getMessage()
    await context.registry.tenants()
    assert len([record for record in caplog.records if "tenant/acme" in record.getMessage()]) == 1
    changed = await context.registry.change_tenant("acme", lambda t: replace(t, name="Acme"), "test")
    assert changed.policy == tenant.policy


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record["keys"][0].update(secret=5),
        lambda record: record["keys"][0].update(revoked_at="yesterday"),
        lambda record: record.update(slug="beta"),
        lambda record: record.update(relay={"host": 5}),
        lambda record: record.pop("keys"),
    ],
    ids=["secret", "revoked", "slug", "relay", "no keys"],
)
async def test_who_a_tenant_is_and_what_it_signs_with_is_never_guessed(context: Context, spoil: Any) -> None:
    await plant(context, spoil)
    with pytest.raises(Unreadable):
        await context.registry.tenant("acme")
    assert [tenant.slug for tenant in await context.registry.tenants()] == ["beta"]
    await context.directory.load(context.store)
    assert context.directory.slugs() == ["beta"]


def test_a_tenant_made_by_hand_is_checked_whole() -> None:
    assert faults(Tenant("acme", (), "a\nb", Policy(keep_days=-1), home="ftp://x/")) == [
        "name: does not have the form " + r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*",
        "policy.keep_days: is not from 0 to 36500",
        "home: does not have the form " + r"(?:https?://[^\x00-\x20\x7f-\x9f]+)?",
    ]
