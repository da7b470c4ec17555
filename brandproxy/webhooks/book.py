"""What the store keeps of webhooks. Invariant: a secret is sealed and shown once, when it is made.

webhook/<id>          Webhook            webhook-place/<id>[/<lane>]  Place
webhook-dead/<id>/…   Batch given up on
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from brandproxy.context import Context
from brandproxy.core import urls
from brandproxy.core.ids import uuid7
from brandproxy.errors import BadInput, Conflict, NotFound
from brandproxy.model import Seconds
from brandproxy.store import Entry, keys
from brandproxy.store.records import Unreadable, readable
from brandproxy.values import Whole
from brandproxy.webhooks import notices

EVENTS = ("click", "open", "unsubscribe")
KINDS = (*EVENTS, *notices.KINDS)
GROUPS = {"host": notices.HOSTS, "certificate": notices.CERTIFICATES}  # short for all of these

Micros = Annotated[int, Whole(0, 1 << 62)]
Mark = tuple[Micros, str]  # a place in a lane's order
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Webhook:
    """`tenant` "" sees all tenants. `disabled` tells why nothing is sent; empty: it is active."""

    id: str
    tenant: str
    url: str
    kinds: tuple[str, ...]
    machines: bool
    secret: str = field(repr=False)  # sealed
    created_at: Seconds
    disabled: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """What lies behind `after` up to and with `upto` in its lane. `id` is the webhook-id header."""

    id: str
    after: Mark
    upto: Mark
    attempts: Annotated[int, Whole(0, 1000)] = 0
    next_at: float = 0.0  # seconds
    error: str = ""
    lane: str = "events"


@dataclass(frozen=True, slots=True)
class Place:
    """Everything up to `after` is delivered or given up; `batch` is being tried. `version` is the store's."""

    after: Mark
    batch: Batch | None = None
    version: int = 0


class Book:
    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._seal = context.registry.codec.seal

    async def add(self, tenant: str, url: str, kinds: tuple[str, ...], machines: bool) -> tuple[Webhook, str]:
        """A new webhook and its secret. It gets what happens from now on. Raises BadInput."""
        reason = urls.refusal(url)
        if reason is not None:
            raise BadInput(f"the URL cannot be used: {reason}")
        wanted = {one for kind in kinds for one in GROUPS.get(kind, (kind,))}
        if not kinds or wanted - set(KINDS):
            raise BadInput("kinds are none or unknown", f"Choose some of {', '.join((*KINDS, *GROUPS))}.")
        kinds = tuple(kind for kind in KINDS if kind in wanted)
        now = time.time()
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        sealed = self._seal.seal(secret.encode()).decode()
        hook = Webhook(secrets.token_hex(8), tenant, url, kinds, machines, sealed, int(now))
        await self.place(hook.id, "events", Place((int(now * 1e6), "")))
        version = await self._put(keys.webhook(hook.id), hook)
        await self.place(hook.id, "changes", Place((version, "")))
        return hook, secret

    async def all(self) -> list[Webhook]:
        """Those that can be read."""
        return readable(await self._store.list(keys.WEBHOOK), _webhook)

    async def versions(self) -> list[tuple[Webhook, int]]:
        """Those that can be read, each with the version of its record."""
        entries = await self._store.list(keys.WEBHOOK)
        return readable(entries, lambda entry: (_webhook(entry), entry.version))

    async def get(self, hook_id: str) -> Webhook:
        entry = await self._store.get(keys.webhook(hook_id)) if hook_id.isalnum() else None
        if entry is None:
            raise NotFound(f"no webhook {hook_id!r}", "See `brandproxy webhook list`.")
        return _webhook(entry)

    async def remove(self, hook_id: str) -> None:
        hook = await self.get(hook_id)
        await self._store.delete(keys.webhook(hook.id))
        for lane in ("events", "changes"):
            await self._store.delete(keys.webhook_place(hook.id, lane))
        for batch in await self.dead(hook.id):
            await self.bury(hook.id, batch, False)

    async def disable(self, hook: Webhook, why: str) -> None:
        await self._put(keys.webhook(hook.id), replace(hook, disabled=why))

    async def enable(self, hook: Webhook) -> None:
        await self._put(keys.webhook(hook.id), replace(hook, disabled=""))

    def secret(self, hook: Webhook) -> str:
        return self._seal.open(hook.secret.encode()).decode()

    async def whereabouts(self, hook: Webhook, lane: str = "events") -> Place:
        entry = await self._store.get(keys.webhook_place(hook.id, lane))
        if entry is None:  # the store's versions are microseconds, too
            return Place((hook.created_at * 1_000_000, ""))
        return replace(_load(_PLACE, entry), version=entry.version)

    async def place(self, hook_id: str, lane: str, place: Place) -> None:
        """Move on. Raises Conflict when another node did meanwhile: what it sent must not be sent once more."""
        key, value = keys.webhook_place(hook_id, lane), json.dumps(asdict(replace(place, version=0))).encode()
        if not place.version:
            await self._store.put(key, value)
        elif not await self._store.replace(key, value, place.version):
            raise Conflict(f"webhook {hook_id} was moved on by another node")

    async def dead(self, hook_id: str) -> list[Batch]:
        """Batches given up on, oldest first. `next_at` above 0: asked to be sent again."""
        entries = await self._store.list(keys.webhook_dead(hook_id, ""))
        return readable(entries, lambda entry: _load(_BATCH, entry))

    async def bury(self, hook_id: str, batch: Batch, keep: bool = True) -> None:
        """Keep a batch among the dead, or with `keep` false let it go."""
        key = keys.webhook_dead(hook_id, batch.id)
        await self._put(key, batch) if keep else await self._store.delete(key)

    async def replay(self, hook_id: str) -> int:
        """Have every dead batch sent once more, and a disabled webhook tried again; how many batches."""
        hook = await self.get(hook_id)
        batches = await self.dead(hook_id)
        for batch in batches:
            await self.bury(hook_id, replace(batch, next_at=1.0))
        await self.enable(hook)
        return len(batches)

    async def _put(self, key: str, value: Any) -> int:
        return await self._store.put(key, json.dumps(asdict(value)).encode())


def new_batch(after: Mark, upto: Mark) -> Batch:
    return Batch(f"msg_{uuid7(int(time.time() * 1000))}", after, upto)


_WEBHOOK, _BATCH, _PLACE = TypeAdapter(Webhook), TypeAdapter(Batch), TypeAdapter(Place)


def _webhook(entry: Entry) -> Webhook:
    hook = _load(_WEBHOOK, entry)
    if keys.webhook(hook.id) != entry.key:
        raise Unreadable(f"{entry.key} holds webhook {hook.id[:80]!r}")
    return hook


def _load(kind: TypeAdapter[T], entry: Entry) -> T:
    try:
        return kind.validate_json(entry.value)
    except ValidationError as error:
        raise Unreadable(f"{entry.key} cannot be read") from error
