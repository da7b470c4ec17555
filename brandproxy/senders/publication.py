"""What we publish behind senders' labels, by RFC 2136: key records, and the bounce host's name.

The store says what shall stand at a name; DNS follows. Invariants:
1. before a record changes in the store, its update is put among those that are due (`dkimpush/`), and is taken
   from there only when DNS has what the store said at that moment: a primary that is away loses nothing
2. what was revoked stays so: no other key ever stands at that name
3. a record lives with the claim whose label it lies under: `sweep` revokes what belongs to nobody, whatever died
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from brandproxy.config import Settings
from brandproxy.core import dkim
from brandproxy.core.senders import Claims
from brandproxy.dnsupdate import Updater, open_updater
from brandproxy.errors import BadSettings, BrandproxyError, Conflict, Final, Retryable
from brandproxy.resolver import Resolver, parse_servers
from brandproxy.store import Store, keys
from brandproxy.store.records import Unreadable, readable

log = logging.getLogger(__name__)

_LOCK = 15.0  # seconds; longer than one update may take
_PATIENCE = 3.0  # seconds that who ends a claim waits for DNS; what is not done by then is due
BOUNCE = "_bounce"  # in the place of a selector: the name that the bounce host leads to
NO_MAIL = "v=spf1 -all"  # RFC 7208 §8.3: nobody sends in this name


@dataclass(frozen=True, slots=True)
class Record:
    """What stands at `name`: for a selector the key record, for `BOUNCE` the CNAME's target; `REVOKED` for ever
    after the claim; empty: nothing, or what was published before this was kept. `domain` empty: by a slug."""

    name: str
    tenant: str
    domain: str
    record: str = ""
    at: int = 0

    @property
    def revoked(self) -> bool:
        return self.record == dkim.REVOKED


_RECORD = TypeAdapter(Record)
_CLAIMS = TypeAdapter(Claims)


def load_claims(value: bytes) -> Claims:
    """Raises Unreadable."""
    try:
        return _CLAIMS.validate_json(value)
    except ValidationError as error:
        raise Unreadable("the claims to a sending domain cannot be read") from error


def dump_claims(claims: Claims) -> bytes:
    return _CLAIMS.dump_json(claims)


class Publication:
    def __init__(self, store: Store, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._store, self._settings, self._now = store, settings, now
        dns = settings.dns
        self._resolver = Resolver(
            parse_servers(dns.servers), parse_servers(dns.recursive), settings.outbound.networks
        )

    async def of(self, owner: str) -> dict[str, Record]:
        """Selector to record, of one label (or old slug)."""
        return dict(readable(await self._store.list(keys.dkim_record(owner)), lambda e: _read(e.key, e.value)))

    async def put(self, owner: str, selector: str, record: Record) -> None:
        """Let this stand at the name. Raises Conflict for a name whose claim ended, and what `push` raises."""
        self.updater()
        await self._claim(owner, selector, record)
        await self.push(keys.dkim_record(owner, selector))

    async def plan(self, owner: str, selector: str, record: Record) -> None:
        """The same, some time: now when the primary is there."""
        await self._claim(owner, selector, record)
        await self._try([keys.dkim_record(owner, selector)])

    async def revoke(self, *owners: str) -> None:
        """End all that was published under these labels, at once or as soon as the primary is there."""
        changed = []
        for owner in owners:
            for selector, record in (await self.of(owner)).items():
                if not record.revoked:
                    await self._write(owner, selector, replace(record, record=dkim.REVOKED))
                changed.append(keys.dkim_record(owner, selector))
        await self._try(changed)

    async def note(self, owner: str, selector: str, record: Record) -> None:
        """Keep what was published before records were kept; DNS stays as it is."""
        await self._store.create(keys.dkim_record(owner, selector), _RECORD.dump_json(record))

    async def waiting(self) -> list[Record]:
        """Records whose update is due."""
        found = [await self._store.get(key) for key in await self._due()]
        return readable(filter(None, found), lambda entry: _read(entry.key, entry.value)[1])

    async def retry(self) -> int:
        """Make every update that is due; how many still are."""
        left = 0
        for key in await self._due():
            try:
                await self.push(key)
            except BrandproxyError as error:
                left += 1
                log.warning("dns: %s waits: %s", key.removeprefix(keys.DKIM_RECORD), error)
        return left

    async def sweep(self) -> int:
        """Revoke what lies under labels that no claim has, and slugs that no tenant has; how many."""
        found = await self._store.list(keys.DKIM_RECORD)
        held = readable(found, lambda entry: (entry.key.split("/")[1], _read(entry.key, entry.value)[1]))
        gone = {owner for owner, record in held if not record.revoked and not await self._claimed(owner, record)}
        await self.revoke(*gone)
        return len(gone)

    async def _claim(self, owner: str, selector: str, record: Record) -> None:
        """Write for a claim. Who ended it meanwhile has revoked what was there before; this is revoked here."""
        await self._write(owner, selector, record)
        if not record.revoked and not await self._claimed(owner, record):
            await self.revoke(owner)
            raise Conflict(f"the claim that {record.name} belongs to has ended", "See `brandproxy sender list`.")

    async def _claimed(self, owner: str, record: Record) -> bool:
        if not record.domain:
            return await self._store.get(keys.tenant(owner)) is not None
        """Claims that cannot be read may hold it: nothing is revoked by mistake."""
        try:
            entry = await self._store.get(keys.sender(record.domain))
            return entry is not None and owner in {claim.label for claim in load_claims(entry.value)}
        except Final as error:
            log.error("dns: %s is kept: %s", record.name[:80], error)
            return True

    async def _write(self, owner: str, selector: str, record: Record) -> None:
        key, record = keys.dkim_record(owner, selector), replace(record, at=int(self._now()))
        value = _RECORD.dump_json(record)
        while True:
            await self._store.put(keys.dkim_push(key), b"")
            entry = await self._store.get(key)
            if entry is None:
                done = await self._store.create(key, value)
            elif _read(key, entry.value)[1].revoked and not record.revoked:
                raise Conflict(
                    f"what stood at {record.name} was revoked for good",
                    "A new claim has a new label: publish there.",
                )
            else:
                done = await self._store.replace(key, value, entry.version)
            if done:
                return

    async def _due(self) -> list[str]:
        found = await self._store.list(keys.DKIM_PUSH)
        return [keys.DKIM_RECORD + entry.key.removeprefix(keys.DKIM_PUSH) for entry in found]

    async def _try(self, record_keys: Iterable[str]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                for key in record_keys:
                    await self.push(key)
        except (BrandproxyError, TimeoutError) as error:
            log.warning("dns: an update of ours waits: %s", error or "the primary is slow")

    async def push(self, key: str) -> None:
        """Bring DNS to what the store says, if that is due. Raises UpdateAway, UpdateRefused, BadSettings, Locked.

        One at a time for a name: an older update never comes after a newer one.
        """
        due = keys.dkim_push(key)
        while (marked := await self._store.get(due)) is not None:
            async with self._store.lock(f"push/{key}", _LOCK):
                entry = await self._store.get(key)
                if entry is not None:
                    await self._update(*_read(key, entry.value))
                if await self._store.delete(due, marked.version):
                    return

    async def _update(self, selector: str, record: Record) -> None:
        updater, zone = self.updater(), await self.zone(record.name)
        if selector == BOUNCE:
            await updater.replace(zone, record.name, "CNAME", *([] if record.revoked else [f"{record.record}."]))
            if record.revoked:
                await updater.replace(zone, record.name, "TXT", f'"{NO_MAIL}"')
        else:
            text = record.record
            strings = [f'"{text[at : at + 255]}"' for at in range(0, len(text), 255)]
            await updater.replace(zone, record.name, "TXT", *([" ".join(strings)] if strings else []))

    async def zone(self, name: str) -> str:
        """The zone of ours that the name lies in."""
        above = name.partition(".")[2]
        while "." in above:
            if await self._resolver.apex(above):
                return above
            above = above.partition(".")[2]
        raise NoZone(f"{name} lies in no zone that answers")

    def updater(self) -> Updater:
        updater = open_updater(self._settings.dns)
        if updater is None:
            raise BadSettings("no primary is set that takes updates", "Set dns.update_server and dns.update_key.")
        return updater


class NoZone(Retryable):
    action = "Check dns.dkim_domain, dns.bounce_host and their name servers."


def _read(key: str, value: bytes) -> tuple[str, Record]:
    """Raises Unreadable."""
    try:
        return key.rpartition("/")[2], _RECORD.validate_json(value)
    except ValidationError as error:
        raise Unreadable(f"{key} cannot be read") from error
