"""The store, written with an audit entry for every change; and records to store values and back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from copy import copy
from typing import Self, TypeVar

from pydantic import TypeAdapter

from brandproxy.config import Settings
from brandproxy.core.ids import uuid7
from brandproxy.errors import BadInput, NotFound
from brandproxy.model import Host, Tenant
from brandproxy.store import Entry, Store, keys
from brandproxy.store.records import Unreadable, mended
from brandproxy.store.seal import Seal, open_seal
from brandproxy.values import faults

T = TypeVar("T")

_TENANT = TypeAdapter(Tenant)
_HOST = TypeAdapter(Host)

# What of a record may be put right when it is read. Never who it is, what it signs with or where its mail goes.
_MENDED = ("name", "policy", "origins", "home", "apple_app_site_association", "assetlinks", "created_at")
_MENDED_HOST = ("reason", "since", "created_at")


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

    def claim(self, key: str, value: bytes) -> Host:
        """A claim beside the host's record."""
        host = mended(_HOST, key, value, _MENDED_HOST)
        if keys.claim(host.name, host.tenant) != key:
            raise Unreadable(f"{key} holds a claim of {host.name[:80]!r}")
        return host

    def dump(self, record: Tenant | Host) -> bytes:
        if wrong := faults(record):
            raise BadInput("; ".join(wrong), "See the ranges and forms in `/openapi.json`.")
        if isinstance(record, Tenant):
            return self.seal.seal(_TENANT.dump_json(record))
        return _HOST.dump_json(record)


class Audited:
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

    def acting(self, actor: str) -> Self:
        """The same in another name for the audit trail."""
        other = copy(self)
        other._actor = actor
        return other

    async def tenant(self, slug: str) -> Tenant:
        entry = await self.store.get(keys.tenant(slug))
        if entry is None:
            raise NotFound(
                f"no tenant {slug!r}", "See `brandproxy tenant list`, or add it: `brandproxy tenant add`."
            )
        return self.codec.tenant(entry.key, entry.value)

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
