"""Sending domains: the records a claim asks for, what proves it, and how claims of one domain move. Pure.

1. any number of tenants claim a domain; one at most has it (`holder`): the first whose records lead to its own
   label, or whom the operator vouched for
2. what is given out is never given again: a claim that ends takes its label with it
3. doubt moves nothing: records that lead to two claims at once prove neither of them anew
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from brandproxy.core import dkim
from brandproxy.core.domains import registered
from brandproxy.core.records import Finding, Observation, Seen, Verdict, Wanted
from brandproxy.errors import Conflict, NotFound
from brandproxy.model import Host, Sender, SenderState

Claims = tuple[Sender, ...]  # of one domain, the oldest first; one a tenant
_NOT_SEEN = Seen("failed")


@dataclass(frozen=True, slots=True)
class MailNames:
    """The ESP's side of DKIM and return-path; empty: not part of what is asked of customers."""

    dkim_domain: str = ""
    selectors: tuple[str, ...] = ()
    bounce_host: str = ""

    def key_name(self, selector: str, label: str) -> str:
        """Where the public key of a claim stands; customers' selectors are CNAMEs to it."""
        return f"{selector}.{label}.{self.dkim_domain}"


@dataclass(frozen=True, slots=True)
class Sending:
    """A tenant's claim beside all that its records are judged by. `published`: selector to the key record that we
    put behind it, where we did. `contested`: the domain is proven for another tenant."""

    sender: Sender
    mail: MailNames
    published: Mapping[str, str] = field(default_factory=dict)
    contested: bool = False

    @property
    def domain(self) -> str:
        return self.sender.domain

    @property
    def selector_names(self) -> dict[str, str]:
        """Selector to its name in the customer's domain; empty where no DKIM is asked for."""
        asked = self.mail.selectors if self.mail.dkim_domain and not self.contested else ()
        return {selector: selector_name(selector, self.domain) for selector in asked}

    @property
    def bounce(self) -> str:
        """The customer's bounce host; empty: not asked for."""
        return bounce_name(self.domain) if self.mail.bounce_host and not self.contested else ""

    @property
    def bounce_targets(self) -> tuple[str, ...]:
        """Where it may lead, best first."""
        own = f"{self.sender.label}.{self.mail.bounce_host}"
        return (own, self.mail.bounce_host) if self.sender.by_slug else (own,)

    def key_names(self, selector: str) -> tuple[str, ...]:
        return key_names(self.sender, self.mail, selector)

    def has_key(self, selector: str, seen: Observation) -> bool:
        """Whether verifiers find our key there: behind CNAMEs that lead to this claim's own name or, by hand, a
        key equal to the one we published. Two records at one name are none (RFC 6376 §3.6.2.2)."""
        name = selector_name(selector, self.domain)
        values = seen.ends.get(("TXT", name), _NOT_SEEN).values
        if len(values) != 1 or dkim.fault(values[0]):
            return False
        led, ours = through(seen, name), self.published.get(selector)
        if led and not set(led) & set(self.key_names(selector)):
            return False
        if ours is None:  # kept in a zone of the operator's that we do not write to
            return bool(led)
        return dkim.same_key(values[0], ours)


def key_names(claim: Sender, mail: MailNames, selector: str) -> tuple[str, ...]:
    """Where a selector may lead: the claim's own name, and the older one by the tenant's slug."""
    owners = (claim.label, claim.tenant) if claim.by_slug else (claim.label,)
    return tuple(mail.key_name(selector, owner) for owner in owners)


def through(seen: Observation, name: str) -> tuple[str, ...]:
    """The names that CNAMEs lead to from here."""
    return seen.chains.get(name, ()) or seen.mail.get(("CNAME", name), _NOT_SEEN).values


def mail_domain(host: Host) -> str:
    """The domain of the sender that comes with a host: the delegated zone, else the name above the link host."""
    return host.zone or (host.name if registered(host.name) == host.name else host.name.partition(".")[2])


def selector_name(selector: str, domain: str) -> str:
    return f"{selector}._domainkey.{domain}"


def bounce_name(domain: str) -> str:
    return f"bounce.{domain}"


def mail_records(sending: Sending | None, ours: bool = False) -> list[Wanted]:
    """DKIM selectors as CNAMEs, two at least, so that keys rotate without the customer; the bounce host. None for
    a domain that is another tenant's: the records would take it from there."""
    found: list[Wanted] = []
    if sending is None:
        return found
    why = "signs your mail; with two of them keys change without you"
    for selector, name in sending.selector_names.items():
        target, *also = sending.key_names(selector)
        found.append(Wanted("CNAME", name, target, why, False, ours, tuple(also)))
    if sending.bounce:
        why = "return-path of your mail, so that SPF passes under your own name"
        target, *also = sending.bounce_targets
        found.append(Wanted("CNAME", sending.bounce, target, why, False, ours, tuple(also)))
    return found


def contested(sending: Sending | None) -> list[Finding]:
    if sending is None or not sending.contested:
        return []
    sentence = f"Mail from {sending.domain} is already set up for another account."
    fix = "If that is over, ask whoever sent you this page to transfer the sending domain to this account."
    return [Finding("sender-contested", False, sentence, fix)]


def proof(claim: Sender, mail: MailNames, leads: Mapping[str, Seen]) -> Verdict:
    """Whether a domain's selectors lead to this claim. `leads`: selector to the names its CNAMEs lead through."""
    own = {one for one in leads if set(key_names(claim, mail, one)) & set(leads[one].values)}
    if own:
        astray = [one for one in leads if one not in own and _ours(leads[one], mail)]
        return Verdict.UNKNOWN if astray else Verdict.PROVEN
    return Verdict.UNKNOWN if any(seen.status == "failed" for seen in leads.values()) else Verdict.ABSENT


def _ours(seen: Seen, mail: MailNames) -> bool:
    return any(name.endswith(f".{mail.dkim_domain}") for name in seen.values)


def holder(claims: Claims) -> Sender | None:
    """The claim that is proven."""
    return next((claim for claim in claims if claim.state is SenderState.PROVEN), None)


def claim_of(claims: Claims, tenant: str) -> Sender | None:
    return next((claim for claim in claims if claim.tenant == tenant), None)


def added(claims: Claims, claim: Sender) -> Claims:
    """Raises Conflict when the tenant claims the domain already."""
    if claim_of(claims, claim.tenant):
        raise Conflict(f"tenant {claim.tenant!r} claims {claim.domain} already", "See `brandproxy sender show`.")
    return (*claims, claim)


def chosen(claims: Claims, domain: str, tenant: str = "") -> Sender:
    """The claim that is meant: the tenant's; without one the only one, or the one that is proven.

    Raises NotFound, Conflict (several, and nobody has proven it).
    """
    if tenant:
        found = claim_of(claims, tenant)
    else:
        found = holder(claims) or (claims[0] if len(claims) == 1 else None)
        if found is None and claims:
            raise Conflict(f"several tenants claim {domain}, none has proven it", "Say whose: `--tenant`.")
    if found is None:
        whose = f" of tenant {tenant!r}" if tenant else ""
        raise NotFound(f"no sender {domain}{whose}", "See `brandproxy sender list`.")
    return found


def without(claims: Claims, label: str) -> Claims:
    return tuple(claim for claim in claims if claim.label != label)


def given(claims: Claims, label: str, to: Sender) -> Claims:
    """The claim of this label ends; `to` has one from now on, its own older one where there is one."""
    rest = without(claims, label)
    return rest if claim_of(rest, to.tenant) else (*rest, to)


def moved(claims: Claims, label: str, state: SenderState, reason: str, now: int, vouched: bool = False) -> Claims:
    """The claim of this label in another state; the same claims when it has gone, or another is proven.

    What the operator vouched for is not broken by DNS.
    """
    claim = next((one for one in claims if one.label == label), None)
    has = holder(claims)
    if claim is None or (state is SenderState.PROVEN and has not in (None, claim)):
        return claims
    if (claim.state, claim.vouched) == (state, vouched) or (claim.vouched and not vouched):
        return claims
    since = now if claim.state is not state else claim.since
    after = replace(claim, state=state, reason=reason, since=since, vouched=vouched)
    return tuple(after if one is claim else one for one in claims)
