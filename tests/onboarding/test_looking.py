"""What is seen at real authoritative servers, and through resolvers that validate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest

from brandproxy.context import Context
from brandproxy.core.watching import Watch
from brandproxy.model import Host
from brandproxy.onboarding import Looker, Report
from brandproxy.resolver import Resolver, parse_servers
from tests.parts import Knot


async def look(context: Context, host: Host) -> Report:
    return (await Looker(context.settings).report(host, Watch(), time.time()))[0]


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


async def test_a_chain_of_cnames_proves_and_a_loop_does_not(context: Context, knot: Knot) -> None:
    host = await context.registry.add_host("chain.acme.test", "acme")
    await knot.put(host.name, "CNAME", "middle.acme.test.")
    await knot.put("middle.acme.test", "CNAME", f"{host.target}.")
    report = await look(context, host)
    assert (report.watch.verdict, codes(report), report.lines[0].state) == ("proven", [], "right")
    await knot.put("middle.acme.test", "CNAME", f"{host.name}.")
    report = await look(context, host)
    assert report.watch.verdict == "absent"
    assert "cname-loop" in codes(report)


async def test_an_apex_is_proven_by_its_txt_and_the_edges_address(context: Context, tmp_path: Path) -> None:
    knot = Knot(tmp_path / "apex", ("test", "apex.test"))
    knot.start()
    try:
        looker = Looker(context.settings)
        looker.resolver = Resolver(parse_servers(knot.server))
        host = await context.registry.add_host("apex.test", "acme")

        async def report() -> Report:
            return (await looker.report(host, Watch(), time.time()))[0]

        first = await report()
        assert codes(first) == ["apex-needs-txt"]
        assert [line.wanted.type for line in first.lines] == ["ALIAS", "TXT"]
        await knot.updater.replace("apex.test", host.name, "A", "127.0.0.1")
        assert codes(await report()) == ["txt-missing"]
        await knot.updater.replace("apex.test", f"_brandproxy.{host.name}", "TXT", f'"{host.target}"')
        proven = await report()
        assert (proven.watch.verdict, [line.state for line in proven.lines]) == ("proven", ["right", "right"])
    finally:
        knot.stop()


async def test_a_wildcard_answer_is_told_and_works(context: Context, knot: Knot) -> None:
    host = await context.registry.add_host("any.wild.test", "acme")
    await knot.put("*.wild.test", "CNAME", f"{host.target}.")
    report = await look(context, host)
    assert (report.watch.verdict, codes(report)) == ("proven", ["wildcard-answers"])


async def test_an_idn_is_looked_for_under_its_a_label(context: Context, knot: Knot) -> None:
    host = await context.registry.add_host("links.bücher.test", "acme")
    await knot.put("links.xn--bcher-kva.test", "CNAME", f"{host.target}.")
    assert (await look(context, host)).watch.verdict == "proven"


async def test_a_target_of_another_host_is_no_proof(context: Context, knot: Knot) -> None:
    mine, theirs = [await context.registry.add_host(f"{name}.take.test", "acme") for name in ("mine", "theirs")]
    await knot.put(mine.name, "CNAME", f"{theirs.target}.")
    assert codes(await look(context, mine)) == ["cname-of-other-host"]


async def test_a_removed_hosts_target_never_comes_back(context: Context, knot: Knot) -> None:
    host = await context.registry.add_host("again.acme.test", "acme")
    await knot.put(host.name, "CNAME", f"{host.target}.")
    await context.registry.remove_host(host.name)
    fresh = await context.registry.add_host("again.acme.test", "acme")
    assert fresh.target != host.target
    assert codes(await look(context, fresh)) == ["cname-of-other-host"]  # the dangling record proves nothing


async def test_caa_is_climbed_to_the_first_set(context: Context, knot: Knot) -> None:
    host = await context.registry.add_host("a.b.caa.test", "acme")
    await knot.put(host.name, "CNAME", f"{host.target}.")
    await knot.put("caa.test", "CAA", '0 issue "letsencrypt.org; validationmethods=dns-01"')
    report = await look(context, host)
    assert codes(report) == ["caa-forbids"]
    assert "caa.test" in report.findings[0].fix
    await knot.put("b.caa.test", "CAA", '0 issue "letsencrypt.org"')
    assert codes(await look(context, host)) == []


async def test_an_answer_that_validating_resolvers_refuse_is_found() -> None:
    async with resolver(lambda query: query.flags & dns.flags.CD) as port:
        assert await Resolver((("127.0.0.1", 9),), (("127.0.0.1", port),)).bogus("links.acme.test")
    async with resolver(lambda query: True) as port:
        assert not await Resolver((("127.0.0.1", 9),), (("127.0.0.1", port),)).bogus("links.acme.test")


@asynccontextmanager
async def resolver(answers: object) -> AsyncIterator[int]:
    """A resolver that answers NOERROR where `answers(query)`, else SERVFAIL, as after failed validation."""

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            answer = dns.message.make_response(query := dns.message.from_wire(data))
            answer.set_rcode(dns.rcode.NOERROR if answers(query) else dns.rcode.SERVFAIL)  # type: ignore[operator]
            self.transport.sendto(answer.to_wire(), address)  # type: ignore[attr-defined]

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Protocol, ("127.0.0.1", 0))
    yield transport.get_extra_info("sockname")[1]
    transport.close()


@pytest.mark.parametrize("text", ["127.0.0.1:5353", "127.0.0.1", "[::1]:53", " 1.2.3.4 , 5.6.7.8:99 "])
def test_servers_are_read(text: str) -> None:
    assert all(port in (53, 99, 5353) for _, port in parse_servers(text))
