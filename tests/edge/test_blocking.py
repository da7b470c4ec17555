"""The kill list and key revocation, set from the command line, in force on a running edge within two seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from brandproxy import blocks
from brandproxy.context import Context
from brandproxy.core.tokens import Click, KeyRing, Open, Unsubscribe
from brandproxy.model import Block, BlockKind
from brandproxy.store import keys
from tests.edge.conftest import HOST, RunningEdge, eventually, prepare


def command(edge: RunningEdge, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "brandproxy", *arguments],
        env=edge.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def answers(edge: RunningEdge, path: str) -> set[int]:
    url = f"http://127.0.0.1:{edge.http}{path}"
    return {httpx.get(url, headers={"host": HOST}, trust_env=False).status_code for _ in range(6)}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("domain", "shop.example"),
        ("url", "https://www.shop.example/sale"),
        ("campaign", "spring"),
        ("message", "m-9"),
        ("tenant", "acme"),
        ("link", "TOKEN"),
    ],
)
def test_what_is_blocked_answers_410_with_a_safe_page_and_comes_back(
    edge: RunningEdge, kind: str, value: str
) -> None:
    token = edge.token(Click("https://www.shop.example/sale?x=1", "spring", "m-9", "r-1"))
    other = edge.token(Click("https://other.example/", "autumn", "m-8", "r-1"))
    assert answers(edge, "/c/" + token) == {302}
    made: list[Block] = []

    async def add(context: Context) -> None:
        made.append(await blocks.add(context.store, BlockKind(kind), value.replace("TOKEN", token)))

    edge.change(add)
    assert eventually(lambda: answers(edge, "/c/" + token) == {410}, 2.0)
    page = httpx.get(f"http://127.0.0.1:{edge.http}/c/{token}", headers={"host": HOST}, trust_env=False)
    assert "location" not in page.headers
    assert "shop.example" not in page.text
    assert page.headers["cache-control"] == "no-store"
    assert answers(edge, "/c/" + other) == ({410} if kind == "tenant" else {302})
    edge.change(lambda context: blocks.remove(context.store, made[0].id))
    assert eventually(lambda: answers(edge, "/c/" + token) == {302}, 2.0)


@contextmanager
def blocked(edge: RunningEdge, kind: BlockKind, value: str) -> Iterator[None]:
    made: list[Block] = []

    async def add(context: Context) -> None:
        made.append(await blocks.add(context.store, kind, value))

    edge.change(add)
    yield
    edge.change(lambda context: blocks.remove(context.store, made[0].id))


@pytest.mark.parametrize(
    ("kind", "value", "url"),
    [
        ("domain", "bücher.example", "https://www.BU\u0308CHER\u3002ex\u00adample./?q"),
        ("domain", "malware.example", "HTTP://ｍalware.example:80/"),
        ("url", "https://shop.example/bad/page", "https://SHOP.example:443/x/%2e%2E/./%62ad/page#top"),
    ],
)
def test_no_other_spelling_of_a_blocked_destination_is_followed(
    edge: RunningEdge, kind: str, value: str, url: str
) -> None:
    token, spared = edge.token(Click(url)), edge.token(Click("https://shop.example/bad/%2E%2e/page"))
    assert answers(edge, "/c/" + token) == {302}
    with blocked(edge, BlockKind(kind), value):
        assert eventually(lambda: answers(edge, "/c/" + token) == {410}, 2.0)
        assert answers(edge, "/c/" + spared) == {302}


def test_a_blocked_page_for_people_and_a_blocked_home_page_are_not_led_to(edge: RunningEdge) -> None:
    def home(url: str) -> None:
        edge.change(lambda c: c.registry.change_tenant("acme", lambda tenant: replace(tenant, home=url), "home"))

    token = edge.token(Unsubscribe("https://list.example/u", "https://Phish.example/u"))
    at = httpx.get(f"http://127.0.0.1:{edge.http}/u/{token}", headers={"host": HOST}, trust_env=False)
    assert at.headers["location"] == "https://Phish.example/u"
    home("https://www.phish.example./")
    assert eventually(lambda: answers(edge, "/") == {302}, 2.0)
    with blocked(edge, BlockKind.DOMAIN, "phish.example"):
        assert eventually(lambda: answers(edge, "/u/" + token) == {410} == answers(edge, "/"), 2.0)
    home("")


def test_the_command_line_blocks_lists_and_unblocks_and_leaves_audit_entries(edge: RunningEdge) -> None:
    block = json.loads(command(edge, "block", "add", "domain", "Audited.example", "--reason", "case 7", "--json"))
    assert block["value"] == "audited.example"
    assert block["id"] in command(edge, "block", "list", "--json")
    command(edge, "block", "remove", block["id"])
    assert json.loads(command(edge, "block", "list", "--json")) == []
    found: list[dict[str, object]] = []

    async def look(context: Context) -> None:
        found.extend(json.loads(entry.value) for entry in await context.store.list("audit/"))

    edge.change(look)
    entries = [
        (e["what"], (e.get("after") or {}).get("reason")) for e in found if e["subject"] == "audited.example"
    ]
    assert sorted(entries, key=str) == [("block.add", "case 7"), ("block.remove", None)]


def test_a_revoked_key_turns_its_links_off_and_new_ones_go_on(edge: RunningEdge) -> None:
    old_click, old_open = edge.token(Click("https://a.example/"), "acme"), edge.token(Open("spring"), "acme")

    async def rotate(context: Context) -> None:
        await context.registry.rotate_key("acme")
        edge.rings["acme"] = KeyRing((await context.registry.tenant("acme")).keys)

    edge.change(rotate)
    new = edge.token(Click("https://a.example/"), "acme")
    assert eventually(lambda: answers(edge, "/c/" + new) == {302}, 2.0)
    assert answers(edge, "/c/" + old_click) == {302}
    edge.change(lambda context: context.registry.revoke_key("acme", 0))
    assert eventually(lambda: answers(edge, "/c/" + old_click) == {410}, 2.0)
    assert answers(edge, f"/o/{old_open}.gif") == {404}
    assert answers(edge, "/c/" + new) == {302}


def test_an_unreadable_entry_keeps_no_edge_from_blocking_by_the_others(tmp_path: Path) -> None:
    running = prepare(tmp_path)
    token = running.token(Click("https://shop.example/"))

    async def fill(context: Context) -> None:
        await blocks.add(context.store, BlockKind.DOMAIN, "shop.example")
        await context.store.put(keys.block("newer"), b'{"version": 9}')

    running.change(fill)
    running.start()
    try:
        assert answers(running, "/c/" + token) == {410}
    finally:
        running.stop()
