"""The public DKIM keys that customers' selectors lead to: `<selector>.<label>.<dns.dkim_domain>`, in a zone of the
operator's, by RFC 2136. The label is the sender's own, so a key goes when its sender does. Private keys stay with
the signer; what shall stand in DNS is kept in the store.

A key rotates without the customer: publish the next one under the idle selector, let the signer use it once every
name server shows it, and withdraw the old one when mail signed with it has been delivered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from brandproxy.context import Context
from brandproxy.core import dkim
from brandproxy.core.records import Seen
from brandproxy.errors import BadInput, Conflict, NotFound
from brandproxy.model import Sender
from brandproxy.onboarding.looking import Looker
from brandproxy.senders import mail_names
from brandproxy.senders.publication import Record
from brandproxy.tenants import Registry


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`record` is what stands in DNS, empty: none; `fault` tells why verifiers would not take it."""

    selector: str
    name: str
    record: str
    fault: str
    everywhere: bool  # all name servers of the zone have it
    domain: str = (
        ""  # the sender whose mail is signed with it; empty: by the tenant's slug, for all its older ones
    )


_Place = tuple[str, str, str]  # label (or old slug), the sender's domain, the name in DNS


class PublicKeys:
    """Of one tenant, by its slug, or of one sender, by its domain. All methods raise UpdateAway, UpdateRefused,
    BadSettings, NotFound. `tenant`: whose claim is meant, where several have the domain."""

    def __init__(self, context: Context, whose: str, registry: Registry | None = None, tenant: str = "") -> None:
        self._whose, self._tenant = whose, tenant
        self._registry = registry or context.registry
        self._looker = Looker(context.settings)
        self._mail = mail_names(context.settings.dns)
        self._publication = self._registry.senders.publication

    async def all(self) -> list[PublicKey]:
        """One for each sender and selector; none where no keys are kept here."""
        if not self._mail.dkim_domain:
            return []
        claims = await self._claims(must=False)
        return [await self._of(one, place) for one in self._mail.selectors for place in self._places(one, claims)]

    async def publish(self, selector: str, text: str) -> list[PublicKey]:
        """Put the signer's public key in DNS, for every sender that is meant. Raises BadInput for what is none."""
        self._check(selector)
        record = dkim.key_record(text)
        claims = await self._claims()
        places = self._places(selector, claims)
        for label, domain, name in places:
            await self._publication.put(label, selector, Record(name, claims[0].tenant, domain, record))
            await self._registry.audit("dkim.publish", name, tenant=claims[0].tenant, after=record)
        return [await self._of(selector, place) for place in places]

    async def withdraw(self, selector: str) -> None:
        """Take a key out of DNS. Raises Conflict for the last one of a sender that works."""
        self._check(selector)
        claims = await self._claims()
        for claim in claims:
            works = [await self._works(claim, other) for other in self._mail.selectors if other != selector]
            if not any(works):
                raise Conflict(
                    f"no other selector of {claim.domain} has a key",
                    "Publish the next key first, and sign with it.",
                )
        for label, domain, name in self._places(selector, claims):
            known = (await self._publication.of(label)).get(selector)
            if domain or known:
                record = known or Record(name, claims[0].tenant, domain)
                await self._publication.put(label, selector, replace(record, record=""))
                await self._registry.audit("dkim.withdraw", name, tenant=claims[0].tenant)

    async def _works(self, claim: Sender, selector: str) -> bool:
        found = [await self._of(selector, place) for place in self._places(selector, (claim,))]
        return any(key.record and not key.fault for key in found)

    async def _claims(self, must: bool = True) -> tuple[Sender, ...]:
        """The senders meant, of one tenant."""
        await self._registry.bring_up()
        if "." in self._whose:  # no slug has one, and every domain
            return (await self._registry.senders.get(self._whose, self._tenant),)
        await self._registry.tenant(self._whose)
        found = tuple(claim for claim in await self._registry.senders.all() if claim.tenant == self._whose)
        if must and not found:
            raise NotFound(
                f"tenant {self._whose!r} has no sending domain",
                f"Add one: `brandproxy sender add acme.com --tenant {self._whose}`.",
            )
        return found

    def _places(self, selector: str, claims: tuple[Sender, ...]) -> list[_Place]:
        """Where the selector's key stands for these senders: their own names, and by slug for older ones."""
        name = self._mail.key_name
        found = [(claim.label, claim.domain, name(selector, claim.label)) for claim in claims]
        by_slug = {
            claim.tenant: (claim.tenant, "", name(selector, claim.tenant)) for claim in claims if claim.by_slug
        }
        return [*found, *by_slug.values()]

    async def _of(self, selector: str, place: _Place) -> PublicKey:
        _, domain, name = place
        found: Seen = await self._looker.resolver.look(name, "TXT")
        record = found.values[0] if found.values else ""
        fault = "DNS did not answer" if found.status == "failed" else dkim.fault(record) if record else ""
        whole = bool(record) and await self._looker.resolver.everywhere(name, "TXT", record)
        return PublicKey(selector, name, record, fault, whole, domain)

    def _check(self, selector: str) -> None:
        if not self._mail.dkim_domain:
            raise BadInput("no DKIM keys are kept here", "Set dns.dkim_domain to the zone that shall hold them.")
        if selector not in self._mail.selectors:
            raise BadInput(
                f"no selector {selector!r}", f"dns.dkim_selectors has {', '.join(self._mail.selectors)}."
            )
