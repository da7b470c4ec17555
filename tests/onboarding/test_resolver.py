"""What is believed of which DNS server, and which servers are asked at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from brandproxy.core.records import Seen
from brandproxy.resolver import Resolver
from tests.conftest import free_port

Answer = Callable[[dns.message.Message], dns.message.Message | None]
HERE = (ip_network("127.0.0.0/8"),)
RESOLVER, PARENT, CHILD, OTHER = (f"127.0.0.{n}" for n in (51, 52, 53, 54))


class World:
    """Servers by address on one port; `asked` has every question. Without an answer they are silent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port, self.answers, self.asked = free_port(), dict[str, Answer](), list[tuple[str, str, str]]()
        monkeypatch.setattr("brandproxy.resolver._PORT", self.port)
        monkeypatch.setattr("brandproxy.resolver._TIMEOUT", 0.15)

    def resolver(self, allowed: tuple[object, ...] = HERE) -> Resolver:
        return Resolver((), ((RESOLVER, self.port),), allowed)  # type: ignore[arg-type]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for address in (RESOLVER, PARENT, CHILD, OTHER):
                transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda address=address: _Protocol(self, address),  # type: ignore[misc]
                    (address, self.port),
                )
                stack.callback(transport.close)
            yield


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, world: World, address: str) -> None:
        self._world, self._address = world, address

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        [question] = query.question
        kind = dns.rdatatype.to_text(question.rdtype)
        self._world.asked.append((self._address, question.name.to_text(True), kind))
        found = self._world.answers.get(self._address, lambda query: None)(query)
        if found is not None:
            self._transport.sendto(found.to_wire(), sender)  # type: ignore[attr-defined]


def zone(records: dict[tuple[str, str], str], *, aa: bool = True, refers: dict[str, str] | None = None) -> Answer:
    """A server with these records, NXDOMAIN for all else; below `refers` it refers to another name server."""

    def answer(query: dns.message.Message) -> dns.message.Message:
        made, name = dns.message.make_response(query), query.question[0].name.to_text(True)
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        for cut, server in (refers or {}).items():
            if name == cut or name.endswith(f".{cut}"):
                made.authority.append(dns.rrset.from_text(f"{cut}.", 60, "IN", "NS", f"{server}."))
                return made
        made.flags |= dns.flags.AA if aa else 0
        if value := records.get((name, kind)):
            made.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, *value.split()))
        elif not any(known == name for known, _ in records):
            made.set_rcode(dns.rcode.NXDOMAIN)
        return made

    return answer


def failing(query: dns.message.Message) -> dns.message.Message:
    made = dns.message.make_response(query)
    made.set_rcode(dns.rcode.SERVFAIL)
    return made


NS = {("test", "NS"): "ns.test.", ("ns.test", "A"): PARENT}
CUT = {("acme.test", "NS"): "ns.acme.test.", ("ns.acme.test", "A"): CHILD}
LINK = {("links.acme.test", "CNAME"): "t.edge.test."}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    world = World(monkeypatch)
    world.answers = {
        RESOLVER: zone(NS | CUT, aa=False),
        PARENT: zone(NS, refers={"acme.test": "ns.acme.test"}),
        CHILD: zone(CUT | LINK),
    }
    async with world.serving():
        yield world


async def test_a_resolver_that_fails_for_a_zone_makes_no_record_vanish(world: World) -> None:
    whole, resolver = world.answers[RESOLVER], world.resolver()

    def hiccup(query: dns.message.Message) -> dns.message.Message | None:
        bad = query.question[0].name.to_text(True) == "acme.test"
        return failing(query) if bad else whole(query)

    world.answers[RESOLVER] = hiccup
    assert await resolver.look("links.acme.test", "CNAME") == Seen("failed")  # not: there is none
    assert (PARENT, "links.acme.test", "CNAME") in world.asked
    world.answers[RESOLVER] = whole
    assert await resolver.look("links.acme.test", "CNAME") == Seen("ok", ("t.edge.test",))
    assert await resolver.look("gone.acme.test", "CNAME") == Seen("nxdomain")


async def test_a_delegation_is_seen_at_the_parent_before_our_server_knows_the_zone(world: World) -> None:
    world.answers[RESOLVER] = zone(NS, aa=False)
    assert await world.resolver().look("acme.test", "NS") == Seen("ok", ("ns.acme.test",))


async def test_customers_ns_records_do_not_make_us_ask_our_own_network(world: World) -> None:
    assert await world.resolver(allowed=()).look("links.acme.test", "CNAME") == Seen("failed")
    assert {address for address, _, _ in world.asked} == {RESOLVER}


async def test_a_zone_whose_servers_are_silent_costs_a_few_questions_only(world: World) -> None:
    del world.answers[CHILD]
    resolver = world.resolver()
    for number in range(20):
        assert (await resolver.look(f"h{number}.acme.test", "CNAME")).status == "failed"
    assert sum(address == CHILD for address, _, _ in world.asked) == 2


async def test_two_servers_that_disagree_are_always_found_out(world: World) -> None:
    two = {("acme.test", "NS"): "ns.acme.test. ns2.acme.test.", ("ns2.acme.test", "A"): OTHER}
    world.answers[RESOLVER] = zone(NS | CUT | two, aa=False)
    world.answers[OTHER] = zone(CUT | {("links.acme.test", "CNAME"): "old.edge.test."})
    resolver = world.resolver()
    for _ in range(12):
        assert (await resolver.look_twice("links.acme.test", "CNAME"))[1]
    assert not await resolver.everywhere("links.acme.test", "CNAME", "t.edge.test")
    world.answers[OTHER] = zone(CUT | LINK)
    assert await resolver.everywhere("links.acme.test", "CNAME", "t.edge.test")
