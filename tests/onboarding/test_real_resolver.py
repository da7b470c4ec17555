"""Zones' servers found by real recursion, and DNSSEC judged by a real validating resolver."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import dns.message
import dns.query
import dns.rdatatype
import pytest

from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.core.watching import Watch
from brandproxy.onboarding import Looker
from tests.parts import Knot, Unbound

ZONES = ("test", "signed.test", "bogus.test")
# Some key's digest, but not one of the zone's: all it says is refused.
WRONG = "bogus.test. DS 12345 13 2 " + "AB" * 32


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Knot]:
    knot = Knot(tmp_path_factory.mktemp("dns") / "knot", ZONES, ("signed.test",))
    knot.start()
    yield knot
    knot.stop()


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory, signing: Knot) -> Iterator[Unbound]:
    query = dns.message.make_query("signed.test", "DNSKEY")
    for _ in range(100):  # knot signs in the background
        answer = dns.query.tcp(query, "127.0.0.1", 5, signing.port)
        if answer.answer:
            break
        time.sleep(0.05)
    keys = [f"signed.test. DNSKEY {key}" for key in answer.answer[0] if key.flags == 257]
    unbound = Unbound(tmp_path_factory.mktemp("resolver") / "unbound", signing.port, ZONES, (*keys, WRONG))
    unbound.start()
    yield unbound
    unbound.stop()


@pytest.fixture
async def context(
    tmp_path: Path, signing: Knot, unbound: Unbound, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Context]:
    monkeypatch.setattr("brandproxy.resolver._PORT", signing.port)
    settings = Settings(
        data=tmp_path,
        edge={"domain": "edge.test"},
        dns={"recursive": unbound.server},
        outbound={"allow": "127.0.0.0/8"},
    )
    async with open_context(settings, actor="test") as context:
        await context.registry.add_tenant("acme")
        yield context


@pytest.mark.parametrize(
    ("zone", "verdict", "codes"),
    [("test", "proven", []), ("signed.test", "proven", []), ("bogus.test", "absent", ["dnssec-bogus"])],
)
async def test_what_validates_proves_and_what_does_not_is_explained(
    context: Context, signing: Knot, zone: str, verdict: str, codes: list[str]
) -> None:
    host = await context.registry.add_host(f"links.acme.{zone}", "acme")
    looker = Looker(context.settings)

    async def look() -> tuple[str, list[str]]:
        report, _ = await looker.report(host, Watch(), time.time())
        return report.watch.verdict, [finding.code for finding in report.findings if finding.fatal]

    assert (await look())[0] == "absent"
    await signing.updater.replace(zone, host.name, "CNAME", f"{host.target}.")
    assert await look() == (verdict, codes)  # the zone's own server is asked: no cache still says NXDOMAIN
    await signing.updater.replace(zone, host.name, "CNAME")
    assert (await look())[0] == "absent"
