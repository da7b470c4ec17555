"""Forgetting objects on every edge: an order in the store, carried to each cache by the change feed.

Orders stay in the store for `_KEPT` seconds, so that an edge that was off when it was given obeys it when it
starts: `apply` drops what was fetched before the order.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter

from brandproxy.core import policy
from brandproxy.errors import BadInput
from brandproxy.model import Policy, Tenant
from brandproxy.storage.cache import Cache
from brandproxy.storage.disk import Disk, object_name
from brandproxy.store import Change, Store, keys

log = logging.getLogger(__name__)

_KEPT = 60 * 86400
_SKEW = 60.0  # seconds the clocks of machines may differ


@dataclass(frozen=True, slots=True)
class Purge:
    """Forget all of a tenant's objects fetched before `at` (seconds), or one of them in all its forms."""

    tenant: str
    at: Annotated[float, Field(ge=0, le=1e12)]
    origin: str = ""
    path: str = ""

    @property
    def object(self) -> str:
        return object_name(self.origin, self.path) if self.origin else ""


_PURGE = TypeAdapter(Purge)


def of_url(tenant: Tenant, url: str, now: float) -> Purge:
    """The order for the object that a public URL of the tenant names. Raises BadInput when none does."""
    found = policy.asset(Policy(), tenant.origins, url)
    if isinstance(found, str):
        raise BadInput(f"{url[:120]}: {found}", "Use a URL under a public prefix of one of the tenant's origins.")
    return Purge(tenant.slug, now, found[0], found[1])


async def give(store: Store, purge: Purge) -> None:
    """Every edge forgets within seconds. Old orders of the tenant go."""
    await store.put(keys.purge(purge.tenant, purge.object), json.dumps(asdict(purge)).encode())
    for entry in await store.list(keys.purge(purge.tenant, "")):
        old = _read(entry.value)
        if old is None or old.at < purge.at - _KEPT:
            await store.delete(entry.key, entry.version)


async def obey_all(store: Store, cache: Cache, disk: Disk) -> None:
    """Orders given while this machine was off, or had lost the change feed."""
    for entry in await store.list(keys.PURGE):
        purge = _read(entry.value)
        if purge is not None:
            cache.forget(purge.tenant, purge.origin, purge.path)
            disk.forget(purge.tenant, purge.object, before=purge.at + _SKEW)


def apply(change: Change, cache: Cache, disk: Disk) -> None:
    """An order that was just given. Other changes are none of ours."""
    if not change.key.startswith(keys.PURGE) or change.value is None:
        return
    purge = _read(change.value)
    if purge is not None and time.time() - purge.at < _KEPT:
        cache.forget(purge.tenant, purge.origin, purge.path)
        disk.forget(purge.tenant, purge.object)


def _read(value: bytes) -> Purge | None:
    try:
        return _PURGE.validate_json(value)
    except ValueError:
        log.error("purge: unreadable order")
        return None
