"""How names change hands: claims, proofs, the operator's word, transfers, removals. The rule is `core.claims`'s.

A change of hands is one compare-and-set of `host/<name>`. Before it the former holder gets a claim of its own, and
after it the winner's claim goes: until then both are the same tenant's as the record's, so they count for nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from brandproxy.core import domains, names
from brandproxy.core.claims import gives_way, standing
from brandproxy.core.differences import difference
from brandproxy.errors import BadInput, Conflict, NotFound
from brandproxy.hosts import Hosts, require_same
from brandproxy.model import PROVEN, Host, HostState
from brandproxy.senders import Senders, departure
from brandproxy.store import Entry, keys
from brandproxy.webhooks import notices


@dataclass(frozen=True, slots=True)
class Zone:
    """Whose a delegated zone is. `contested`: several tenants claim it, and NS records name none of them."""

    tenant: str
    proven: bool = False
    contested: bool = False


class Claims(Hosts):
    @property
    def senders(self) -> Senders:
        return Senders(self.store, self._settings, self.audit, self._now)

    async def bring_up(self) -> None:
        """What a version before this one left is brought up to it, once."""
        await departure.bring_up(self.store, self.senders, self.hosts)

    async def add_host(self, name: str, tenant: str, state: HostState = HostState.PENDING, zone: str = "") -> Host:
        """Claim a name for a tenant, with a CNAME target that was never given out before. It keeps nobody out.

        `zone`: a zone above the name that the customer delegates to us.
        Raises BadInput (not a name one customer can own), Conflict (this tenant claims it already).
        """
        name = self._claimable(name)
        await self.bring_up()
        await self.tenant(tenant)
        holder = await self._holder(name)
        if (holder is not None and holder.tenant == tenant) or await self.claim(name, tenant) is not None:
            raise Conflict(f"tenant {tenant!r} has host {name} already", "See `brandproxy dns HOST`.")
        if zone:
            await self._claim_zone(zone := self._claimable(zone), name, tenant)
        now, target = int(self._now()), await self._target(name, tenant)
        proven_at = now if state in PROVEN else 0
        host = Host(name, tenant, target, state, "added", now, now, zone, "", self._id(), proven_at)
        holder = await self._placed(host)
        await self.audit("host.add", name, host.change, tenant=tenant, **difference(None, host))
        await self.tell(host)
        if holder is not None and holder.proven:
            await self.tell_claim(host, holder)
        await self.senders.add_default(host)
        return host

    async def _placed(self, host: Host) -> Host | None:
        """Write a new claim; who has the place of the name, when somebody else was there first."""
        while not await self.store.create(keys.host(host.name), self.codec.dump(host)):
            holder = await self._holder(host.name)
            if holder is None:
                continue
            fresh = holder.tenant != host.tenant and host.state is HostState.PENDING
            if not fresh or not await self.store.create(keys.claim(host.name, host.tenant), self.codec.dump(host)):
                raise Conflict(f"tenant {host.tenant!r} cannot have host {host.name} so: it is claimed already")
            await self.promote(host.name)
            return holder
        return None

    async def promote(self, name: str) -> None:
        """Where nobody has the place of a name, its oldest claim takes it: what is there is looked at."""
        for claim in await self.claims(name):
            if await self.store.create(keys.host(name), self.codec.dump(claim)):
                await self.store.delete(keys.claim(name, claim.tenant))
            return

    def _claimable(self, name: str) -> str:
        name = domains.claimable(name)
        if name == self._domain or name.endswith(f".{self._domain}"):
            raise BadInput(f"{name} lies under our own edge domain", "Use a name of the customer's own domain.")
        return name

    async def take_host(self, claim: Host, reason: str) -> Host:
        """The claim's proof was seen: the name is its tenant's, when `core.claims` says that the holder gives way.

        Raises Conflict when it does not, or when the claim is another by now.
        """
        return await self._take(claim, reason)

    async def _take(self, claim: Host, reason: str, accepted: str = "") -> Host:
        while True:
            mine = await self.claim(claim.name, claim.tenant)
            if mine is None or mine.target != claim.target:
                raise Conflict(f"the claim of {claim.name} became another meanwhile")
            entry = await self.store.get(keys.host(claim.name))
            if entry is None:
                await self.promote(claim.name)
                continue
            holder = self.codec.host(entry.key, entry.value)
            if holder.tenant == claim.tenant:
                raise Conflict(f"the claim of {claim.name} became another meanwhile")
            self._require_way(mine, holder, bool(accepted))
            if mine.zone:
                await self.hold_zone(mine, bool(accepted))
            won = replace(self._moved(mine, HostState.VERIFIED, reason), accepted=accepted)
            if await self._handed_over(entry, holder, won):
                return won

    def _require_way(self, mine: Host, holder: Host, accepted: bool) -> None:
        """Raises Conflict when the holder keeps the name, or the operator stopped the claim."""
        if mine.state is HostState.SUSPENDED:
            raise Conflict(f"the claim of {mine.name} is suspended", "Remove it first.")
        if accepted and holder.state is HostState.SUSPENDED and holder.proven:
            raise Conflict(f"host {holder.name} is suspended", "First: `brandproxy host resume` or `host remove`.")
        if not accepted and not gives_way(standing(holder)):
            raise Conflict(f"host {holder.name} is another tenant's: its own proof stands")

    async def _handed_over(self, entry: Entry, holder: Host, won: Host) -> bool:
        """The compare-and-set, with what goes before and after it; False when the holder changed meanwhile."""
        await self.tell(holder)
        why = "another tenant's proof was seen, and ours of yours is gone" if holder.proven else holder.reason
        if won.accepted and holder.proven:
            why = "the operator vouched for another tenant"
        waits = not holder.proven and holder.state in (HostState.PENDING, HostState.SUSPENDED)
        lost = holder if waits else self._moved(holder, HostState.PENDING, why)
        beside = keys.claim(holder.name, holder.tenant)
        version = await self.store.put(beside, self.codec.dump(lost))
        if not await self.store.replace(entry.key, self.codec.dump(won), entry.version):
            await self.store.delete(beside, version)
            return False
        await self.store.delete(keys.claim(won.name, won.tenant))
        await self._forget(won.name)
        await self.store.delete(keys.watch(won.name, won.tenant))
        await self.audit("host.take", won.name, won.change[:-1] + "t", before=holder.tenant, after=won.tenant)
        await self.tell(won)
        return True

    async def _forget(self, name: str) -> None:
        """What belongs to a tenure: the certificate, its orders, what was seen."""
        for key in (keys.cert(name), keys.watch(name), keys.acme("host", name)):
            await self.store.delete(key)

    async def accept_host(self, name: str, reason: str, certified: bool = False, tenant: str = "") -> Host:
        """The operator vouches that the name is this tenant's: it is served as if its records had been seen.

        `certified`: a certificate that is still valid is there. Raises BadInput without a reason, Conflict when
        the host is suspended, or several tenants claim it and none is named.
        """
        if not (reason := reason.strip()[:500]):
            raise BadInput("no reason is given", "Say why the name is this tenant's; the audit trail keeps it.")
        while True:
            before = await self.host(name, tenant)
            holder = await self._holder(before.name)
            if not tenant and not before.proven and await self.claims(before.name):
                raise Conflict(f"several tenants claim {before.name}", "Say which: `--tenant`.")
            if holder is not None and holder.tenant != before.tenant:
                taken = await self._take(before, f"accepted by the operator: {reason}", reason)
                changed = difference(before, taken)
                await self.audit("host.accept", taken.name, tenant=taken.tenant, reason=reason, **changed)
                return taken
            done = await self._accepted(before.name, reason, certified)
            if done is not None:
                return done

    async def _accepted(self, name: str, reason: str, certified: bool) -> Host | None:
        entry = await self._host_entry(name)
        before = self.codec.host(entry.key, entry.value)
        if before.state is HostState.SUSPENDED:
            raise Conflict(f"host {before.name} is suspended", "First: `brandproxy host resume`.")
        state = HostState.LIVE if certified or before.state is HostState.LIVE else HostState.VERIFIED
        if (before.state, before.accepted) == (state, reason):
            return before
        await self.tell(before)
        if before.zone:
            await self.hold_zone(before, True)
        moved = replace(self._moved(before, state, f"accepted by the operator: {reason}"), accepted=reason)
        if not await self.store.replace(entry.key, self.codec.dump(moved), entry.version):
            return None
        await self.audit(
            "host.accept", moved.name, tenant=moved.tenant, reason=reason, **difference(before, moved)
        )
        await self.tell(moved)
        return moved

    async def confirm_host(self, host: Host) -> Host:
        """The host's own proof was seen: it stands on that from now on, no longer on the operator's word."""
        entry = await self._host_entry(host.name)
        there = self.codec.host(entry.key, entry.value)
        require_same(there, host)
        fresh = replace(there, accepted="")
        if not await self.store.replace(entry.key, self.codec.dump(fresh), entry.version):
            return there
        await self.audit("host.confirm", host.name, tenant=host.tenant, **difference(there, fresh))
        return fresh

    async def transfer_host(self, name: str, tenant: str) -> Host:
        """Give a host to another tenant: new target, new proof, so it starts over as pending.

        The former tenant keeps no claim: the operator has spoken.
        """
        await self.tenant(tenant)
        while True:
            entry = await self._host_entry(name)
            before = self.codec.host(entry.key, entry.value)
            target, now = await self._target(before.name, tenant), int(self._now())
            host = replace(
                before, tenant=tenant, target=target, state=HostState.PENDING, since=now,
                reason="transferred by the operator", zone="", before=before.state, change=self._id(),
                proven_at=0, accepted="",
            )  # fmt: skip
            await self.tell(before)
            if await self.store.replace(entry.key, self.codec.dump(host), entry.version):
                break
        for slug in (tenant, before.tenant):
            await self.store.delete(keys.claim(host.name, slug))
        await self._forget(host.name)
        owners = {"before": before.tenant, "after": tenant}
        await self.audit("host.transfer", host.name, host.change, tenant=tenant, **owners)
        if before.tenant != tenant:
            gone = replace(before, before=before.state, reason="transferred to another tenant by the operator")
            await self._tell_once("host.lost", gone, host, gone.reason)
        await self.tell(host)
        await self.senders.add_default(host)
        return host

    async def remove_host(self, name: str, tenant: str = "") -> None:
        """Remove a host and its certificate, or a tenant's claim. Its CNAME target is never given out again."""
        host = await self.host(name, tenant)
        await self.tell(host)
        data = {"host": host.name, "before": host.state}
        gone = notices.Notice("host.removed", host.tenant, int(self._now()), data)
        await notices.tell(self.store, notices.named(gone.kind, host.name, host.target), gone)
        removed = await self.store.delete(keys.claim(host.name, host.tenant))
        while (entry := await self.store.get(keys.host(host.name))) is not None:
            if self.codec.host(entry.key, entry.value).tenant != host.tenant:
                break
            if await self.store.delete(entry.key, entry.version):
                removed = True
                await self._forget(host.name)
                break
        if not removed:
            raise NotFound(f"no host {host.name}")
        await self.store.delete(keys.watch(host.name, host.tenant))
        await self.promote(host.name)
        await self.audit("host.remove", host.name, tenant=host.tenant, **difference(host, None))

    async def mend_claims(self) -> None:
        """Put right what a node that died left: claims of a name whose place nobody has."""
        held = {entry.key.removeprefix(keys.HOST) for entry in await self.store.list(keys.HOST)}
        claimed = {
            entry.key.removeprefix(keys.CLAIM).partition("/")[0] for entry in await self.store.list(keys.CLAIM)
        }
        for name in claimed - held:
            await self.promote(name)

    async def _claim_zone(self, zone: str, name: str, tenant: str) -> None:
        """Raises BadInput, Conflict when the zone was proven for another tenant."""
        if not name.endswith(f".{zone}"):
            raise BadInput(f"{name} does not lie under {zone}")
        while True:
            entry = await self.store.get(keys.zone(zone))
            if entry is None:
                if await self.store.create(keys.zone(zone), _dump(Zone(tenant))):
                    return
                continue
            there = _zone(entry)
            if there.tenant == tenant:
                return
            if there.proven:
                raise Conflict(
                    f"zone {zone} is delegated for another tenant",
                    "When that one is gone and its NS records too: `brandproxy host release-zone`.",
                )
            inside = any(h.zone == zone and h.tenant == there.tenant for h in await self.everything())
            fresh = replace(there, contested=True) if inside else Zone(tenant)
            if await self.store.replace(entry.key, _dump(fresh), entry.version):
                return

    async def hold_zone(self, host: Host, accepted: bool = False) -> None:
        """The zone's NS records were seen, or the operator vouches: whether that proves it for the host's tenant.

        NS records name no tenant, so where several claim a zone they prove nothing. Raises Conflict.
        """
        while True:
            entry = await self.store.get(keys.zone(host.zone))
            there = _zone(entry) if entry else Zone(host.tenant)
            if there.tenant == host.tenant and there.proven:
                return
            if there.proven or not (accepted or (there.tenant == host.tenant and not there.contested)):
                raise Conflict(
                    f"zone {host.zone} is claimed by several tenants, and its NS records name none of them",
                    "The operator decides: `brandproxy host accept NAME --tenant SLUG --reason TEXT`.",
                )
            held = _dump(Zone(host.tenant, proven=True))
            if entry is None:
                done = await self.store.create(keys.zone(host.zone), held)
            else:
                done = await self.store.replace(entry.key, held, entry.version)
            if done:
                return

    async def release_zone(self, zone: str) -> None:
        """Let another tenant have a delegated zone. Raises NotFound, Conflict while hosts are in it.

        Never by itself: whoever is given a name in it is believed as long as the old owner's NS records stand.
        """
        entry = await self.store.get(keys.zone(zone := names.hostname(zone)))
        if entry is None:
            raise NotFound(f"no delegated zone {zone}", "See `brandproxy host list --json`: each host's `zone`.")
        if inside := [host.name for host in await self.everything() if host.zone == zone]:
            raise Conflict(f"zone {zone} has hosts: {', '.join(inside)}", "Remove the hosts first.")
        await self.store.delete(entry.key, entry.version)
        owner = _zone(entry).tenant
        await self.audit("zone.release", zone, tenant=owner, before={"tenant": owner})


def _zone(entry: Entry) -> Zone:
    """A record from before proofs were kept is the bare slug, and counts as proven."""
    text = entry.value.decode()
    return Zone(**json.loads(text)) if text.startswith("{") else Zone(text, proven=True)


def _dump(zone: Zone) -> bytes:
    return json.dumps({"tenant": zone.tenant, "proven": zone.proven, "contested": zone.contested}).encode()
