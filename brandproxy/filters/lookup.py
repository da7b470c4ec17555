"""Whose message is it? Asked once per message, answered from memory.

Who brought it decides what it may be; the first that is there:
1. the API key (HTTP, login at the proxy): its tenant; an operator's key: any
2. the login at the mail server (milter `{auth_authen}`, XCLIENT LOGIN): its entry in `mail.logins` or the store's
   map, `user` or `user@domain` before `*@domain`. A login that is not listed is nobody, wherever it comes from
3. the listener it came to: `mail.listeners`
4. the network of the client: `mail.peers`
5. nothing of these: nobody's

Within that grant, hints say which tenant; the first that is there:
1. header `X-Brandproxy-Tenant`, where the grant believes it; a tenant outside the grant: nobody's
2. the grant's one tenant
3. the domain of the envelope sender, then of `From:`: the one tenant of the grant whose it is (`owners`)

And what it sends as must be its own: sender domains as the grant lists them; where it lists none, an author in
another tenant's domain makes the message nobody's. Who logs in at the proxy with a tenant's API key sends as that
tenant only, in `From:` and in the envelope.

Invariant: nobody signs links in another's name. Sender domains and headers never give a right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from brandproxy import grants
from brandproxy.config import Mail
from brandproxy.core import domains, names
from brandproxy.directory import Directory
from brandproxy.errors import BadInput
from brandproxy.filters.peers import Peers
from brandproxy.grants import ANY, Grant
from brandproxy.identities import Book
from brandproxy.store import Change, keys

NOBODY = "no identity"
LOGIN, TENANT, NAMELESS, SENDER = "login not listed", "tenant not allowed", "no tenant named", "sender not allowed"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who brought a message, as authenticated. `strict`: it sends as its tenant's own senders only."""

    key: Grant | None = None
    login: str = ""
    listener: Grant | None = None
    address: IPv4Address | IPv6Address | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Hints:
    """What a message says of itself. `authors` gives the addresses in `From:`, None while they are not known."""

    header: str = ""
    sender: str = ""
    authors: Callable[[], Sequence[str]] | None = None

    def addresses(self) -> list[str]:
        return [address for address in (self.sender, *(self.authors() if self.authors else ())) if address]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The tenant's slug, whether it exists or not; or "" and the reason."""

    tenant: str
    reason: str = ""


class Lookup:
    """`book`: the map of logins and the proven sending domains of the store."""

    def __init__(self, directory: Directory, mail: Mail, book: Book | None = None) -> None:
        self._directory = directory
        self._logins = mail.logins
        self._book = book or Book()
        self._peers = [(Peers((text,)), grant) for text, grant in mail.peers.items()]
        self._by_domain: dict[str, frozenset[str]] | None = None
        directory.changed.append(self._changed)

    def decide(self, who: Identity, hints: Hints) -> Verdict:
        grant, reason = self._grant(who)
        if grant is None:
            return Verdict("", reason)
        slug = self._tenant(grant, hints)
        if not slug:
            return Verdict("", NAMELESS)
        if not grant.covers(slug):
            return Verdict("", TENANT)
        return Verdict(slug) if self._sends_as(who, grant, slug, hints) else Verdict("", SENDER)

    def claims(self, hints: Hints) -> bool:
        """Whether a message looks like a tenant's, whoever brought it."""
        return bool(hints.header) or any(self.owners(_domain(address)) for address in hints.addresses())

    def owners(self, domain: str) -> frozenset[str]:
        """Whose sender domain it is. Asked of the domain, then of each parent; the first that tells:

        1. the tenant that has proven it as a sending domain
        2. the tenants with proven hosts under it
        """
        known, senders = self._domains(), self._book.senders
        for parent in _parents(domain):
            if parent in senders:
                return frozenset((senders[parent],))
            if parent in known:
                return known[parent]
        return frozenset()

    def _grant(self, who: Identity) -> tuple[Grant | None, str]:
        if who.key is not None:
            return who.key, ""
        if who.login:
            found = (self._logins.get(at) or self._book.login(at) for at in grants.patterns(who.login))
            return next(filter(None, found), None), LOGIN
        if who.listener is not None:
            return who.listener, ""
        near = next((grant for peers, grant in self._peers if who.address and who.address in peers), None)
        return near, NOBODY

    def _tenant(self, grant: Grant, hints: Hints) -> str:
        if hints.header and grant.header:
            return hints.header
        if grant.sole:
            return grant.sole
        for address in hints.addresses():
            covered = [tenant for tenant in self.owners(_domain(address)) if grant.covers(tenant)]
            if len(covered) == 1:
                return covered[0]
        return ""

    def _sends_as(self, who: Identity, grant: Grant, slug: str, hints: Hints) -> bool:
        if ANY in grant.domains:
            return True
        authors = list(hints.authors()) if hints.authors else None
        if who.strict and authors == []:  # what says no author cannot be judged
            return False
        addresses = [*(authors or ()), *([hints.sender] if who.strict and hints.sender else ())]
        return all(self._is_own(who.strict, grant, slug, _domain(address)) for address in addresses)

    def _is_own(self, strict: bool, grant: Grant, slug: str, domain: str) -> bool:
        if any(domain == own or domain.endswith("." + own) for own in grant.domains):
            return True
        owners = self.owners(domain)
        if strict:
            return owners == {slug}
        return not grant.domains and (not owners or slug in owners)

    def _domains(self) -> dict[str, frozenset[str]]:
        """Every domain that has hosts under it, with whose they are; made anew after a host changed."""
        if self._by_domain is None:
            found: dict[str, set[str]] = {}
            for host in self._directory.hosts():
                for parent in _parents(host.name) if host.proven else ():
                    found.setdefault(parent, set()).add(host.tenant)
            self._by_domain = {domain: frozenset(tenants) for domain, tenants in found.items()}
        return self._by_domain

    def _changed(self, change: Change) -> None:
        if change.key.startswith(keys.HOST):
            self._by_domain = None


@lru_cache(maxsize=1 << 14)
def _domain(address: str) -> str:
    """The domain as hosts are named; what cannot be one stays as it is, and is nobody's."""
    text = address.rpartition("@")[2]
    try:
        return names.hostname(text)
    except BadInput:
        return text.lower()


@lru_cache(maxsize=1 << 17)
def _parents(domain: str) -> tuple[str, ...]:
    """`a.b.example` and what it lies under, down to the registered domain: what is above belongs to many."""
    labels, last = domain.split("."), domains.registered(domain).count(".") + 1
    if last < 2:
        return ()
    return tuple(".".join(labels[at:]) for at in range(len(labels) - last + 1))
