"""Every change of a host arrives, in order, at those who asked for it; whatever the receiver or a node does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from starlette.responses import Response

from brandproxy.certs import alarms
from brandproxy.certs.devca import DevCA
from brandproxy.certs.vault import Facts
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.renewal import DAY
from brandproxy.errors import BadInput
from brandproxy.fetch import open_fetcher
from brandproxy.model import HostState
from brandproxy.store import keys
from brandproxy.tenants import Registry
from brandproxy.webhooks import changes, delivery
from brandproxy.webhooks.book import Book, Webhook
from brandproxy.webhooks.changes import ChangeLane
from tests.receiver import Receiver, receiver

__all__ = ["receiver"]

HOST = "links.acme.example"


@pytest.fixture
async def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Context]:
    monkeypatch.setattr(delivery, "DELAYS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(changes, "_AT_WORK", -1)
    monkeypatch.setattr(changes, "_TIDY", 0.0)
    settings = Settings(data=tmp_path, outbound={"allow": "127.0.0.1"})
    async with open_context(settings, actor="test") as context:
        for slug in ("acme", "globex"):
            await context.registry.add_tenant(slug)
        follow = asyncio.create_task(context.directory.follow(context.store))
        yield context
        follow.cancel()


@asynccontextmanager
async def leading(context: Context) -> AsyncIterator[delivery.Delivery]:
    """The node that delivers; leaving the block is its end."""
    lane = ChangeLane(context)
    async with open_fetcher(context.settings) as fetcher:
        yield delivery.Delivery(Book(context), [lane], fetcher)
    lane.close()


async def caught_up(context: Context, work: delivery.Delivery, *hooks: Webhook) -> None:
    """Until the webhooks have passed the newest notice."""
    async with asyncio.timeout(10):
        while True:
            newest = max(entry.version for entry in await context.store.list(keys.NOTICE))
            await work.turn()
            places = [await Book(context).whereabouts(hook, "changes") for hook in hooks]
            if all(place.after[0] == newest for place in places):
                return
            await asyncio.sleep(0.02)


def told(receiver: Receiver) -> list[tuple[str, str]]:
    bodies = [json.loads(body) for _, body in receiver.got]
    return [(body["type"], body["data"]["host"]) for body in bodies]


async def move(context: Context, *states: HostState, host: str = HOST) -> None:
    for state in states:
        await context.registry.set_host_state(host, state, f"to {state}")


async def test_changes_arrive_signed_in_order_at_the_tenants_and_the_operators_webhooks(
    context: Context, receiver: Receiver
) -> None:
    book = Book(context)
    everything, secret = await book.add("", receiver.url, ("host",), machines=False)
    live, _ = await book.add("acme", receiver.url + "?acme", ("host.live",), machines=False)
    await context.registry.add_host(HOST, "acme")
    await context.registry.add_host("go.globex.example", "globex")
    await move(context, HostState.VERIFIED, HostState.LIVE, HostState.BROKEN)
    await move(context, HostState.SUSPENDED, HostState.LIVE, host="go.globex.example")
    await context.registry.remove_host("go.globex.example")
    async with leading(context) as work:
        await work.turn()
        await asyncio.sleep(0.3)
        await work.turn()
    whole = [(headers, body) for headers, body in receiver.got if headers["webhook-signature"]]
    operators = []
    for headers, body in whole:
        try:
            operators.append(Verifier(secret).verify(body, headers))
        except Exception:
            assert json.loads(body)["type"] == "host.live"  # the other webhook's, with its own secret
    assert [(one["type"], one["data"]["host"]) for one in operators] == [
        ("host.pending", HOST), ("host.pending", "go.globex.example"), ("host.verified", HOST),
        ("host.live", HOST), ("host.broken", HOST), ("host.suspended", "go.globex.example"),
        ("host.live", "go.globex.example"), ("host.removed", "go.globex.example"),
    ]  # fmt: skip
    assert operators[4]["data"] == {
        "tenant": "acme", "host": HOST, "state": "broken", "before": "live", "reason": "to broken",
    }  # fmt: skip
    assert len(receiver.got) == 9  # and acme's one
    assert everything.kinds == (
        *(f"host.{state}" for state in HostState), "host.removed", "host.contested", "host.lost",
    )  # fmt: skip
    assert live.kinds == ("host.live",)


async def test_a_refused_change_comes_again_before_later_ones_and_over_a_restart(
    context: Context, receiver: Receiver
) -> None:
    hook, _ = await Book(context).add("acme", receiver.url, ("host",), machines=False)
    receiver.answers = [Response(status_code=503), Response(status_code=500)]
    await context.registry.add_host(HOST, "acme")
    await move(context, HostState.VERIFIED)
    async with leading(context) as work:
        await work.turn()
    await move(context, HostState.LIVE)  # nobody delivers now
    async with leading(context) as work:
        await caught_up(context, work, hook)
    kinds = [kind for kind, _ in told(receiver)]
    assert kinds == ["host.pending"] * 3 + ["host.verified", "host.live"]
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 3


async def test_changes_whose_node_died_before_it_could_tell_are_told_once_and_in_order(
    context: Context, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, _ = await Book(context).add("acme", receiver.url, ("host",), machines=False)
    await context.registry.add_host(HOST, "acme")

    async def dies(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "tell", dies)
        with pytest.raises(RuntimeError):  # before anything was written
            await move(context, HostState.VERIFIED)
        patch.setattr(Registry, "tell", nothing)
        await move(context, HostState.VERIFIED)
    await move(context, HostState.LIVE)  # tells of its predecessor first
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "tell", nothing)
        await move(context, HostState.BROKEN)  # and nobody moves it after that
    async with leading(context) as work:
        await asyncio.sleep(0.3)  # the directory follows
        await caught_up(context, work, hook)
        await caught_up(context, work, hook)
    assert [kind for kind, _ in told(receiver)] == ["host.pending", "host.verified", "host.live", "host.broken"]
    trail = [json.loads(entry.value) for entry in await context.store.list(keys.AUDIT)]
    assert [e["after"] for e in trail if e["what"] == "host.state"] == ["verified", "live", "broken"]


async def test_a_node_that_was_relieved_while_it_sent_moves_nothing_back(
    context: Context, receiver: Receiver
) -> None:
    hook, _ = await Book(context).add("acme", receiver.url, ("host",), machines=False)
    await context.registry.add_host(HOST, "acme")
    async with leading(context) as stalled, leading(context) as fresh:
        send = stalled._send

        async def slow(*args: Any) -> Any:
            sent = await send(*args)
            await move(context, HostState.VERIFIED, HostState.LIVE)
            await caught_up(context, fresh, hook)  # the lock was lost, another node delivers
            return sent

        stalled._send = slow  # type: ignore[method-assign]
        await stalled.turn()
        place = await Book(context).whereabouts(hook, "changes")
        stalled._send = send  # type: ignore[method-assign]
        await stalled.turn()
        await fresh.turn()
    assert await Book(context).whereabouts(hook, "changes") == place
    kinds = [kind for kind, _ in told(receiver)]
    assert kinds == ["host.pending", "host.pending", "host.verified", "host.live"]  # only what was under way


async def nothing(*_: Any) -> None: ...


async def test_notices_are_kept_for_a_month(
    context: Context, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await context.registry.add_host(HOST, "acme")
    hook, _ = await Book(context).add("acme", receiver.url, ("host",), machines=False)
    async with leading(context) as work:
        await work.turn()
        assert await context.store.list(keys.NOTICE) != []
        monkeypatch.setattr(changes, "KEPT", -1)
        await work.turn()
    assert await context.store.list(keys.NOTICE) == []
    assert receiver.got == []  # it happened before somebody asked for it
    assert hook.tenant == "acme"


async def test_what_concerns_others_is_passed_once(context: Context) -> None:
    hook, _ = await Book(context).add("globex", "https://hooks.example/", ("host",), machines=False)
    for number in range(5):
        await context.registry.add_host(f"h{number}.acme.example", "acme")
    lane = ChangeLane(context)
    assert await lane.next(hook, (0, "")) is None
    assert lane._passed[hook.id] == lane._order[-1]
    await context.registry.add_host("go.globex.example", "globex")
    async with asyncio.timeout(5):
        while (batch := await lane.next(hook, (0, ""))) is None:
            await asyncio.sleep(0.02)
    message = await lane.message(hook, batch)
    assert message is not None
    assert message.data["host"] == "go.globex.example"
    assert await lane.next(hook, batch.upto) is None
    lane.close()


async def test_a_lane_that_is_away_holds_up_no_other(context: Context, receiver: Receiver) -> None:
    class Away:
        name: str = "events"
        kinds: tuple[str, ...] = ("click",)

        async def news(self) -> Any:
            raise delivery.Retryable("the engine is away")

        async def next(self, hook: Webhook, after: object) -> None: ...

        async def message(self, hook: Webhook, batch: object) -> None: ...

    hook, _ = await Book(context).add("", receiver.url, ("click", "host"), machines=False)
    await context.registry.add_host(HOST, "acme")
    lane = ChangeLane(context)
    async with open_fetcher(context.settings) as fetcher:
        await caught_up(context, delivery.Delivery(Book(context), [Away(), lane], fetcher), hook)
    lane.close()
    assert told(receiver) == [("host.pending", HOST)]


async def test_a_certificate_is_told_of_when_it_is_there_and_when_its_end_is_near(
    context: Context, receiver: Receiver
) -> None:
    hook, _ = await Book(context).add("acme", receiver.url, ("certificate",), machines=False)
    host = await context.registry.add_host(HOST, "acme", HostState.LIVE)
    own = DevCA(context.settings.data).issue(HOST, 1.8e9)
    facts = {HOST: Facts(own.serial, own.ca, own.not_before, own.not_after)}
    await context.directory.load(context.store)
    for _ in range(2):
        await alarms.issued(context.store, host, own)
        for left in (own.lifetime / 5, own.lifetime / 7, DAY):
            await alarms.expiring(context.store, context.directory, facts, {}, own.not_after - left)
    async with leading(context) as work:
        await asyncio.sleep(0.3)
        await caught_up(context, work, hook)
    assert told(receiver) == [("certificate.issued", HOST), ("certificate.expiring", HOST)]
    assert json.loads(receiver.got[1][1])["data"]["not_after"] == own.not_after


async def test_kinds_nobody_sends_are_refused(context: Context) -> None:
    for kinds in ((), ("host.gone",), ("certificates",)):
        with pytest.raises(BadInput, match="kinds"):
            await Book(context).add("acme", "https://hooks.example/", kinds, machines=False)
