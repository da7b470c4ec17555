"""`brandproxy dns`, `host check` and `cert …`, against a real DNS server and a real CA."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from brandproxy.certs.devca import DevCA
from brandproxy.cli import build
from brandproxy.errors import Conflict
from tests.parts import KEY, Knot, Pebble

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, knot: Knot) -> Run:
    environment = {
        "BRANDPROXY_DATA": str(tmp_path / "data"),
        "BRANDPROXY_EDGE_DOMAIN": "edge.test",
        "BRANDPROXY_DNS_SERVERS": knot.server,
        "BRANDPROXY_CERTS_CAA": "pebble.test",
        "BRANDPROXY_CERTS_SELF_CHECK": "false",
        "COLUMNS": "200",
    }

    def call(*words: str, **more: str) -> str:
        done = CliRunner().invoke(build(), words, env={**environment, **more})
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    call("tenant", "add", "acme")
    return call


def connect(run: Run, knot: Knot, name: str) -> None:
    """A host whose records are right, verified by two looks."""
    host = json.loads(run("host", "add", name, "--tenant", "acme", "--json"))
    asyncio.run(knot.put(name, "CNAME", f"{host['target']}."))
    run("host", "check", name)
    assert json.loads(run("host", "check", name, "--json"))["host"]["state"] == "verified"


def test_dns_shows_records_wanted_and_seen_and_changes_nothing(run: Run, knot: Knot) -> None:
    host = json.loads(run("host", "add", "links.acme.test", "--tenant", "acme", "--json"))
    told = run("dns", "links.acme.test")
    assert "cname-missing" in told
    assert host["target"] in told
    assert f"links.acme.test. IN CNAME {host['target']}." in run("dns", "links.acme.test", "--zone-file")
    assert "/onboarding/" in run("dns", "links.acme.test", "--link")
    asyncio.run(knot.put("links.acme.test", "CNAME", f"{host['target']}."))
    for _ in range(3):
        assert json.loads(run("dns", "links.acme.test", "--json"))["lines"][0]["state"] == "right"
    assert json.loads(run("host", "show", "links.acme.test", "--json"))["state"] == "pending"


def test_an_own_certificate_is_imported_and_listed(run: Run, knot: Knot, tmp_path: Path) -> None:
    connect(run, knot, "own.acme.test")
    own = DevCA(tmp_path).issue("own.acme.test", 2e9)
    (tmp_path / "chain.pem").write_text(own.chain)
    (tmp_path / "key.pem").write_bytes(own.key)
    files = ("--chain", str(tmp_path / "chain.pem"), "--key", str(tmp_path / "key.pem"))
    run("cert", "import", "own.acme.test", *files)
    (listed,) = json.loads(run("cert", "list", "--json"))
    assert (listed["host"], listed["ca"], listed["serial"]) == ("own.acme.test", "import", own.serial)
    assert json.loads(run("host", "show", "own.acme.test", "--json"))["state"] == "live"
    assert "PRIVATE" not in run("cert", "show", "own.acme.test", "--json")


def test_orders_renewals_revocation_and_the_accounts_key_by_hand(run: Run, knot: Knot, tmp_path: Path) -> None:
    pebble = Pebble(tmp_path / "pebble", knot.server, 1, always_valid=True)
    pebble.start()
    acme = {"BRANDPROXY_CERTS_CA": pebble.url, "BRANDPROXY_CERTS_ACME_TRUST": str(pebble.trust)}
    try:
        connect(run, knot, "hand.acme.test")
        first = json.loads(run("cert", "issue", "hand.acme.test", "--json", **acme))
        assert json.loads(run("cert", "issue", "hand.acme.test", "--json", **acme)) == first
        run("cert", "rotate-account-key", **acme)
        second = json.loads(run("cert", "renew", "hand.acme.test", "--json", **acme))
        assert second["serial"] != first["serial"]
        run("cert", "revoke", "hand.acme.test", "--reason", "1", **acme)
        assert json.loads(run("cert", "show", "hand.acme.test", "--json"))["serial"] == ""
    finally:
        pebble.stop()


def test_a_delegated_zone_is_shown_record_by_record_and_a_public_key_is_published(
    run: Run, knot: Knot, tmp_path: Path
) -> None:
    ours = {
        "BRANDPROXY_DNS_NAMESERVERS": "ns.mail.acme.test",
        "BRANDPROXY_DNS_UPDATE_SERVER": knot.server,
        "BRANDPROXY_DNS_UPDATE_KEY": KEY,
        "BRANDPROXY_DNS_DKIM_DOMAIN": "dkim.esp.test",
        "BRANDPROXY_DNS_BOUNCE_HOST": "bounces.esp.test",
    }
    run("host", "add", "links.mail.acme.test", "--tenant", "acme", "--zone", "mail.acme.test", **ours)
    lines = json.loads(run("dns", "links.mail.acme.test", "--json", **ours))["lines"]
    assert [(line["wanted"]["ours"], line["state"]) for line in lines] == [(False, "right")] + 4 * [
        (True, "missing")
    ]
    assert run("dns", "links.mail.acme.test", "--zone-file", **ours).count("IN") == 1  # the customer's only
    told = run("host", "check", "links.mail.acme.test", **ours)
    assert told.count("kept by us") == 4
    assert told.count("✓ found") == 5
    assert "DMARC" in told
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    (tmp_path / "bp2.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert "has the key" in run("dkim", "publish", "acme", "bp2", str(tmp_path / "bp2.pem"), **ours)
    listed = json.loads(run("dkim", "list", "acme", "--json", **ours))
    assert [(one["selector"], bool(one["record"]), one["everywhere"]) for one in listed] == [
        ("bp1", False, False), ("bp2", True, True),
    ]  # fmt: skip
    with pytest.raises(Conflict):
        run("dkim", "withdraw", "acme", "bp2", **ours)
    for name in ("bp1._domainkey", "bp2._domainkey", "bounce", "links"):
        asyncio.run(knot.updater.replace("mail.acme.test", f"{name}.mail.acme.test", "CNAME"))
