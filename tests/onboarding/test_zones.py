"""One NS delegation for everything: link host, DKIM and bounces are published by us, and keys rotate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import dkim as signing
import dns.message
import dns.query
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.errors import BadInput, Conflict
from brandproxy.model import HostState
from brandproxy.onboarding import Report, Watcher
from brandproxy.onboarding.dkim import PublicKeys
from tests.parts import KEY, Knot

ZONE = "mail.acme.test"
MAIL = b"From: news@mail.acme.test\r\nTo: you@else.test\r\nSubject: hello\r\n\r\nhello\r\n"


@pytest.fixture
async def context(tmp_path: Path, knot: Knot) -> AsyncIterator[Context]:
    settings = Settings(
        data=tmp_path,
        edge={"domain": "edge.test"},
        dns={
            "servers": knot.server,
            "nameservers": "ns.mail.acme.test",
            "update_server": knot.server,
            "update_key": KEY,
            "dkim_domain": "dkim.esp.test",
            "bounce_host": "bounces.esp.test",
        },
    )
    async with open_context(settings, actor="test") as context:
        await context.registry.add_tenant("acme")
        await knot.updater.replace("esp.test", "bounces.esp.test", "TXT", '"v=spf1 ip4:192.0.2.0/24 -all"')
        await knot.updater.replace("esp.test", "bounces.esp.test", "MX", "10 mx.esp.test.")
        await knot.put("_dmarc.acme.test", "TXT", '"v=DMARC1; p=quarantine"')
        yield context
        for name in ("bp1._domainkey", "bp2._domainkey", "bounce", "links"):
            await knot.updater.replace(ZONE, f"{name}.{ZONE}", "CNAME")


def states(report: Report) -> dict[str, str]:
    return {f"{line.wanted.type} {line.wanted.name}": line.state for line in report.lines}


async def test_a_delegated_zone_is_filled_by_us_and_put_right_when_somebody_changes_it(
    context: Context, knot: Knot
) -> None:
    host = await context.registry.add_host(f"links.{ZONE}", "acme", zone=ZONE)
    watcher = Watcher(context)
    for _ in range(2):
        host, report = await watcher.check(host.name)
    assert host.state is HostState.VERIFIED
    assert states(report) == {
        f"NS {ZONE}": "right",
        f"CNAME links.{ZONE}": "right",
        f"CNAME bp1._domainkey.{ZONE}": "right",
        f"CNAME bp2._domainkey.{ZONE}": "right",
        f"CNAME bounce.{ZONE}": "right",
    }
    assert [line.wanted.ours for line in report.lines] == [False, True, True, True, True]
    label = (await context.registry.senders.get(ZONE)).label
    assert await knot.look(f"bp1._domainkey.{ZONE}", "CNAME") == (f"bp1.{label}.dkim.esp.test",)
    assert await knot.look(f"{label}.bounces.esp.test", "CNAME") == ("bounces.esp.test",)
    assert [finding.code for finding in report.findings] == ["dkim-key-missing"]
    assert {(one.sender, one.mechanism, one.passes) for one in report.alignment} == {
        (ZONE, "DKIM", False), ("acme.test", "DKIM", False), (ZONE, "SPF", True), ("acme.test", "SPF", True),
    }  # fmt: skip
    await knot.updater.replace(ZONE, f"bounce.{ZONE}", "CNAME", "elsewhere.test.")
    _, report = await watcher.check(host.name)
    assert states(report)[f"CNAME bounce.{ZONE}"] == "right"


async def test_a_primary_that_refuses_is_told_and_breaks_no_host(context: Context, knot: Knot) -> None:
    dns = context.settings.dns.model_copy(update={"update_server": "127.0.0.1:9"})
    object.__setattr__(context, "settings", context.settings.model_copy(update={"dns": dns}))
    host = await context.registry.add_host(f"links.{ZONE}", "acme", zone=ZONE)
    watcher = Watcher(context)
    for _ in range(2):
        host, report = await watcher.check(host.name)
    assert host.state is HostState.VERIFIED
    codes = [finding.code for finding in report.findings]
    assert "zone-update-failing" in codes
    assert "record-kept-by-us" in codes


def verifies(knot: Knot, message: bytes) -> bool:
    """As a receiver does, through the CNAME in the customer's zone."""

    def txt(name: bytes, timeout: int = 5) -> bytes | None:
        here = name.decode()
        for _ in range(4):
            answer = dns.query.udp(dns.message.make_query(here, "TXT"), "127.0.0.1", 5, knot.port)
            for rrset in answer.answer:
                if rrset.rdtype == dns.rdatatype.TXT:
                    return b"".join(rrset[0].strings)
                here = rrset[0].target.to_text()
        return None

    return bool(signing.verify(message, dnsfunc=txt))


class Signer:
    """OpenDKIM, Rspamd: holds the private key."""

    def __init__(self, selector: str) -> None:
        self.selector, self.key = selector, rsa.generate_private_key(65537, 2048)
        form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        self.public = self.key.public_key().public_bytes(*form).decode()

    def sign(self) -> bytes:
        private = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        return bytes(signing.sign(MAIL, self.selector.encode(), ZONE.encode(), private)) + MAIL


async def test_keys_rotate_without_the_customer_and_mail_verifies_all_the_while(
    context: Context, knot: Knot
) -> None:
    host = await context.registry.add_host(f"links.{ZONE}", "acme", zone=ZONE)
    watcher, keys = Watcher(context), PublicKeys(context, "acme")
    await watcher.check(host.name)
    old, new = Signer("bp1"), Signer("bp2")
    assert (await keys.publish("bp1", old.public))[0].everywhere
    assert verifies(knot, old.sign())
    with pytest.raises(Conflict):  # nothing else signs yet
        await keys.withdraw("bp1")
    assert (await keys.publish("bp2", new.public))[0].everywhere
    assert verifies(knot, old.sign())
    assert verifies(knot, new.sign())
    await keys.withdraw("bp1")
    assert [bool(key.record) for key in await keys.all()] == [False, True]
    assert verifies(knot, new.sign())
    assert not verifies(knot, old.sign())
    _, report = await watcher.check(host.name)
    assert report.findings == ()
    assert all(one.passes for one in report.alignment)


async def test_a_private_key_and_a_selector_nobody_asks_for_are_refused(context: Context) -> None:
    keys, signer = PublicKeys(context, "acme"), Signer("bp1")
    private = signer.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(BadInput, match="private"):
        await keys.publish("bp1", private.decode())
    with pytest.raises(BadInput, match="selector"):
        await keys.publish("other", signer.public)
