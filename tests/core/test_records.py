"""Which records prove a host, and what is said about those that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brandproxy.core.caa import Caa, Issuer
from brandproxy.core.findings import CODES, findings, mail_findings
from brandproxy.core.records import (
    FAILED,
    NOTHING,
    Observation,
    Seen,
    Verdict,
    certificate_names,
    reached,
    verdict,
    wanted,
)
from brandproxy.core.senders import MailNames, Sending, mail_records
from brandproxy.model import Host, Sender

TARGET = "abc123.edge.example"
HOST = Host("links.acme.example", "acme", TARGET)
ZONED = replace(HOST, name="links.mail.acme.example", zone="mail.acme.example")
CA = Issuer(("ca.example",))
EDGE = frozenset({"192.0.2.1"})
A = Seen("ok", ("192.0.2.1",))
RIGHT = Observation(cname=Seen("ok", (TARGET,)), chain=(TARGET,), a=A, edge=EDGE)
NONE = Observation(cname=NOTHING, edge=EDGE)
TXT = Seen("ok", (TARGET,))

PROVEN = [
    RIGHT,
    replace(RIGHT, chain=("proxy.acme.example", TARGET), cname=Seen("ok", ("proxy.acme.example",))),
    replace(NONE, a=A, txt=TXT),  # ALIAS or ANAME, with the TXT
    replace(NONE, a=A, txt=TXT, apex=True),
    replace(NONE, a=Seen("ok", ("104.16.1.1",)), txt=TXT),  # behind a proxy, with the TXT
]
ABSENT = [
    (NONE, "cname-missing"),
    (replace(RIGHT, chain=("elsewhere.example",)), "cname-elsewhere"),
    (replace(RIGHT, chain=("other.edge.example",)), "cname-of-other-host"),
    (replace(NONE, a=Seen("ok", ("198.51.100.7",))), "address-not-cname"),
    (replace(NONE, a=Seen("ok", ("198.51.100.7",)), txt=TXT), "address-not-cname"),  # the TXT alone is no proof
    (replace(NONE, a=A), "txt-missing"),
    (replace(NONE, a=A, txt=Seen("ok", ("other.edge.example",))), "txt-elsewhere"),
    (replace(NONE, apex=True), "apex-needs-txt"),
    (replace(NONE, a=Seen("ok", ("104.16.1.1",))), "proxied"),
    (replace(NONE, aaaa=Seen("ok", ("2606:4700::1",))), "proxied"),
    (replace(RIGHT, bogus=True), "dnssec-bogus"),
]
BESIDE = [
    (replace(RIGHT, others=("MX",)), "conflicting-records", True),
    (replace(RIGHT, a=NOTHING), "target-dangling", True),
    (replace(NONE, a=A, txt=TXT, aaaa=Seen("ok", ("2001:db8::7",))), "stray-aaaa", True),
    (replace(RIGHT, wildcard=True), "wildcard-answers", False),
    (replace(RIGHT, chain=(*(f"c{n}.example" for n in range(9)), TARGET)), "chain-long", False),
    (replace(RIGHT, hsts=True), "parent-hsts", False),
    (replace(RIGHT, disagree=True), "servers-disagree", False),
    (replace(RIGHT, caa=(Caa(0, "issue", "other.example"),), caa_at="acme.example"), "caa-forbids", True),
    (replace(RIGHT, caa_failed=True), "caa-failing", True),
]


@pytest.mark.parametrize("seen", PROVEN)
def test_these_prove_control_and_nothing_is_said_against_them(seen: Observation) -> None:
    assert verdict(HOST, seen) is Verdict.PROVEN
    assert findings(HOST, seen, CA, "edge.example") == []


@pytest.mark.parametrize(("seen", "code"), ABSENT, ids=[code for _, code in ABSENT])
def test_these_do_not_and_the_reason_comes_with_a_fix(seen: Observation, code: str) -> None:
    assert verdict(HOST, seen) is Verdict.ABSENT
    found = findings(HOST, seen, CA, "edge.example")
    assert code in [finding.code for finding in found]
    assert all(finding.fix and finding.sentence.endswith(".") for finding in found)


@pytest.mark.parametrize(("seen", "code", "fatal"), BESIDE, ids=[code for _, code, _ in BESIDE])
def test_what_hurts_beside_right_records_is_found(seen: Observation, code: str, fatal: bool) -> None:
    found = {finding.code: finding.fatal for finding in findings(HOST, seen, CA, "edge.example")}
    assert found == {code: fatal}
    assert verdict(HOST, seen) is Verdict.PROVEN


@pytest.mark.parametrize(
    "seen", [replace(NONE, cname=FAILED), replace(NONE, a=FAILED), replace(NONE, disagree=True)]
)
def test_dns_that_does_not_answer_is_no_vote(seen: Observation) -> None:
    assert verdict(HOST, seen) is Verdict.UNKNOWN


def test_a_delegated_zone_is_proven_by_its_name_servers() -> None:
    assert verdict(ZONED, replace(NONE, delegation=Seen("ok", ("ns1.esp.example",)))) is Verdict.PROVEN
    assert verdict(ZONED, replace(NONE, delegation=FAILED)) is Verdict.UNKNOWN
    wrong = replace(NONE, delegation=Seen("wrong", ("ns.other.example",)))
    assert verdict(ZONED, wrong) is Verdict.ABSENT
    assert [finding.code for finding in findings(ZONED, wrong, CA)] == ["delegation-missing"]
    assert [(record.type, record.value) for record in wanted(ZONED, ("ns1.esp.example", "ns2.esp.example"))] == [
        ("NS", "ns1.esp.example"),
        ("NS", "ns2.esp.example"),
        ("CNAME", TARGET),  # ours to publish
    ]


def test_mail_records_are_two_dkim_selectors_and_the_bounce_host() -> None:
    mail = MailNames("dkim.esp.example", ("bp1", "bp2"), "bounces.esp.example")
    sending = Sending(Sender("acme.example", "acme", "0123456789abcdef"), mail)
    records = wanted(HOST, mail=mail_records(sending))
    assert [(record.name, record.value, record.needed) for record in records] == [
        ("links.acme.example", TARGET, True),
        ("bp1._domainkey.acme.example", "bp1.0123456789abcdef.dkim.esp.example", False),
        ("bp2._domainkey.acme.example", "bp2.0123456789abcdef.dkim.esp.example", False),
        ("bounce.acme.example", "0123456789abcdef.bounces.esp.example", False),
    ]
    seen = replace(RIGHT, mail={
        ("CNAME", "bp1._domainkey.acme.example"): Seen("ok", ("bp1.0123456789abcdef.dkim.esp.example",)),
        ("CNAME", "bp2._domainkey.acme.example"): Seen("ok", ("elsewhere.example",)),
        ("CNAME", "bounce.acme.example"): NOTHING,
    })  # fmt: skip
    assert [finding.code for finding in mail_findings(records, seen, sending)] == [
        "mail-record-elsewhere",
        "mail-record-missing",
    ]


@pytest.mark.parametrize("tag", ["issue", "issuewild"])
def test_a_wildcard_certificate_needs_leave_for_both_of_its_names(tag: str) -> None:
    other = "issuewild" if tag == "issue" else "issue"
    half = (Caa(0, tag, "ca.example"), Caa(0, other, "other.example"))
    seen = replace(NONE, delegation=Seen("ok", ("ns1.esp.example",)), caa=half, caa_at="acme.example")
    [finding] = findings(ZONED, seen, CA)
    assert (finding.code, f"CAA 0 {other} " in finding.fix) == ("caa-forbids", True)


def test_the_certificate_of_a_name_deep_in_a_delegated_zone_is_for_that_name() -> None:
    deep = replace(ZONED, name="links.eu.mail.acme.example")
    assert certificate_names(ZONED) == ("mail.acme.example", "*.mail.acme.example")
    assert certificate_names(deep) == ("eu.mail.acme.example", "*.eu.mail.acme.example")
    assert certificate_names(HOST) == (HOST.name,)


def test_only_our_edge_and_known_proxies_are_probed_whatever_the_records_name() -> None:
    seen = replace(NONE, a=Seen("ok", ("104.16.1.1", "169.254.169.254", "10.0.0.1")), aaaa=Seen("ok", ("::1",)))
    assert reached(seen) == ["104.16.1.1"]
    assert reached(replace(RIGHT, aaaa=Seen("ok", ("2001:db8::7",)))) == ["192.0.2.1"]


def test_every_code_that_can_come_up_is_listed_once() -> None:
    found = {code for _, code in ABSENT} | {code for _, code, _ in BESIDE}
    found |= {"delegation-missing", "mail-record-missing", "mail-record-elsewhere"}
    found |= {"mail-record-by-hand"}  # test_alignment.py
    found |= {"record-kept-by-us", "zone-update-failing"}  # tests/onboarding/test_zones.py
    found |= {
        "dkim-key-missing",
        "dkim-key-bad",
        "dkim-key-other",
        "sender-contested",
        "spf-missing",
    }  # test_alignment.py
    found |= {"bounce-mx-missing", "dmarc-missing", "dmarc-double", "alignment-strict"}
    for seen in (replace(NONE, cname=FAILED), replace(NONE, loop=True)):
        found |= {finding.code for finding in findings(HOST, seen, CA)}
    assert found == CODES
