"""Tenants and hosts: the only place that writes them, with an audit entry for every change.

`Registry` is what the command line and the HTTP API call. What reads them on a hot path is `directory`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable

from brandproxy.audited import Codec
from brandproxy.claims import Claims
from brandproxy.core import names, signing, urls
from brandproxy.core.differences import difference
from brandproxy.errors import BadInput, Conflict
from brandproxy.model import Policy, SigningKey, Tenant
from brandproxy.senders import departure
from brandproxy.store import Entry, keys
from brandproxy.store.records import readable

__all__ = ["Codec", "Registry"]


class Registry(Claims):
    """Everything that is written of tenants and hosts."""

    async def add_tenant(self, slug: str, name: str = "", policy: Policy | None = None) -> Tenant:
        """A new tenant with its first key. Raises Conflict when the slug is taken, or was once."""
        await self.bring_up()
        await departure.refuse_former(self.store, names.slug(slug))
        now = int(self._now())
        key = SigningKey(0, secrets.token_bytes(32), now)
        tenant = Tenant(names.slug(slug), (key,), name or slug, policy or Policy(), created_at=now)
        if not await self.store.create(keys.tenant(slug), self.codec.dump(tenant)):
            raise Conflict(f"tenant {slug!r} exists already")
        await departure.refuse_former(self.store, slug, made=True)
        await self.audit("tenant.add", slug, **difference(None, tenant))
        return tenant

    async def tenants(self) -> list[Tenant]:
        """Those that can be read: a broken record keeps nobody from the others."""
        return readable(await self.store.list(keys.TENANT), lambda e: self.codec.tenant(e.key, e.value))

    async def change_tenant(self, slug: str, change: Callable[[Tenant], Tenant], what: str) -> Tenant:
        """Apply `change` to the present record, again if somebody else wrote in between.

        Raises BadInput for what breaks the ranges and forms of `model`.
        """
        before: Tenant | None = None

        def changed(entry: Entry) -> Tenant:
            nonlocal before
            before = self.codec.tenant(entry.key, entry.value)
            after = change(before)
            _check(before, after)
            return after

        tenant = await self._change(keys.tenant(slug), changed, f"tenant {slug!r}")
        if before and tenant.policy.keep_days != before.policy.keep_days:
            await self.store.delete(keys.retention(slug))  # the new number of days is in force from now on
        await self.audit(what, slug, **difference(before, tenant))
        return tenant

    async def rotate_key(self, slug: str) -> Tenant:
        """A new newest key; the old ones go on verifying what is mailed."""

        def rotate(tenant: Tenant) -> Tenant:
            return signing.rotated(tenant, secrets.token_bytes(32), int(self._now()))

        return await self.change_tenant(slug, rotate, "tenant.rotate-key")

    async def revoke_key(self, slug: str, number: int) -> Tenant:
        """Refuse every token signed with this key, from now on, on all edges."""

        def revoke(tenant: Tenant) -> Tenant:
            return signing.revoked(tenant, number, int(self._now()))

        return await self.change_tenant(slug, revoke, f"tenant.revoke-key {number}")

    async def remove_tenant(self, slug: str) -> None:
        """Its senders, keys and records end with it, and its slug is never given out again.

        Raises Conflict while the tenant has or claims hosts: links in mails lead there.
        """
        await self.bring_up()
        gone = difference(await self.tenant(slug), None)
        hosts = [host.name for host in await self.everything() if host.tenant == slug]
        if hosts:
            raise Conflict(f"tenant {slug!r} has hosts: {', '.join(hosts)}", "Remove the hosts first.")
        await departure.remove(self.store, self.senders, slug, self.audit, gone)


def _check(before: Tenant, after: Tenant) -> None:
    """What a form cannot say, of what is new. Raises BadInput."""
    if after.home not in ("", before.home) and (reason := urls.refusal(after.home)):
        raise BadInput(f"home {after.home[:80]!r}: {reason}", "Give an http(s) address people can open.")
    for name in ("apple_app_site_association", "assetlinks"):
        text = getattr(after, name)
        if text in ("", getattr(before, name)):
            continue
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{name} is not JSON: {str(error)[:200]}", "Phones read the file as JSON.") from error
