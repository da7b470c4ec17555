"""Hosts: the records under `host/` and `claim/`, the states they go through, and who is told of a change.

`host/<name>` is whoever holds the name, or the first to claim it as long as nobody has proven it. Every other
claim stands under `claim/<name>/<tenant>`. Invariants: a claim of the tenant that `host/<name>` names counts for
nothing (a change of hands whose node died leaves one behind); a CNAME target is one claim's alone, for ever.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from brandproxy.audited import Audited
from brandproxy.core import names
from brandproxy.errors import Conflict, NotFound
from brandproxy.model import PROVEN, Host, HostState
from brandproxy.store import Entry, keys
from brandproxy.store.records import readable
from brandproxy.webhooks import notices

_HELD = "another tenant has proven this name: it is yours when the name's CNAME leads to your target"


class Hosts(Audited):
    async def host(self, name: str, tenant: str = "") -> Host:
        """The name's record; `tenant`: that tenant's, be it a claim beside the record. Raises NotFound."""
        name = names.hostname(name)
        found = await self._holder(name)
        if found is not None and tenant in ("", found.tenant):
            return found
        if tenant:
            found = await self.claim(name, tenant)
        elif claims := await self.claims(name):
            found = claims[0]
        if found is None:
            raise NotFound(f"no host {name}", "See `brandproxy host list`, or add it: `brandproxy host add`.")
        return found

    async def _holder(self, name: str) -> Host | None:
        entry = await self.store.get(keys.host(name))
        return None if entry is None else self.codec.host(entry.key, entry.value)

    async def _host_entry(self, name: str) -> Entry:
        entry = await self.store.get(keys.host(names.hostname(name)))
        if entry is None:
            raise NotFound(f"no host {name}", "See `brandproxy host list`, or add it: `brandproxy host add`.")
        return entry

    async def hosts(self) -> list[Host]:
        """One record a name. Those that can be read."""
        return readable(await self.store.list(keys.HOST), lambda e: self.codec.host(e.key, e.value))

    async def everything(self) -> list[Host]:
        """The hosts and the claims beside them, by name; the host itself first."""
        hosts = await self.hosts()
        holds = {host.name: host.tenant for host in hosts}
        claims = readable(await self.store.list(keys.CLAIM), lambda e: self.codec.claim(e.key, e.value))
        beside = [claim for claim in claims if holds.get(claim.name) != claim.tenant]
        return sorted([*hosts, *beside], key=lambda host: host.name)  # stable

    async def claim(self, name: str, tenant: str) -> Host | None:
        """A tenant's claim beside the host's record."""
        entry = await self.store.get(keys.claim(name, tenant))
        return None if entry is None else self.codec.claim(entry.key, entry.value)

    async def claims(self, name: str) -> list[Host]:
        """The claims beside the host's record, the oldest first."""
        holder = await self._holder(name)
        entries = await self.store.list(keys.claim(name, ""))
        found = readable(entries, lambda e: self.codec.claim(e.key, e.value))
        beside = [claim for claim in found if holder is None or claim.tenant != holder.tenant]
        return sorted(beside, key=lambda claim: (claim.created_at, claim.tenant))

    async def contested(self, host: Host) -> bool:
        """Whether another tenant claims or has the name. Which one is nobody's to know."""
        holder = await self._holder(host.name)
        beside = holder is not None and holder.tenant != host.tenant
        return beside or bool(await self.claims(host.name))

    async def at_target(self, name: str, target: str) -> Host | None:
        """Whose target of this name it is: the claim it was given to, as long as it is there."""
        entry = await self.store.get(keys.target(target.partition(".")[0]))
        if entry is None:
            return None
        given, _, tenant = entry.value.decode().partition(" ")
        holder = await self._holder(name)
        if holder is not None and holder.target == target:
            return holder
        found = await self.claim(name, tenant) if given == name and tenant else None
        return found if found is not None and found.target == target else None

    async def _target(self, name: str, tenant: str) -> str:
        """A CNAME target that was never given out; its tombstone stays for ever and says to whom it was given."""
        while True:
            label = secrets.token_hex(8)
            if await self.store.create(keys.target(label), f"{name} {tenant}".encode()):
                return f"{label}.{self._domain}"

    async def set_host_state(self, name: str, state: HostState, reason: str, seen: Host | None = None) -> Host:
        """Move a host, with its reason. The same state again changes nothing.

        `seen`: the host the decision was made on; raises Conflict when it is another by now, in state or target:
        what proved a name for one tenant proves nothing for the next.
        """
        while True:
            entry = await self._host_entry(name)
            before = self.codec.host(entry.key, entry.value)
            require_same(before, seen)
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

    async def tell(self, host: Host) -> None:
        """Put the host's last change in the audit trail and among the notices, unless it is there.

        Who claims a name that another tenant now has is told before the winner, so that a node that dies between
        leaves the whole change to be told again.
        """
        if not host.change:
            return
        if host.proven and host.before not in PROVEN and host.state is not HostState.SUSPENDED:
            for claim in await self.claims(host.name):
                await self.tell_claim(claim, host)
        details = {"before": host.before, "after": host.state, "reason": host.reason}
        await self.audit("host.state", host.name, host.change, tenant=host.tenant, **details)
        data = {"host": host.name, "state": host.state, "before": host.before or None, "reason": host.reason}
        notice = notices.Notice(f"host.{host.state}", host.tenant, host.since, data)
        await notices.tell(self.store, host.change, notice)

    async def tell_claim(self, claim: Host, holder: Host) -> None:
        """Tell a claim's tenant, once for each change of the holder, that another has the name, or took it."""
        lost = claim.before in PROVEN and claim.since >= holder.since
        kind = "host.lost" if lost else "host.contested"
        await self._tell_once(kind, claim, holder, claim.reason if lost else _HELD)

    async def tell_holder(self, holder: Host, claim: Host) -> None:
        """Tell the holder that DNS names another tenant's target as well, or instead."""
        reason = "its DNS names another tenant's target" + (
            "; the operator decides" if holder.accepted or holder.state is HostState.SUSPENDED else ""
        )
        await self._tell_once("host.contested", holder, claim, reason)

    async def _tell_once(self, kind: str, host: Host, other: Host, reason: str) -> None:
        told = notices.named(kind, host.name, host.target, other.target, other.change)
        if await self.store.get(keys.notice(told)) is not None:
            return
        data = {"host": host.name, "state": host.state, "before": host.before or None, "reason": reason}
        details: dict[str, object] = {"reason": reason}
        if kind == "host.lost":
            details["before"] = {"state": host.before or host.state}
        await self.audit(kind, host.name, "", tenant=host.tenant, **details)
        await notices.tell(self.store, told, notices.Notice(kind, host.tenant, int(self._now()), data))


def require_same(host: Host, seen: Host | None) -> None:
    if seen is not None and (host.state, host.target) != (seen.state, seen.target):
        raise Conflict(f"host {host.name} became another or {host.state} meanwhile")
