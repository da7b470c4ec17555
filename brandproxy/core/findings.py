"""What is wrong with a host's records, in plain words, each with a stable code and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from brandproxy.core import caa
from brandproxy.core.alignment import by_hand, leads
from brandproxy.core.records import Finding, Observation, Verdict, Wanted, apex_wanted, proxied, verdict
from brandproxy.core.senders import Sending
from brandproxy.model import Host

CODES = {
    "delegation-missing", "dns-failing", "dnssec-bogus", "servers-disagree", "cname-loop", "cname-missing",
    "cname-elsewhere", "cname-of-other-host", "address-not-cname", "conflicting-records", "target-dangling",
    "apex-needs-txt", "txt-missing", "txt-elsewhere", "proxied", "stray-aaaa", "wildcard-answers", "chain-long",
    "parent-hsts", "caa-forbids", "caa-failing", "mail-record-missing", "mail-record-elsewhere",
    "mail-record-by-hand", "record-kept-by-us", "zone-update-failing", "dkim-key-missing", "dkim-key-bad",
    "dkim-key-other", "sender-contested", "spf-missing",
    "bounce-mx-missing", "dmarc-missing", "dmarc-double", "alignment-strict",
}  # fmt: skip

_LONG_CHAIN = 8  # resolvers give up somewhere between 8 and 16


def findings(host: Host, seen: Observation, issuer: caa.Issuer, domain: str = "") -> list[Finding]:
    """All findings, fatal ones first. `domain` is the edge domain under which our targets lie."""
    found = [
        *_broken_dns(host, seen),
        *_proof(host, seen, domain),
        *_beside(host, seen),
        *_caa(host, seen, issuer),
    ]
    return sorted(found, key=lambda finding: not finding.fatal)


def _broken_dns(host: Host, seen: Observation) -> Iterator[Finding]:
    if seen.bogus:
        yield Finding(
            "dnssec-bogus", True, f"DNSSEC of {host.name} does not validate: most of the world cannot see it.",
            "Correct the zone's signatures or its DS record at the registrar, or remove the DS record.",
        )  # fmt: skip
    if seen.cname.status == "failed":
        yield Finding(
            "dns-failing", True, f"The DNS servers of {host.name} do not answer, or answer with errors.",
            "Check the zone at your DNS provider; we look again by ourselves.",
        )  # fmt: skip
    if seen.disagree:
        yield Finding(
            "servers-disagree", False, f"The DNS servers of {host.name} answer differently.",
            "Wait until all of them have the newest version of the zone; if it stays, check zone transfers.",
        )  # fmt: skip
    if seen.loop:
        yield Finding(
            "cname-loop", True, f"The CNAMEs of {host.name} lead in a circle.",
            f"Let {host.name} point at {host.target} directly.",
        )  # fmt: skip


def _proof(host: Host, seen: Observation, domain: str) -> Iterator[Finding]:
    """Why control is not proven; nothing when it is, or would be if DNSSEC validated."""
    if verdict(host, replace(seen, bogus=False)) is Verdict.PROVEN or seen.cname.status == "failed":
        return
    point = f"Create: {host.name}. CNAME {host.target}."
    if seen.delegation is not None:
        yield Finding(
            "delegation-missing", True, f"{host.zone} is not delegated to our name servers.",
            f"Create the NS records for {host.zone} exactly as listed.",
        )  # fmt: skip
    elif seen.chain:
        yield _elsewhere(host, seen.chain, domain)
    elif seen.apex or (seen.edge & {*seen.a.values, *seen.aaaa.values}) or proxied(seen):
        yield from _txt(host, seen)
    elif seen.a.values or seen.aaaa.values:
        yield Finding(
            "address-not-cname", True, f"{host.name} has address records, not the CNAME to us.",
            f"Remove the A and AAAA records of {host.name}. {point}",
        )  # fmt: skip
    else:
        yield Finding("cname-missing", True, f"{host.name} has no CNAME record yet.", point)


def _elsewhere(host: Host, chain: tuple[str, ...], domain: str) -> Finding:
    ours = [name for name in chain if domain and name.endswith(f".{domain}")]
    fix = f"Change it to: {host.name}. CNAME {host.target}."
    if ours:
        sentence = f"{host.name} points at {ours[0]}, which belongs to another or a removed host."
        return Finding("cname-of-other-host", True, sentence, fix)
    return Finding("cname-elsewhere", True, f"{host.name} points at {chain[-1]}, not at us.", fix)


def _txt(host: Host, seen: Observation) -> Iterator[Finding]:
    _, proof = apex_wanted(host)
    create = f'Create: {proof.name}. TXT "{proof.value}"'
    if proxied(seen):
        yield Finding(
            "proxied", True, f"{host.name} is behind a CDN's proxy that hides where it points.",
            f"Switch the record to “DNS only” (grey cloud). To keep the proxy: {create}",
        )  # fmt: skip
    elif seen.txt.values:
        sentence = f"The TXT record at {proof.name} holds another value."
        yield Finding("txt-elsewhere", True, sentence, create)
    elif seen.apex and not seen.a.values and not seen.aaaa.values:
        yield Finding(
            "apex-needs-txt", True, f"{host.name} is the top of its zone, where no CNAME can be.",
            f"Use an ALIAS, ANAME or flattened CNAME to {host.target}, and {create[0].lower()}{create[1:]}",
        )  # fmt: skip
    else:
        sentence = f"{host.name} leads to us, but nothing proves yet that it is yours."
        yield Finding("txt-missing", True, sentence, create)


def _beside(host: Host, seen: Observation) -> Iterator[Finding]:
    """What stands beside the right record and will hurt."""
    if seen.others:
        yield Finding(
            "conflicting-records", True, f"{host.name} has a CNAME and other records ({', '.join(seen.others)}).",
            "Remove the other records: beside a CNAME nothing else may be (RFC 1034 §3.6.2).",
        )  # fmt: skip
    if host.target in seen.chain and not seen.a.values and not seen.aaaa.values and seen.a.status != "failed":
        yield Finding(
            "target-dangling", True, f"{host.name} is right, but our name {host.target} has no address.",
            "This is for the operator: give the edge domain a wildcard A and AAAA record.",
        )  # fmt: skip
    stray = [value for value in seen.aaaa.values if value not in seen.edge]
    if seen.edge and not seen.chain and stray and not proxied(seen):
        yield Finding(
            "stray-aaaa", True, f"{host.name} has an IPv6 address that is not ours ({stray[0]}).",
            "Remove the AAAA record: visitors with IPv6 and the certificate authority would go there.",
        )  # fmt: skip
    if seen.wildcard:
        yield Finding(
            "wildcard-answers", False, f"The answer for {host.name} comes from a wildcard record.",
            "Create the record for this very name, so that it stays when the wildcard changes.",
        )  # fmt: skip
    if len(seen.chain) > _LONG_CHAIN:
        yield Finding(
            "chain-long", False, f"{host.name} leads to us over {len(seen.chain)} CNAMEs; some resolvers give up.",
            f"Point it at {host.target} directly.",
        )  # fmt: skip
    if seen.hsts:
        yield Finding(
            "parent-hsts", False, "The domain above demands HTTPS for all its names (HSTS includeSubDomains).",
            "Nothing to do: links are used as soon as the certificate is there, and never before.",
        )  # fmt: skip


def _caa(host: Host, seen: Observation, issuer: caa.Issuer) -> Iterator[Finding]:
    identity = issuer.identities[0] if issuer.identities else ""
    if seen.caa_failed:
        yield Finding(
            "caa-failing", True, f"The CAA records of {host.name} cannot be read, so no certificate is given.",
            "Check that your DNS servers answer questions for CAA records.",
        )  # fmt: skip
    elif identity:
        kinds = ("issue", "issuewild") if host.zone else ("issue",)  # the wildcard's name, and the one above it
        for kind in kinds:
            if not caa.allows(seen.caa, issuer, wildcard=kind == "issuewild"):
                sentence = f"The CAA records at {seen.caa_at} do not let {identity} issue a certificate."
                yield Finding("caa-forbids", True, sentence, f'Add: {seen.caa_at}. CAA 0 {kind} "{identity}"')
                return


def mail_findings(records: list[Wanted], seen: Observation, sending: Sending | None) -> list[Finding]:
    """About the records wanted for mail's good; links work without them."""
    found = []
    for record in records:
        answer = seen.mail.get((record.type, record.name))
        if record.needed or answer is None or answer.status == "failed" or leads(record, seen):
            continue
        create = f"Create: {record.name}. {record.type} {record.value}."
        if by_hand(record, seen, sending):
            sentence = f"{record.name} was made by hand: it works until something changes on our side."
            fix = f"Better, so that it changes without you: {record.name}. CNAME {record.value}."
            found.append(Finding("mail-record-by-hand", False, sentence, fix))
        elif record.ours:
            sentence = f"{record.name} is not there yet, or not right."
            found.append(Finding("record-kept-by-us", False, sentence, "Nothing to do: we publish it ourselves."))
        elif answer.values:
            sentence = f"{record.name} points at {answer.values[0]}."
            found.append(Finding("mail-record-elsewhere", False, sentence, create))
        else:
            found.append(Finding("mail-record-missing", False, f"{record.name} is not there yet.", create))
    return found
