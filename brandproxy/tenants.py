"""Tenants and hosts: the only place that writes them, with an audit entry for every change.

`Registry` is what the command line and the HTTP API call. What reads them on a hot path is `directory`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import TypeVar

from pydantic import TypeAdapter

from brandproxy.config import Settings
from brandproxy.core import domains, names, signing, urls
from brandproxy.core.differences import difference
from brandproxy.core.ids import uuid7
from brandproxy.errors import BadInput, Conflict, NotFound
from brandproxy.model import PROVEN, Host, HostState, Policy, SigningKey, Tenant
from brandproxy.senders import Senders, departure
from brandproxy.store import Entry, Store, keys
from brandproxy.store.records import Unreadable, mended, readable
from brandproxy.store.seal import Seal, open_seal
from brandproxy.values import faults
from brandproxy.webhooks import notices

T = TypeVar("T")

_TENANT = TypeAdapter(Tenant)
_HOST = TypeAdapter(Host)

# What of a record may be put right when it is read. Never who it is, what it signs with or where its mail goes.
_MENDED = ("name", "policy", "origins", "home", "apple_app_site_association", "assetlinks", "created_at")
_MENDED_HOST = ("reason", "since", "created_at")

UNPROVEN = 7 * 86400  # seconds after which a claim without proof keeps nobody else from the name


class Codec:
    """Records to store values and back. Tenants hold signing keys, so they are sealed whole.

    Invariant: what breaks the ranges and forms of `model` is never written (BadInput). What was written all the
    same, by an older version say, is read as `records.mended` has it; a record that is none raises Unreadable.
    """

    def __init__(self, seal: Seal) -> None:
        self.seal = seal

    def tenant(self, key: str, value: bytes) -> Tenant:
        tenant = mended(_TENANT, key, self.seal.open(value), _MENDED)
        if keys.tenant(tenant.slug) != key:
            raise Unreadable(f"{key} holds tenant {tenant.slug[:80]!r}")
        return tenant

    def host(self, key: str, value: bytes) -> Host:
        host = mended(_HOST, key, value, _MENDED_HOST)
        if keys.host(host.name) != key:
            raise Unreadable(f"{key} holds host {host.name[:80]!r}")
        return host

    def dump(self, record: Tenant | Host) -> bytes:
        if wrong := faults(record):
            raise BadInput("; ".join(wrong), "See the ranges and forms in `/openapi.json`.")
        if isinstance(record, Tenant):
            return self.seal.seal(_TENANT.dump_json(record))
        return _HOST.dump_json(record)


class Registry:
    """`now` returns seconds. `actor` names who acts, for the audit trail."""

    def __init__(
        self, store: Store, settings: Settings, now: Callable[[], float] = time.time, actor: str = "cli"
    ) -> None:
        self.store = store
        self.codec = Codec(open_seal(settings))
        self._settings = settings
        self._domain = settings.edge.domain
        self._now = now
        self._actor = actor

    def acting(self, actor: str) -> Registry:
        """The same registry in another name for the audit trail."""
        other = copy(self)
        other._actor = actor
        return other

    @property
    def senders(self) -> Senders:
        return Senders(self.store, self._settings, self.audit, self._now)

    async def bring_up(self) -> None:
        """What a version before this one left is brought up to it, once."""
        await departure.bring_up(self.store, self.senders, self.hosts)

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

    async def tenant(self, slug: str) -> Tenant:
        entry = await self.store.get(keys.tenant(slug))
        if entry is None:
            raise NotFound(
                f"no tenant {slug!r}", "See `brandproxy tenant list`, or add it: `brandproxy tenant add`."
            )
        return self.codec.tenant(entry.key, entry.value)

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

        Raises Conflict while the tenant has hosts: links in mails lead there.
        """
        await self.bring_up()
        gone = difference(await self.tenant(slug), None)
        hosts = [host.name for host in await self.hosts() if host.tenant == slug]
        if hosts:
            raise Conflict(f"tenant {slug!r} has hosts: {', '.join(hosts)}", "Remove the hosts first.")
        await departure.remove(self.store, self.senders, slug, self.audit, gone)

    async def add_host(self, name: str, tenant: str, state: HostState = HostState.PENDING, zone: str = "") -> Host:
        """Claim a name for a tenant, atomically, with a CNAME target that was never given out before.

        `zone`: a zone above the name that the customer delegates to us; it is then this tenant's alone.
        A claim that nobody proved for `UNPROVEN` seconds gives way to another tenant's.
        Raises BadInput (not a name one customer can own), Conflict (somebody has it).
        """
        name = self._claimable(name)
        await self.bring_up()
        await self.tenant(tenant)
        now = int(self._now())
        if zone:
            await self._claim_zone(zone := self._claimable(zone), name, tenant)
        if await self.store.get(keys.host(name)) is None:  # a target is for ever: none for a name that is taken
            proven_at = now if state in PROVEN else 0
            target = await self._target(name)
            host = Host(name, tenant, target, state, "added", now, now, zone, "", self._id(), proven_at)
            if await self.store.create(keys.host(name), self.codec.dump(host)):
                await self.audit("host.add", name, host.change, tenant=tenant, **difference(None, host))
                await self.tell(host)
                await self.senders.add_default(host)
                return host
        there = await self.host(name)
        if there.tenant == tenant:
            raise Conflict(f"tenant {tenant!r} has host {name} already", "See `brandproxy dns HOST`.")
        if there.state is HostState.PENDING and now - there.since >= UNPROVEN and not zone and not there.zone:
            return await self.transfer_host(name, tenant, there)
        raise Conflict(
            f"host {name} is another tenant's",
            f"A claim nobody proves gives way after {UNPROVEN // 86400} days. An operator moves a host at once:"
            " `brandproxy host transfer`.",
        )

    def _claimable(self, name: str) -> str:
        name = domains.claimable(name)
        if name == self._domain or name.endswith(f".{self._domain}"):
            raise BadInput(f"{name} lies under our own edge domain", "Use a name of the customer's own domain.")
        return name

    async def _claim_zone(self, zone: str, name: str, tenant: str) -> None:
        if not name.endswith(f".{zone}"):
            raise BadInput(f"{name} does not lie under {zone}")
        if await self.store.create(keys.zone(zone), tenant.encode()):
            return
        entry = await self.store.get(keys.zone(zone))
        if entry is None or entry.value.decode() != tenant:
            raise Conflict(
                f"zone {zone} is delegated for another tenant",
                "When that one is gone and its NS records too: `brandproxy host release-zone`.",
            )

    async def release_zone(self, zone: str) -> None:
        """Let another tenant have a delegated zone. Raises NotFound, Conflict while hosts are in it.

        Never by itself: whoever is given a name in it is believed as long as the old owner's NS records stand.
        """
        entry = await self.store.get(keys.zone(zone := names.hostname(zone)))
        if entry is None:
            raise NotFound(f"no delegated zone {zone}", "See `brandproxy host list --json`: each host's `zone`.")
        if inside := [host.name for host in await self.hosts() if host.zone == zone]:
            raise Conflict(f"zone {zone} has hosts: {', '.join(inside)}", "Remove the hosts first.")
        await self.store.delete(entry.key, entry.version)
        await self.audit("zone.release", zone, tenant=(owner := entry.value.decode()), before={"tenant": owner})

    async def _target(self, name: str) -> str:
        """A CNAME target that was never given out; its tombstone stays for ever."""
        while True:
            label = secrets.token_hex(8)
            if await self.store.create(keys.target(label), name.encode()):
                return f"{label}.{self._domain}"

    async def transfer_host(self, name: str, tenant: str, seen: Host | None = None) -> Host:
        """Give a host to another tenant: new target, new proof, so it starts over as pending.

        `seen`: the host the decision was made on; raises Conflict when it is another by now, in state or target.
        """
        await self.tenant(tenant)
        before = await self.host(name)
        target, now = await self._target(before.name), int(self._now())

        def give(entry: Entry) -> Host:
            host = self.codec.host(entry.key, entry.value)
            _require_same(host, seen)
            reason = "claimed anew: nobody had proven it" if seen else "transferred by the operator"
            return replace(
                host, tenant=tenant, target=target, state=HostState.PENDING, reason=reason, since=now, zone="",
                before=host.state, change=self._id(), proven_at=0, accepted="",
            )  # fmt: skip

        await self.tell(before)
        host = await self._change(keys.host(before.name), give, f"host {name}")
        owners = {"before": before.tenant, "after": tenant}
        await self.audit("host.transfer", host.name, host.change, tenant=tenant, **owners)
        await self.tell(host)
        await self.senders.add_default(host)
        return host

    async def host(self, name: str) -> Host:
        entry = await self._host_entry(name)
        return self.codec.host(entry.key, entry.value)

    async def _host_entry(self, name: str) -> Entry:
        entry = await self.store.get(keys.host(names.hostname(name)))
        if entry is None:
            raise NotFound(f"no host {name}", "See `brandproxy host list`, or add it: `brandproxy host add`.")
        return entry

    async def hosts(self) -> list[Host]:
        """Those that can be read."""
        return readable(await self.store.list(keys.HOST), lambda e: self.codec.host(e.key, e.value))

    async def set_host_state(self, name: str, state: HostState, reason: str, seen: Host | None = None) -> Host:
        """Move a host, with its reason. The same state again changes nothing.

        `seen`: the host the decision was made on; raises Conflict when it is another by now, in state or target:
        what proved a name for one tenant proves nothing for the next.
        """
        while True:
            entry = await self._host_entry(name)
            before = self.codec.host(entry.key, entry.value)
            _require_same(before, seen)
            if before.state is state:
                return before
            await self.tell(before)
            moved = self._moved(before, state, reason)
            if await self.store.replace(entry.key, self.codec.dump(moved), entry.version):
                await self.tell(moved)
                return moved

    def _moved(self, host: Host, state: HostState, reason: str) -> Host:
        """The host in another state. Starting over as pending ends what was proven, and the operator's word."""
        now = int(self._now())
        proven_at = host.proven_at or host.since or now if host.proven else 0
        if state is HostState.PENDING:
            proven_at = 0
        elif state in (HostState.VERIFIED, HostState.LIVE):
            proven_at = proven_at or now
        return replace(
            host, state=state, reason=reason, since=now, before=host.state, change=self._id(), proven_at=proven_at,
            accepted="" if state is HostState.PENDING else host.accepted,
        )  # fmt: skip

    async def accept_host(self, name: str, reason: str, certified: bool = False) -> Host:
        """The operator vouches that the name is its tenant's: it is served as if its records had been seen.

        `certified`: a certificate that is still valid is there. Raises BadInput without a reason, Conflict when
        the host is suspended.
        """
        if not (reason := reason.strip()[:500]):
            raise BadInput("no reason is given", "Say why the name is this tenant's; the audit trail keeps it.")
        while True:
            entry = await self._host_entry(name)
            before = self.codec.host(entry.key, entry.value)
            if before.state is HostState.SUSPENDED:
                raise Conflict(f"host {before.name} is suspended", "First: `brandproxy host resume`.")
            state = HostState.LIVE if certified or before.state is HostState.LIVE else HostState.VERIFIED
            if (before.state, before.accepted) == (state, reason):
                return before
            await self.tell(before)
            moved = self._moved(before, state, f"accepted by the operator: {reason}")
            moved = replace(moved, accepted=reason)
            if await self.store.replace(entry.key, self.codec.dump(moved), entry.version):
                changed = difference(before, moved)
                await self.audit("host.accept", moved.name, tenant=moved.tenant, reason=reason, **changed)
                await self.tell(moved)
                return moved

    async def tell(self, host: Host) -> None:
        """Put the host's last change in the audit trail and among the notices, unless it is there."""
        if not host.change:
            return
        details = {"before": host.before, "after": host.state, "reason": host.reason}
        await self.audit("host.state", host.name, host.change, tenant=host.tenant, **details)
        data = {"host": host.name, "state": host.state, "before": host.before or None, "reason": host.reason}
        notice = notices.Notice(f"host.{host.state}", host.tenant, host.since, data)
        await notices.tell(self.store, host.change, notice)

    async def remove_host(self, name: str) -> None:
        """Remove a host and its certificate. Its CNAME target is never given out again."""
        host = await self.host(name)
        await self.tell(host)
        data = {"host": host.name, "before": host.state}
        gone = notices.Notice("host.removed", host.tenant, int(self._now()), data)
        await notices.tell(self.store, notices.named(gone.kind, host.name, host.target), gone)
        if not await self.store.delete(keys.host(host.name)):
            raise NotFound(f"no host {host.name}")
        for key in (keys.cert(host.name), keys.watch(host.name), keys.acme("host", host.name)):
            await self.store.delete(key)
        await self.audit("host.remove", host.name, tenant=host.tenant, **difference(host, None))

    def _id(self) -> str:
        return uuid7(int(self._now() * 1000))

    async def audit(self, what: str, subject: str, change: str = "", **details: object) -> None:
        """An entry in the trail; one entry for a `change`, however often it is told."""
        at_us = int(change[:12], 16) * 1000 if change else int(self._now() * 1e6)
        entry = {"at_us": at_us, "actor": self._actor, "what": what, "subject": subject, **details}
        await self.store.create(keys.audit(change or self._id()), json.dumps(entry).encode())

    async def _change(self, key: str, change: Callable[[Entry], T], what: str) -> T:
        while True:
            entry = await self.store.get(key)
            if entry is None:
                raise NotFound(f"no {what}")
            record = change(entry)
            if await self.store.replace(key, self.codec.dump(record), entry.version):  # type: ignore[arg-type]
                return record


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


def _require_same(host: Host, seen: Host | None) -> None:
    if seen is not None and (host.state, host.target) != (seen.state, seen.target):
        raise Conflict(f"host {host.name} became another or {host.state} meanwhile")
