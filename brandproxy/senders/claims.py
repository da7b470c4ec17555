"""The claims to sending domains in the store: the only place that writes them, with an audit entry for each write.

All claims of a domain are one value, `sender/<domain>`, so that one compare-and-set decides who has it. A label is
given out once: its tombstone is made first, and stays. What stands in DNS under the label of a claim that ended is
revoked (`publication`), by whoever ended it or, where that died, by the sweep.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from brandproxy.config import Settings
from brandproxy.core import domains, names
from brandproxy.core import senders as rules
from brandproxy.core.differences import difference
from brandproxy.core.senders import Claims
from brandproxy.errors import BadInput, Conflict, NotFound
from brandproxy.model import Approach, Host, Sender, SenderState
from brandproxy.senders.publication import BOUNCE, Publication, Record, dump_claims, load_claims
from brandproxy.store import Store, keys
from brandproxy.store.records import readable

Audit = Callable[..., Awaitable[None]]


class Senders:
    """`audit(what, subject, **details)` puts an entry in the trail, in the name of whoever acts."""

    def __init__(
        self, store: Store, settings: Settings, audit: Audit, now: Callable[[], float] = time.time
    ) -> None:
        self._store, self._settings, self._audit, self._now = store, settings, audit, now
        self.publication = Publication(store, settings, now)

    async def all(self) -> list[Sender]:
        """Those that can be read."""
        found = readable(await self._store.list(keys.SENDER), lambda entry: load_claims(entry.value))
        return [claim for claims in found for claim in claims]

    async def claims(self, domain: str) -> Claims:
        """All claims to a domain; none: nobody has one."""
        entry = await self._store.get(keys.sender(names.hostname(domain)))
        return load_claims(entry.value) if entry else ()

    async def get(self, domain: str, tenant: str = "") -> Sender:
        """The tenant's claim; without a tenant the proven one, or the only one. Raises NotFound, Conflict."""
        return rules.chosen(await self.claims(domain), domain, tenant)

    async def add(
        self, domain: str, tenant: str, approach: Approach = "cnames", *, by_slug: bool = False
    ) -> Sender:
        """Claim a domain. It keeps nobody else out until it is proven.

        Raises BadInput (not a domain one customer can own), Conflict (the tenant claims it already), NotFound.
        """
        domain = self._claimable(domain)
        await self._tenant(tenant)
        if rules.claim_of(
            await self.claims(domain), tenant
        ):  # a label is for ever: none where nothing comes of it
            raise Conflict(f"tenant {tenant!r} claims {domain} already", "See `brandproxy sender show`.")
        claim = await self._new(domain, tenant, approach, by_slug)
        await self._change(domain, lambda claims: rules.added(claims, claim))
        if await self._store.get(keys.tenant(tenant)) is None:  # removed meanwhile: it takes its claims with it
            await self.leave(tenant)
            await self._tenant(tenant)
        await self._audit("sender.add", domain, tenant=tenant, **difference(None, claim))
        await self._publish_bounce(claim)
        return claim

    async def add_default(self, host: Host, *, by_slug: bool = False) -> None:
        """The sender that comes with a host, unless the tenant has it."""
        with suppress(BadInput, Conflict):
            await self.add(
                rules.mail_domain(host), host.tenant, "zone" if host.zone else "cnames", by_slug=by_slug
            )

    async def remove(self, domain: str, tenant: str = "") -> Sender:
        """End a claim; what was published for it is revoked."""
        claim = await self.get(domain, tenant)
        await self._change(claim.domain, lambda claims: rules.without(claims, claim.label))
        await self._audit("sender.remove", claim.domain, tenant=claim.tenant, **difference(claim, None))
        await self._revoke(claim)
        return claim

    async def transfer(self, domain: str, tenant: str, before: str = "") -> Sender:
        """Give a domain to another tenant: a new label, so a new proof; what the one before published is revoked.

        `before`: whose claim ends; empty: the proven one's, or the only one's.
        """
        await self._tenant(tenant)
        old = await self.get(domain, before)
        if old.tenant == tenant:
            raise Conflict(f"{old.domain} is tenant {tenant!r}'s already")
        new = await self._new(old.domain, tenant, old.approach, False)
        claims = await self._change(old.domain, lambda claims: rules.given(claims, old.label, new))
        await self._audit(
            "sender.transfer", old.domain, tenant=tenant, before=old.tenant, after=tenant, label=new.label
        )
        await self._revoke(old)
        given = rules.chosen(claims, old.domain, tenant)
        await self._publish_bounce(given)
        if await self._store.get(keys.tenant(tenant)) is None:
            await self.leave(tenant)
            await self._tenant(tenant)
        return given

    async def accept(self, domain: str, tenant: str, reason: str) -> Sender:
        """The operator's word is proof. Raises Conflict while it is proven for another tenant."""
        if not reason.strip():
            raise BadInput("the operator's word needs a reason", "Say how you know: `--reason`.")
        claim, reason = await self.get(domain, tenant), reason[:500]
        claims = await self._move(claim, SenderState.PROVEN, reason, vouched=True)
        after = rules.claim_of(claims, tenant)
        if after is None or not after.vouched:
            raise Conflict(
                f"{claim.domain} is proven for another tenant", "Move it: `brandproxy sender transfer`."
            )
        await self._audit("sender.accept", claim.domain, tenant=tenant, reason=reason)
        return after

    async def move(self, claim: Sender, state: SenderState, reason: str) -> Claims:
        """What was seen in DNS moves a claim; the claims after it. Nothing when it has gone, or another has it."""
        claims = await self._move(claim, state, reason)
        after = next((one for one in claims if one.label == claim.label), None)
        if after is not None and after.state is not claim.state:
            details = {"before": claim.state, "after": after.state, "reason": reason}
            await self._audit("sender.state", claim.domain, tenant=claim.tenant, **details)
        return claims

    async def leave(self, tenant: str) -> None:
        """End all claims of a tenant, and what was published for it, by its slug too."""
        labels = [tenant]
        for claim in await self.all():
            if claim.tenant == tenant:
                await self._change(claim.domain, _without(claim.label))
                await self._audit("sender.remove", claim.domain, tenant=tenant, label=claim.label)
                labels.append(claim.label)
        await self.publication.revoke(*labels)

    async def sweep(self) -> None:
        """End claims that no tenant has, and revoke what no claim has: whoever should have done so died."""
        for slug in {claim.tenant for claim in await self.all()}:
            if await self._store.get(keys.tenant(slug)) is None:
                await self.leave(slug)
        await self.publication.sweep()

    async def _move(self, claim: Sender, state: SenderState, reason: str, vouched: bool = False) -> Claims:
        now = int(self._now())
        return await self._change(
            claim.domain, lambda claims: rules.moved(claims, claim.label, state, reason, now, vouched)
        )

    async def _revoke(self, ended: Sender) -> None:
        """What was published for a claim; by its tenant's slug with the last claim that it was published for."""
        others = [one for one in await self.all() if one.by_slug and one.tenant == ended.tenant]
        last = [ended.tenant] if ended.by_slug and not others else []
        await self.publication.revoke(ended.label, *last)

    async def _publish_bounce(self, claim: Sender) -> None:
        """Behind the label, so that it ends with the claim: SPF would go on passing by a name that all share."""
        dns = self._settings.dns
        if dns.bounce_host and dns.update_server:
            host = names.hostname(dns.bounce_host)
            record = Record(f"{claim.label}.{host}", claim.tenant, claim.domain, host)
            with suppress(Conflict):  # ended meanwhile
                await self.publication.plan(claim.label, BOUNCE, record)

    def _claimable(self, domain: str) -> str:
        domain = domains.claimable(domain)
        dns = self._settings.dns
        for own in (self._settings.edge.domain, dns.dkim_domain, dns.bounce_host):
            own = own.strip().rstrip(".").lower()
            if own and (domain == own or domain.endswith(f".{own}")):
                raise BadInput(f"{domain} lies under a domain of our own", "Use the customer's own domain.")
        return domain

    async def _tenant(self, slug: str) -> None:
        if await self._store.get(keys.tenant(names.slug(slug))) is None:
            raise NotFound(f"no tenant {slug!r}", "See `brandproxy tenant list`.")

    async def _new(self, domain: str, tenant: str, approach: Approach, by_slug: bool) -> Sender:
        """A claim with a label that was never given out; its tombstone stays for ever."""
        now, label = int(self._now()), secrets.token_hex(8)
        while not await self._store.create(keys.sender_target(label), domain.encode()):
            label = secrets.token_hex(8)
        return Sender(domain, tenant, label, approach, reason="added", since=now, created_at=now, by_slug=by_slug)

    async def _change(self, domain: str, change: Callable[[Claims], Claims]) -> Claims:
        """The claims after `change`, made again if somebody else wrote in between."""
        key = keys.sender(domain)
        while True:
            entry = await self._store.get(key)
            before: Claims = load_claims(entry.value) if entry else ()
            after = change(before)
            if after == before or await self._write(key, after, entry.version if entry else None):
                return after

    async def _write(self, key: str, after: Claims, version: int | None) -> bool:
        if version is None:
            return await self._store.create(key, dump_claims(after))
        if not after:
            return await self._store.delete(key, version)
        return await self._store.replace(key, dump_claims(after), version)


def _without(label: str) -> Callable[[Claims], Any]:
    return lambda claims: rules.without(claims, label)
