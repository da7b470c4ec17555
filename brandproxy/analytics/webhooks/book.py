"""What the store keeps of webhooks. Invariant: a secret is sealed and shown once, when it is made.

webhook/<id>          Webhook            webhook-place/<id>        Place
webhook-dead/<id>/…   Batch given up on
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from brandproxy.context import Context
from brandproxy.core import urls
from brandproxy.core.ids import uuid7
from brandproxy.errors import BadInput, NotFound
from brandproxy.store import Entry, keys

KINDS = ("click", "open", "unsubscribe")
START = (0, "")


@dataclass(frozen=True, slots=True)
class Webhook:
    """`tenant` "" sees all tenants. `disabled` tells why nothing is sent; empty: it is active."""

    id: str
    tenant: str
    url: str
    kinds: tuple[str, ...]
    machines: bool
    secret: str  # sealed
    created_at: int
    disabled: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events behind `after` up to and with `upto`, both (seen_us, event id). `id` is the webhook-id header."""

    id: str
    after: tuple[int, str]
    upto: tuple[int, str]
    attempts: int = 0
    next_at: float = 0.0  # seconds
    error: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Everything up to `after` is delivered or given up; `batch` is being tried."""

    after: tuple[int, str]
    batch: Batch | None = None


class Book:
    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._seal = context.registry.codec.seal

    async def add(self, tenant: str, url: str, kinds: tuple[str, ...], machines: bool) -> tuple[Webhook, str]:
        """A new webhook and its secret. It gets events from now on. Raises BadInput."""
        reason = urls.refusal(url)
        if reason is not None:
            raise BadInput(f"the URL cannot be used: {reason}")
        if not kinds or set(kinds) - set(KINDS):
            raise BadInput("kinds are none or unknown", f"Choose some of {', '.join(KINDS)}.")
        now = time.time()
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        sealed = self._seal.seal(secret.encode()).decode()
        hook = Webhook(secrets.token_hex(8), tenant, url, kinds, machines, sealed, int(now))
        await self.place(hook.id, Place((int(now * 1e6), "")))
        await self._put(keys.webhook(hook.id), hook)
        return hook, secret

    async def all(self) -> list[Webhook]:
        return [_webhook(entry) for entry in await self._store.list(keys.WEBHOOK)]

    async def get(self, hook_id: str) -> Webhook:
        entry = await self._store.get(keys.webhook(hook_id)) if hook_id.isalnum() else None
        if entry is None:
            raise NotFound(f"no webhook {hook_id!r}", "See `brandproxy webhook list`.")
        return _webhook(entry)

    async def remove(self, hook_id: str) -> None:
        hook = await self.get(hook_id)
        await self._store.delete(keys.webhook(hook.id))
        await self._store.delete(keys.webhook_place(hook.id))
        for batch in await self.dead(hook.id):
            await self.bury(hook.id, batch, False)

    async def disable(self, hook: Webhook, why: str) -> None:
        await self._put(keys.webhook(hook.id), replace(hook, disabled=why))

    async def enable(self, hook: Webhook) -> None:
        await self._put(keys.webhook(hook.id), replace(hook, disabled=""))

    def secret(self, hook: Webhook) -> str:
        return self._seal.open(hook.secret.encode()).decode()

    async def whereabouts(self, hook: Webhook) -> Place:
        entry = await self._store.get(keys.webhook_place(hook.id))
        if entry is None:
            return Place((hook.created_at * 1_000_000, ""))
        found = json.loads(entry.value)
        return Place(tuple(found["after"]), found["batch"] and _batch(found["batch"]))

    async def place(self, hook_id: str, place: Place) -> None:
        await self._put(keys.webhook_place(hook_id), place)

    async def dead(self, hook_id: str) -> list[Batch]:
        """Batches given up on, oldest first. `next_at` above 0: asked to be sent again."""
        return [
            _batch(json.loads(entry.value)) for entry in await self._store.list(keys.webhook_dead(hook_id, ""))
        ]

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

    async def _put(self, key: str, value: Any) -> None:
        await self._store.put(key, json.dumps(asdict(value)).encode())


def new_batch(after: tuple[int, str], upto: tuple[int, str]) -> Batch:
    return Batch(f"msg_{uuid7(int(time.time() * 1000))}", after, upto)


def _webhook(entry: Entry) -> Webhook:
    found = json.loads(entry.value)
    return Webhook(**found | {"kinds": tuple(found["kinds"])})


def _batch(found: dict[str, Any]) -> Batch:
    return Batch(**found | {"after": tuple(found["after"]), "upto": tuple(found["upto"])})
