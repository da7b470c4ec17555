"""DMARC (RFC 7489): which policy holds for a sending domain, which record makes which alignment pass, and what is
wrong at the ends of the mail records. Links work without any of it, so no finding here is fatal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from brandproxy.core import dkim
from brandproxy.core.domains import registered
from brandproxy.core.records import (
    Finding,
    MailNames,
    Observation,
    Seen,
    Wanted,
    bounce_name,
    mail_domain,
    selector_name,
)
from brandproxy.model import Host

_NO_RECORD = Seen("failed")


@dataclass(frozen=True, slots=True)
class Alignment:
    """Mail from `sender` by one mechanism. `relaxed`, `strict`: whether `identity` aligns in that mode (RFC 7489
    §3.1); `mode` is the one the policy asks for; `passes`: it aligns so, and its records are right."""

    sender: str
    mechanism: str  # DKIM or SPF
    identity: str  # the d= of the signature, or the return-path's domain
    relaxed: bool
    strict: bool
    mode: str  # relaxed or strict
    passes: bool
    by: str  # the records that make it so


@dataclass(frozen=True, slots=True)
class Policy:
    domain: str  # where it stands
    adkim: str
    aspf: str


def questions(host: Host, mail: MailNames) -> list[tuple[str, str]]:
    """(type, name) to be looked for at the ends of CNAMEs, beside the records themselves."""
    domain, found = mail_domain(host), list[tuple[str, str]]()
    if mail.dkim_domain:
        found += [("TXT", selector_name(selector, domain)) for selector in mail.selectors]
    if mail.bounce_host:
        found += [("TXT", bounce_name(domain)), ("MX", bounce_name(domain))]
    if found:
        found += [("TXT", f"_dmarc.{name}") for name in senders(domain)]
    return found


def senders(domain: str) -> list[str]:
    """The domains mail is sent from: the sending domain, and the registered one above it."""
    return list(dict.fromkeys((domain, registered(domain))))


def policy(sender: str, seen: Observation) -> Policy | None:
    """The policy of the sender's domain or, where it has none, of the registered domain (RFC 7489 §6.6.3)."""
    for name in senders(sender):
        records = _dmarc(seen, name)
        if len(records) == 1:
            tags = _tags(records[0])
            return Policy(name, _mode(tags.get("adkim", "r")), _mode(tags.get("aspf", "r")))
    return None


def alignments(host: Host, mail: MailNames, seen: Observation) -> list[Alignment]:
    """Each sender by each mechanism. Without a policy the modes are the relaxed ones it would begin with."""
    domain, found = mail_domain(host), list[Alignment]()
    for sender in senders(domain):
        rule = policy(sender, seen) or Policy("", "relaxed", "relaxed")
        if mail.dkim_domain:
            names = [selector_name(selector, domain) for selector in mail.selectors]
            signed = any(_has_key(seen, name) for name in names)
            found.append(_aligned(sender, "DKIM", domain, rule.adkim, signed, " ".join(names)))
        if mail.bounce_host:
            name = bounce_name(domain)
            found.append(_aligned(sender, "SPF", name, rule.aspf, len(_spf(seen, name)) == 1, name))
    return found


def by_hand(record: Wanted, seen: Observation) -> tuple[str, ...]:
    """What does the work of a wanted CNAME at the name itself: a usable key, or one SPF record with an MX.

    It holds until we change something behind our own name; then the customer has to follow.
    """
    if record.type != "CNAME" or record.needed or seen.mail.get((record.type, record.name), _NO_RECORD).values:
        return ()
    txt, mx = (seen.ends.get((kind, record.name), _NO_RECORD).values for kind in ("TXT", "MX"))
    if "._domainkey." in record.name:
        return txt if _has_key(seen, record.name) else ()
    spf = _spf(seen, record.name)
    return (*spf, *mx) if mx and len(spf) == 1 else ()


def _aligned(sender: str, mechanism: str, identity: str, mode: str, right: bool, by: str) -> Alignment:
    relaxed, strict = registered(identity) == registered(sender), identity == sender
    return Alignment(
        sender, mechanism, identity, relaxed, strict, mode, right and (strict if mode == "strict" else relaxed), by
    )


def health(host: Host, mail: MailNames, seen: Observation) -> list[Finding]:
    """What is wrong behind records that are right, and with the policy."""
    return [*_keys(host, mail, seen), *_bounces(host, mail, seen), *_policies(host, mail, seen)]


def _keys(host: Host, mail: MailNames, seen: Observation) -> Iterator[Finding]:
    names = [selector_name(selector, mail_domain(host)) for selector in mail.selectors if mail.dkim_domain]
    names = [name for name in names if _stands(seen, name)]
    answers = [seen.ends.get(("TXT", name), _NO_RECORD) for name in names]
    for name, answer in zip(names, answers, strict=True):
        for value in answer.values:
            if reason := dkim.fault(value):
                yield Finding(
                    "dkim-key-bad", False, f"The DKIM key at {name} cannot be used: {reason}.",
                    "This is for the operator: publish the signer's key with `brandproxy dkim publish`.",
                )  # fmt: skip
    if names and not any(answer.values or answer.status == "failed" for answer in answers):
        yield Finding(
            "dkim-key-missing", False, f"None of the DKIM selectors of {mail_domain(host)} leads to a key.",
            "This is for the operator: publish the signer's key with `brandproxy dkim publish`.",
        )  # fmt: skip


def _bounces(host: Host, mail: MailNames, seen: Observation) -> Iterator[Finding]:
    name = bounce_name(mail_domain(host))
    if not mail.bounce_host or not _stands(seen, name):
        return
    txt, mx = (seen.ends.get((kind, name), _NO_RECORD) for kind in ("TXT", "MX"))
    if txt.status != "failed" and len(_spf(seen, name)) != 1:
        many = (
            "more than one SPF record, which is an error (RFC 7208 §4.5)" if _spf(seen, name) else "no SPF record"
        )
        yield Finding(
            "spf-missing", False, f"{name} leads to {many}.",
            f"This is for the operator: {mail.bounce_host} needs one TXT record that begins with v=spf1.",
        )  # fmt: skip
    if mx.status != "failed" and not mx.values:
        yield Finding(
            "bounce-mx-missing", False, f"{name} takes no mail, so bounces get lost.",
            f"This is for the operator: {mail.bounce_host} needs an MX record.",
        )  # fmt: skip


def _policies(host: Host, mail: MailNames, seen: Observation) -> Iterator[Finding]:
    if not (mail.dkim_domain or mail.bounce_host):
        return
    names = senders(mail_domain(host))
    if any(seen.ends.get(("TXT", f"_dmarc.{name}"), _NO_RECORD).status == "failed" for name in names):
        return
    for name in names:
        if len(_dmarc(seen, name)) > 1:
            yield Finding(
                "dmarc-double", False, f"_dmarc.{name} has more than one DMARC record, so none of them holds.",
                "Remove all but one (RFC 7489 §6.6.3).",
            )  # fmt: skip
            return
    if policy(names[0], seen) is None:
        yield Finding(
            "dmarc-missing", False, f"{names[-1]} has no DMARC policy; large mailbox providers ask for one.",
            f'Create: _dmarc.{names[-1]}. TXT "v=DMARC1; p=none"',
        )  # fmt: skip
    for one in alignments(host, mail, seen):
        if one.mode == "strict" and not one.strict:
            tag = "adkim" if one.mechanism == "DKIM" else "aspf"
            yield Finding(
                "alignment-strict", False,
                f"Mail from {one.sender} is not aligned by {one.mechanism}: {one.identity} is another name, and "
                f"the policy is strict ({tag}=s).",
                f"Let {'SPF' if tag == 'adkim' else 'DKIM'} align instead, or change {tag} to r.",
            )  # fmt: skip


def _stands(seen: Observation, name: str) -> bool:
    """Whether the CNAME is there at all; without it there is nothing to say about its end."""
    return bool(seen.mail.get(("CNAME", name), _NO_RECORD).values)


def _has_key(seen: Observation, name: str) -> bool:
    return any(not dkim.fault(value) for value in seen.ends.get(("TXT", name), _NO_RECORD).values)


def _spf(seen: Observation, name: str) -> list[str]:
    values = seen.ends.get(("TXT", name), _NO_RECORD).values
    return [value for value in values if value.lower() == "v=spf1" or value.lower().startswith("v=spf1 ")]


def _dmarc(seen: Observation, name: str) -> list[str]:
    values = seen.ends.get(("TXT", f"_dmarc.{name}"), _NO_RECORD).values
    return [value for value in values if value.replace(" ", "").startswith("v=DMARC1")]


def _mode(tag: str) -> str:
    return "strict" if tag.lower() == "s" else "relaxed"


def _tags(record: str) -> dict[str, str]:
    parts = [part.partition("=") for part in record.split(";") if part.strip()]
    return {name.strip().lower(): value.strip() for name, _, value in parts}
