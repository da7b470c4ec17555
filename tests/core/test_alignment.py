"""Which record makes which DMARC alignment pass, and what is said about mail records that lead nowhere."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from brandproxy.core import dkim
from brandproxy.core.alignment import alignments, by_hand, health, questions
from brandproxy.core.findings import mail_findings
from brandproxy.core.records import Observation, Seen, Verdict
from brandproxy.core.senders import MailNames, Sending, contested, mail_records
from brandproxy.errors import BadInput
from brandproxy.model import Sender
from brandproxy.onboarding.report import lines

MAIL = MailNames("dkim.esp.example", ("bp1", "bp2"), "bounces.esp.example")
LABEL = "0123456789abcdef"
NOTHING = Seen("nxdomain")


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> str:
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(*form).decode()


RSA = pem(rsa.generate_private_key(65537, 2048))
KEY = dkim.key_record(RSA)
OTHER = dkim.key_record(pem(rsa.generate_private_key(65537, 2048)))
ACME = Sending(Sender("acme.example", "acme", LABEL), MAIL, {"bp1": KEY})
ZONED = replace(ACME, sender=replace(ACME.sender, domain="mail.acme.example"))


def seen(domain: str, **policies: str) -> Observation:
    """All right: CNAMEs, a key behind one of them, SPF and MX; `policies` by name, `_` for a dot."""
    selectors = [f"{one}._domainkey.{domain}" for one in ("bp1", "bp2")]
    names = [*selectors, f"bounce.{domain}"]
    dmarc = {("TXT", f"_dmarc.{name.replace('_', '.')}"): Seen("ok", (text,)) for name, text in policies.items()}
    ends = {kind_name: NOTHING for one in (ACME, ZONED) for kind_name in questions(one)}
    targets = [f"bp1.{LABEL}.dkim.esp.example", f"bp2.{LABEL}.dkim.esp.example", f"{LABEL}.bounces.esp.example"]
    return Observation(
        cname=NOTHING,
        mail={("CNAME", name): Seen("ok", (target,)) for name, target in zip(names, targets, strict=True)},
        ends=ends
        | {
            ("TXT", selectors[0]): Seen("ok", (KEY,)),
            ("TXT", names[2]): Seen("ok", ("v=spf1 ip4:192.0.2.0/24 -all",)),
            ("MX", names[2]): Seen("ok", ("10 mx.esp.example.",)),
        }
        | dmarc,
    )


def table(sending: Sending, observation: Observation) -> dict[tuple[str, str], tuple[str, bool]]:
    return {(a.sender, a.mechanism): (a.mode, a.passes) for a in alignments(sending, observation)}


def codes(sending: Sending, observation: Observation) -> list[str]:
    return [finding.code for finding in health(sending, observation)]


def test_with_cnames_dkim_aligns_in_both_modes_and_spf_when_relaxed() -> None:
    right = seen("acme.example", acme_example="v=DMARC1; p=reject")
    assert table(ACME, right) == {
        ("acme.example", "DKIM"): ("relaxed", True), ("acme.example", "SPF"): ("relaxed", True),
    }  # fmt: skip
    assert codes(ACME, right) == []
    strict = seen("acme.example", acme_example="v=DMARC1; p=reject; adkim=s; aspf=s")
    assert table(ACME, strict) == {
        ("acme.example", "DKIM"): ("strict", True), ("acme.example", "SPF"): ("strict", False),
    }  # fmt: skip
    assert codes(ACME, strict) == ["alignment-strict"]


def test_in_a_delegated_zone_mail_from_the_domain_above_aligns_when_relaxed_only() -> None:
    relaxed = seen("mail.acme.example", acme_example="v=DMARC1; p=none")
    assert {passes for _, passes in table(ZONED, relaxed).values()} == {True}
    strict = seen("mail.acme.example", acme_example="v=DMARC1;p=none;adkim=s")
    assert table(ZONED, strict) == {
        ("mail.acme.example", "DKIM"): ("strict", True), ("mail.acme.example", "SPF"): ("relaxed", True),
        ("acme.example", "DKIM"): ("strict", False), ("acme.example", "SPF"): ("relaxed", True),
    }  # fmt: skip
    own = seen("mail.acme.example", acme_example="v=DMARC1; adkim=s", mail_acme_example="v=DMARC1; p=none")
    assert table(ZONED, own)["mail.acme.example", "DKIM"] == ("relaxed", True)  # its own policy goes before


@pytest.mark.parametrize(
    ("kind", "name", "answer", "code"),
    [
        ("TXT", "bp1._domainkey.acme.example", NOTHING, "dkim-key-missing"),
        ("TXT", "bp1._domainkey.acme.example", Seen("ok", ("v=DKIM1; p=",)), "dkim-key-bad"),
        ("TXT", "bounce.acme.example", NOTHING, "spf-missing"),
        ("TXT", "bounce.acme.example", Seen("ok", ("v=spf1 -all", "v=spf1 mx -all")), "spf-missing"),
        ("TXT", "bounce.acme.example", Seen("ok", ("v=spf10 -all",)), "spf-missing"),
        ("MX", "bounce.acme.example", NOTHING, "bounce-mx-missing"),
        ("TXT", "_dmarc.acme.example", NOTHING, "dmarc-missing"),
        ("TXT", "_dmarc.acme.example", Seen("ok", ("v=DMARC1; p=none", "v=DMARC1; p=reject")), "dmarc-double"),
    ],
)
def test_what_is_wrong_behind_right_records_is_found(kind: str, name: str, answer: Seen, code: str) -> None:
    right = seen("acme.example", acme_example="v=DMARC1; p=none")
    broken = replace(right, ends=right.ends | {(kind, name): answer})
    found = health(ACME, broken)
    assert code in [finding.code for finding in found]
    assert not any(finding.fatal for finding in found)
    silent = replace(right, ends=right.ends | {(kind, name): Seen("failed")})
    assert codes(ACME, silent) == []  # DNS that does not answer is no finding


def test_nothing_is_said_of_records_that_are_not_there_or_not_asked_for() -> None:
    bare = replace(seen("acme.example", acme_example="v=DMARC1; p=none"), mail={})
    assert codes(ACME, bare) == []
    unasked = replace(ACME, mail=MailNames())
    assert health(unasked, bare) == alignments(unasked, bare) == health(None, bare) == alignments(None, bare) == []


def test_a_public_key_is_read_in_every_form_signers_write() -> None:
    genkey = (
        "bp1._domainkey\tIN\tTXT\t( " + " ".join(f'"{KEY[n : n + 200]}"' for n in range(0, len(KEY), 200)) + " )"
    )
    assert dkim.key_record(genkey) == dkim.key_record(KEY) == KEY
    assert "k=ed25519" in dkim.key_record(pem(ed25519.Ed25519PrivateKey.generate()))


@pytest.mark.parametrize(
    "text",
    ["", "v=DKIM1; k=rsa; p=", "v=DKIM1; p=!!", "v=DKIM2; p=AAAA", "-----BEGIN RSA PRIVATE KEY-----\n",
     f"v=DKIM1; k=rsa; p={base64.b64encode(b'x' * 90).decode()}", "-----BEGIN PUBLIC KEY-----\nx",
     pem(rsa.generate_private_key(65537, 1024)).replace("BEGIN PUBLIC", "BEGIN PRIVATE")],
    ids=lambda text: text[:25],
)  # fmt: skip
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        dkim.key_record(text)


def test_a_key_or_spf_and_mx_put_there_by_hand_do_and_are_told() -> None:
    right = seen("acme.example", acme_example="v=DMARC1; p=none")
    manual = replace(right, mail=dict.fromkeys(right.mail, NOTHING))
    records = mail_records(ACME)
    assert [bool(by_hand(record, manual, ACME)) for record in records] == [True, False, True]
    assert [(finding.code, finding.fatal) for finding in mail_findings(records, manual, ACME)] == [
        ("mail-record-by-hand", False), ("mail-record-missing", False), ("mail-record-by-hand", False),
    ]  # fmt: skip
    assert all(passes for _, passes in table(ACME, manual).values())
    assert [line.state for line in lines(records, manual, Verdict.ABSENT, ACME)] == ["right", "missing", "right"]
    assert not any(by_hand(record, right, ACME) for record in records)
    no_mx = replace(manual, ends=manual.ends | {("MX", "bounce.acme.example"): NOTHING})
    assert not by_hand(records[2], no_mx, ACME)


def test_a_key_that_is_not_the_one_we_published_passes_nowhere() -> None:
    right = seen("acme.example", acme_example="v=DMARC1; p=none")
    name = "bp1._domainkey.acme.example"
    foreign = replace(right, ends=right.ends | {("TXT", name): Seen("ok", (OTHER,))})
    pasted = replace(foreign, mail=dict.fromkeys(right.mail, NOTHING))
    elsewhere = replace(right, mail=right.mail | {("CNAME", name): Seen("ok", ("bp1.other.dkim.esp.example",))})
    doubled = replace(right, ends=right.ends | {("TXT", name): Seen("ok", (KEY, OTHER))})
    unpublished = replace(ACME, published={})
    for observation in (foreign, pasted, elsewhere, doubled):
        assert not table(ACME, observation)["acme.example", "DKIM"][1]
    assert "dkim-key-other" in codes(ACME, foreign)
    assert "dkim-key-other" in codes(ACME, pasted)
    assert "dkim-key-bad" in codes(ACME, doubled)
    assert table(unpublished, right)["acme.example", "DKIM"][1]  # in a zone that the operator fills
    assert not table(unpublished, pasted)["acme.example", "DKIM"][1]
    assert not by_hand(mail_records(ACME)[0], pasted, ACME)


def test_of_a_domain_that_is_another_tenants_no_records_are_asked() -> None:
    lost = replace(ACME, contested=True)
    assert mail_records(lost) == questions(lost) == alignments(lost, seen("acme.example")) == []
    assert [finding.code for finding in contested(lost)] == ["sender-contested"]
    assert contested(ACME) == contested(None) == []


def test_records_that_lead_to_targets_by_slug_are_right_for_who_had_them_before_there_were_labels() -> None:
    right = seen("acme.example", acme_example="v=DMARC1; p=none")
    name = "bp1._domainkey.acme.example"
    older = replace(right, mail=right.mail | {("CNAME", name): Seen("ok", ("bp1.acme.dkim.esp.example",))})
    before = replace(ACME, sender=replace(ACME.sender, by_slug=True))
    assert table(before, older)["acme.example", "DKIM"][1]
    assert not table(ACME, older)["acme.example", "DKIM"][1]
    states = [
        [line.state for line in lines(mail_records(one), older, Verdict.ABSENT, one)] for one in (before, ACME)
    ]
    assert states == [["right", "right", "right"], ["wrong", "right", "right"]]


def test_a_selector_may_lead_to_us_over_names_of_the_customers() -> None:
    right = seen("acme.example", acme_example="v=DMARC1; p=none")
    name, target = "bp1._domainkey.acme.example", f"bp1.{LABEL}.dkim.esp.example"
    over = replace(right, mail=right.mail | {("CNAME", name): Seen("ok", ("x.acme.example",))})
    over = replace(over, chains={name: ("x.acme.example", target)})
    assert lines(mail_records(ACME), over, Verdict.ABSENT, ACME)[0].state == "right"
    assert table(ACME, over)["acme.example", "DKIM"][1]
