"""Webhooks: every event arrives, signed and in order, whatever the receiver does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from openapi_spec_validator import validate
from standardwebhooks import Webhook as Verifier
from starlette.responses import Response

from brandproxy.analytics import upkeep
from brandproxy.analytics.webhooks import api
from brandproxy.analytics.webhooks import events as lane
from brandproxy.analytics.webhooks.events import EventLane
from brandproxy.fetch import open_fetcher
from brandproxy.web import openapi
from brandproxy.webhooks import delivery
from brandproxy.webhooks.book import Book
from tests.receiver import Receiver, receiver

from .conftest import Port, event, put

__all__ = ["receiver"]


@dataclass
class Desk:
    port: Port
    book: Book
    work: delivery.Delivery
    count: int = 0

    async def happen(self, *events: Any) -> list[str]:
        """Events are taken in; their ids in order."""
        self.count += 1
        await put(self.port.engine, list(events), f"source{self.count}")
        rows = await self.port.engine.query("SELECT id FROM events ORDER BY seen_us, id")
        return [row[0] for row in rows][-len(events) :]


@pytest.fixture
async def desk(port: Port, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(lane, "SETTLED_US", 0)
    monkeypatch.setattr(delivery, "DELAYS", (0.0, 0.0, 0.0))
    outbound = port.context.settings.outbound.model_copy(update={"allow": "127.0.0.1"})
    settings = port.context.settings.model_copy(update={"outbound": outbound})
    port.app.router.routes.extend(api.routes(port.context))
    async with open_fetcher(settings) as fetcher:
        book = Book(port.context)
        yield Desk(port, book, delivery.Delivery(book, [EventLane(port.engine)], fetcher))


def test_the_paths_are_valid_openapi() -> None:
    validate(openapi(api.PATHS))


async def test_events_arrive_signed_in_order_and_once(desk: Desk, receiver: Receiver) -> None:
    _, secret = await desk.book.add("acme", receiver.url, ("click",), machines=False)
    first = await desk.happen(
        event(), event(kind="open"), event(tenant="globex"), event(machine=("head",)), event()
    )
    wanted = [i for i in first if (await kind_of(desk, i)) == ("click", "acme", True)]
    await desk.work.turn()
    await desk.work.turn()
    [(headers, body)] = receiver.got
    told = Verifier(secret).verify(body, headers)
    assert told["type"] == "events"
    assert receiver.ids(0) == wanted
    assert len(wanted) == 2
    later = await desk.happen(event())
    await desk.work.turn()
    assert receiver.ids(1) == later


async def kind_of(desk: Desk, event_id: str) -> tuple[str, str, bool]:
    [row] = await desk.port.engine.query(
        "SELECT kind, tenant, person FROM events WHERE id = $id", {"id": event_id}
    )
    return row  # type: ignore[return-value]


async def test_a_failed_batch_comes_again_unchanged_before_later_ones(desk: Desk, receiver: Receiver) -> None:
    await desk.book.add("", receiver.url, ("click",), machines=True)
    receiver.answers = [Response(status_code=500), Response(status_code=302, headers={"location": "/hook"})]
    first = await desk.happen(event())
    await desk.work.turn()
    later = await desk.happen(event())
    for _ in range(3):
        await desk.work.turn()
    assert [receiver.ids(n) for n in range(len(receiver.got))] == [first, first, first, later]
    assert len({receiver.got[n][0]["webhook-id"] for n in range(3)}) == 1


async def test_what_was_given_up_is_kept_and_can_be_sent_again(desk: Desk, receiver: Receiver) -> None:
    hook, _ = await desk.book.add("acme", receiver.url, ("click",), machines=True)
    receiver.answers = [Response(status_code=503) for _ in range(4)]
    first = await desk.happen(event())
    for _ in range(4):
        await desk.work.turn()
    [batch] = await desk.book.dead(hook.id)
    assert batch.error.startswith("503")
    later = await desk.happen(event())
    await desk.work.turn()
    assert receiver.ids(4) == later
    headers = {"Authorization": f"Bearer {desk.port.acme}"}
    listed = await desk.port.client.get(f"/v1/webhooks/{hook.id}/dead", headers=headers)
    assert [b["id"] for b in listed.json()["batches"]] == [batch.id]
    assert (await desk.port.client.post(f"/v1/webhooks/{hook.id}/replay", headers=headers)).json() == {
        "batches": 1
    }
    await desk.work.turn()
    assert receiver.ids(5) == first
    assert await desk.book.dead(hook.id) == []


async def test_more_events_than_a_batch_holds_all_arrive(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "MOST", 7)
    await desk.book.add("acme", receiver.url, ("click",), machines=True)
    ids = await desk.happen(*(event() for _ in range(30)))
    await desk.work.turn()
    assert [i for n in range(len(receiver.got)) for i in receiver.ids(n)] == ids
    assert len(receiver.got) == 5


async def test_gone_means_no_more(desk: Desk, receiver: Receiver) -> None:
    hook, _ = await desk.book.add("acme", receiver.url, ("click",), machines=True)
    receiver.answers = [Response(status_code=410)]
    await desk.happen(event())
    for _ in range(3):
        await desk.work.turn()
    assert len(receiver.got) == 1
    assert "410" in (await desk.book.get(hook.id)).disabled
    await desk.book.replay(hook.id)
    await desk.work.turn()
    assert len(receiver.got) == 2


async def test_a_forgotten_recipient_is_not_sent_later(desk: Desk, receiver: Receiver) -> None:
    await desk.book.add("acme", receiver.url, ("click",), machines=True)
    await desk.happen(event(recipient="r1"))
    await upkeep.forget_recipient(desk.port.engine, "acme", "r1")
    await desk.work.turn()
    assert receiver.got == []


async def test_a_receiver_in_our_own_network_is_refused(port: Port, receiver: Receiver) -> None:
    async with open_fetcher(port.context.settings) as fetcher:
        book = Book(port.context)
        hook, _ = await book.add("acme", receiver.url, ("click",), machines=True)
        desk = Desk(port, book, delivery.Delivery(book, [EventLane(port.engine)], fetcher))
        await desk.happen(event())
        await asyncio.sleep(lane.SETTLED_US / 1e6)
        await desk.work.turn()
        assert receiver.got == []
        batch = (await book.whereabouts(hook)).batch
        assert batch is not None
        assert batch.error


async def test_a_slow_down_is_obeyed(desk: Desk, receiver: Receiver) -> None:
    hook, _ = await desk.book.add("acme", receiver.url, ("click",), machines=True)
    receiver.answers = [Response(status_code=429, headers={"retry-after": "3600"})]
    await desk.happen(event())
    for _ in range(3):
        await desk.work.turn()
    assert len(receiver.got) == 1
    place = await desk.book.whereabouts(hook)
    assert place.batch is not None
    await desk.book.place(hook.id, "events", replace(place, batch=replace(place.batch, next_at=0.0)))
    await desk.work.turn()
    assert len(receiver.got) == 2


async def test_a_tenants_key_manages_its_own_webhooks_only(desk: Desk) -> None:
    client, acme = desk.port.client, {"Authorization": f"Bearer {desk.port.acme}"}
    globex = {"Authorization": f"Bearer {desk.port.globex}"}
    made = await client.post("/v1/webhooks", json={"url": "https://hooks.acme.example/x"}, headers=acme)
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    hook = made.json()["id"]
    assert "secret" not in (await client.get("/v1/webhooks", headers=acme)).json()["webhooks"][0]
    assert (await client.get("/v1/webhooks", headers=globex)).json() == {"webhooks": []}
    for method, path in (("DELETE", ""), ("GET", "/dead"), ("POST", "/replay")):
        assert (await client.request(method, f"/v1/webhooks/{hook}{path}", headers=globex)).status_code == 404
    body = {"url": "https://x.example/", "tenant": "acme"}
    assert (await client.post("/v1/webhooks", json=body, headers=globex)).status_code == 404
    assert (await client.delete(f"/v1/webhooks/{hook}", headers=acme)).status_code == 204
    assert (await client.get("/v1/webhooks", headers=acme)).json() == {"webhooks": []}


async def test_the_api_chooses_events_and_changes_one_by_one_or_by_group(desk: Desk) -> None:
    headers = {"Authorization": f"Bearer {desk.port.acme}"}
    for wanted, kinds in (
        (["host.live", "click"], ["click", "host.live"]),
        (["certificate"], ["certificate.issued", "certificate.failing", "certificate.expiring"]),
        (None, ["click", "open", "unsubscribe"]),
    ):
        body = {"url": "https://hooks.acme.example/x"} | ({"kinds": wanted} if wanted else {})
        made = await desk.port.client.post("/v1/webhooks", json=body, headers=headers)
        assert (made.status_code, made.json()["kinds"], made.json()["tenant"]) == (201, kinds, "acme")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"url": 1}', b'{"url": "ftp://x.example/"}', b'{"url": "https://u:p@x.example/"}',
     b'{"url": "https://x.example/", "kinds": []}', b'{"url": "https://x.example/", "kinds": ["c"]}',
     b'{"url": "https://x.example/", "kinds": ["hostXlive"]}',
     b'{"url": "https://x.example/", "more": 1}', b"\xff", b" " * 20000],
)  # fmt: skip
async def test_bad_webhooks_are_explained(desk: Desk, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {desk.port.operator}"}
    answer = await desk.port.client.post("/v1/webhooks", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["detail"]


async def test_webhooks_to_which_nothing_happens_cost_one_look_for_all_of_them(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        await desk.book.add("globex" if number % 2 else "acme", receiver.url, ("click",), machines=False)
    await desk.work.turn()
    asked: list[str] = []
    query, get = desk.port.engine.query, desk.port.context.store.get

    async def counted(sql: str, params: Any = None) -> Any:
        asked.append(sql)
        return await query(sql, params)

    async def looked(key: str) -> Any:
        asked.append(key)
        return await get(key)

    monkeypatch.setattr(desk.port.engine, "query", counted)
    monkeypatch.setattr(desk.port.context.store, "get", looked)
    for _ in range(5):
        await desk.work.turn()
    assert len(asked) == 5
    await desk.happen(event())
    await desk.work.turn()
    assert len(receiver.got) == 30  # acme's, and no look at globex's
    assert not [one for one in asked if "globex" in one]


async def test_what_happens_while_a_receiver_is_slow_is_sent_when_it_is_done(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.book.add("acme", receiver.url, ("click",), machines=False)
    first, go_on = await desk.happen(event()), asyncio.Event()
    place = desk.book.place

    async def slow(hook_id: str, lane_name: str, where: Any) -> None:
        await place(hook_id, lane_name, where)
        if where.batch is None:
            await go_on.wait()

    monkeypatch.setattr(desk.book, "place", slow)
    turn = asyncio.create_task(desk.work.turn())
    while not receiver.got:
        await asyncio.sleep(0.01)
    later = await desk.happen(event())
    await desk.work.begin()  # there is news, and somebody is at it
    go_on.set()
    await turn
    for _ in range(2):
        await desk.work.turn()
    assert [receiver.ids(number) for number in range(len(receiver.got))] == [first, later]
