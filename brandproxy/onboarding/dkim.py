"""The public DKIM keys that customers' selectors lead to: `<selector>.<tenant>.<dns.dkim_domain>`, in a zone of
the operator's, by RFC 2136. Private keys stay with the signer; DNS itself is where the public ones are kept.

A key rotates without the customer: publish the next one under the idle selector, let the signer use it once every
name server shows it, and withdraw the old one when mail signed with it has been delivered.
"""

from __future__ import annotations

from dataclasses import dataclass

from brandproxy.context import Context
from brandproxy.core import dkim
from brandproxy.core.records import Seen
from brandproxy.dnsupdate import Updater, open_updater
from brandproxy.errors import BadInput, BadSettings, Conflict
from brandproxy.onboarding.looking import Looker
from brandproxy.tenants import Registry


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`record` is what stands in DNS, empty: none; `fault` tells why verifiers would not take it."""

    selector: str
    name: str
    record: str
    fault: str
    everywhere: bool  # all name servers of the zone have it


class PublicKeys:
    """Of one tenant. All methods raise UpdateAway, UpdateRefused, BadSettings."""

    def __init__(self, context: Context, tenant: str, registry: Registry | None = None) -> None:
        self._context, self._tenant = context, tenant
        self._registry = registry or context.registry
        self._looker = Looker(context.settings)

    async def all(self) -> list[PublicKey]:
        """One for each selector; none where no keys are kept here."""
        mail = self._looker.mail
        return [await self._of(selector) for selector in mail.selectors] if mail.dkim_domain else []

    async def publish(self, selector: str, text: str) -> PublicKey:
        """Put the signer's public key in DNS. Raises BadInput for what is none."""
        name, record = self._name(selector), dkim.key_record(text)
        await self._registry.tenant(self._tenant)
        strings = [f'"{record[at : at + 255]}"' for at in range(0, len(record), 255)]
        await self._updater().replace(await self._zone(name), name, "TXT", " ".join(strings))
        await self._registry.audit("dkim.publish", name, tenant=self._tenant)
        return await self._of(selector)

    async def withdraw(self, selector: str) -> None:
        """Take a key out of DNS. Raises Conflict for the last one that works."""
        name = self._name(selector)
        others = [key for key in await self.all() if key.selector != selector]
        if not any(key.record and not key.fault for key in others):
            raise Conflict(
                f"no other selector of {self._tenant} has a key", "Publish the next key first, and sign with it."
            )
        await self._updater().replace(await self._zone(name), name, "TXT")
        await self._registry.audit("dkim.withdraw", name, tenant=self._tenant)

    async def _of(self, selector: str) -> PublicKey:
        name = self._name(selector)
        found: Seen = await self._looker.resolver.look(name, "TXT")
        record = found.values[0] if found.values else ""
        fault = "DNS did not answer" if found.status == "failed" else dkim.fault(record) if record else ""
        whole = bool(record) and await self._looker.resolver.everywhere(name, "TXT", record)
        return PublicKey(selector, name, record, fault, whole)

    def _name(self, selector: str) -> str:
        if not self._looker.mail.dkim_domain:
            raise BadInput("no DKIM keys are kept here", "Set dns.dkim_domain to the zone that shall hold them.")
        known = self._looker.mail.selectors
        if selector not in known:
            raise BadInput(f"no selector {selector!r}", f"dns.dkim_selectors has {', '.join(known)}.")
        return self._looker.mail.key_name(selector, self._tenant)

    async def _zone(self, name: str) -> str:
        """The zone of ours that the name lies in."""
        above = self._looker.mail.dkim_domain
        while "." in above:
            if await self._looker.resolver.apex(above):
                return above
            above = above.partition(".")[2]
        raise BadSettings(f"{name} lies in no zone that answers", "Check dns.dkim_domain and its name servers.")

    def _updater(self) -> Updater:
        updater = open_updater(self._context.settings.dns)
        if updater is None:
            raise BadSettings("no primary is set that takes updates", "Set dns.update_server and dns.update_key.")
        return updater
