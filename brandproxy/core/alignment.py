"""DMARC (RFC 7489): which policy holds for a sending domain, which record makes which alignment pass, and what is
wrong at the ends of the mail records. Links work without any of it, so no finding here is fatal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from brandproxy.core import dkim
from brandproxy.core.domains import registered
from brandproxy.core.records import Finding, Observation, Seen, Wanted
from brandproxy.core.senders import Sending, through

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


def questions(sending: Sending) -> list[tuple[str, str]]:
    """(type, name) to be looked for at the ends of CNAMEs, beside the records themselves."""
    found = [("TXT", name) for name in sending.selector_names.values()]
    if sending.bounce:
        found += [("TXT", sending.bounce), ("MX", sending.bounce)]
    if found:
        found += [("TXT", f"_dmarc.{name}") for name in senders(sending.domain)]
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


def alignments(sending: Sending | None, seen: Observation) -> list[Alignment]:
    """Each sender by each mechanism. Without a policy the modes are the relaxed ones it would begin with."""
    if sending is None:
        return []
    found, names = list[Alignment](), sending.selector_names
    for sender in senders(sending.domain):
        rule = policy(sender, seen) or Policy("", "relaxed", "relaxed")
        if names:
            signed = any(sending.has_key(selector, seen) for selector in names)
            found.append(_aligned(sender, "DKIM", sending.domain, rule.adkim, signed, " ".join(names.values())))
        if name := sending.bounce:
            found.append(_aligned(sender, "SPF", name, rule.aspf, _returns(sending, seen), name))
    return found


def _returns(sending: Sending, seen: Observation) -> bool:
    """Whether the bounce host has one SPF record, and one of ours where it is a CNAME."""
    led = through(seen, sending.bounce)
    return len(_spf(seen, sending.bounce)) == 1 and (not led or bool(set(led) & set(sending.bounce_targets)))


def leads(record: Wanted, seen: Observation) -> bool:
    """Whether a record wanted for mail leads to its value, at once or over other names."""
    return bool({record.value, *record.also} & set(through(seen, record.name)))


def by_hand(record: Wanted, seen: Observation, sending: Sending | None) -> tuple[str, ...]:
    """What does the work of a wanted CNAME at the name itself: the key we published, or one SPF record with an MX.

    It holds until we change something behind our own name; then the customer has to follow.
    """
    if sending is None or record.type != "CNAME" or record.needed or through(seen, record.name):
        return ()
    txt, mx = (seen.ends.get((kind, record.name), _NO_RECORD).values for kind in ("TXT", "MX"))
    for selector, name in sending.selector_names.items():
        if name == record.name:
            return txt if sending.has_key(selector, seen) else ()
    spf = _spf(seen, record.name)
    return (*spf, *mx) if mx and len(spf) == 1 else ()


def _aligned(sender: str, mechanism: str, identity: str, mode: str, right: bool, by: str) -> Alignment:
    relaxed, strict = registered(identity) == registered(sender), identity == sender
    return Alignment(
        sender, mechanism, identity, relaxed, strict, mode, right and (strict if mode == "strict" else relaxed), by
    )


def health(sending: Sending | None, seen: Observation) -> list[Finding]:
    """What is wrong behind records that are right, and with the policy."""
    if sending is None:
        return []
    return [*_keys(sending, seen), *_bounces(sending, seen), *_policies(sending, seen)]


def _keys(sending: Sending, seen: Observation) -> Iterator[Finding]:
    led, silent = False, False
    for selector, name in sending.selector_names.items():
        answer, own = seen.ends.get(("TXT", name), _NO_RECORD), through(seen, name)
        ours = bool(set(own) & set(sending.key_names(selector)))
        led, silent = led or ours, silent or answer.status == "failed"
        if ours:
            yield from _behind(name, answer, sending.has_key(selector, seen))
        elif answer.values and not sending.has_key(selector, seen):
            yield Finding(
                "dkim-key-other", False, f"{name} has a key that is not ours: mail we send does not verify by it.",
                f"Replace it by: {name}. CNAME {sending.key_names(selector)[0]}.",
            )  # fmt: skip
    found = any(sending.has_key(selector, seen) for selector in sending.selector_names)
    if led and not found and not silent:
        yield Finding(
            "dkim-key-missing", False, f"None of the DKIM selectors of {sending.domain} leads to a key of ours.",
            "This is for the operator: publish the signer's key with `brandproxy dkim publish`.",
        )  # fmt: skip


def _behind(name: str, answer: Seen, right: bool) -> Iterator[Finding]:
    """What is wrong with a key at our own name."""
    fix = "This is for the operator: publish the signer's key with `brandproxy dkim publish`."
    reason = next(filter(None, map(dkim.fault, answer.values)), "")
    if reason:
        yield Finding("dkim-key-bad", False, f"The DKIM key at {name} cannot be used: {reason}.", fix)
    elif len(answer.values) > 1:
        yield Finding("dkim-key-bad", False, f"{name} leads to two DKIM records, of which none holds.", fix)
    elif answer.values and not right:
        yield Finding("dkim-key-other", False, f"{name} leads to another key than was published.", fix)


def _bounces(sending: Sending, seen: Observation) -> Iterator[Finding]:
    name = sending.bounce
    led = through(seen, name) if name else ()
    target = next((one for one in sending.bounce_targets if one in led), "")
    if not target:
        return
    txt, mx = (seen.ends.get((kind, name), _NO_RECORD) for kind in ("TXT", "MX"))
    if txt.status != "failed" and len(_spf(seen, name)) != 1:
        many = (
            "more than one SPF record, which is an error (RFC 7208 §4.5)" if _spf(seen, name) else "no SPF record"
        )
        yield Finding(
            "spf-missing", False, f"{name} leads to {many}.",
            f"This is for the operator: {target} needs one TXT record that begins with v=spf1.",
        )  # fmt: skip
    if mx.status != "failed" and not mx.values:
        yield Finding(
            "bounce-mx-missing", False, f"{name} takes no mail, so bounces get lost.",
            f"This is for the operator: {target} needs an MX record.",
        )  # fmt: skip


def _policies(sending: Sending, seen: Observation) -> Iterator[Finding]:
    if not (sending.selector_names or sending.bounce):
        return
    names = senders(sending.domain)
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
    for one in alignments(sending, seen):
        if one.mode == "strict" and not one.strict:
            tag = "adkim" if one.mechanism == "DKIM" else "aspf"
            yield Finding(
                "alignment-strict", False,
                f"Mail from {one.sender} is not aligned by {one.mechanism}: {one.identity} is another name, and "
                f"the policy is strict ({tag}=s).",
                f"Let {'SPF' if tag == 'adkim' else 'DKIM'} align instead, or change {tag} to r.",
            )  # fmt: skip


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
