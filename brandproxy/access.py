"""API keys: who may ask what over HTTP. A key is `bp_<id>_<secret>`; the store keeps only its hash.

`Principal.tenant` None is the operator; otherwise the one tenant this key sees. Isolation is decided by
`Principal.sees`, nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from dataclasses import asdict, dataclass

from brandproxy.errors import Final, NotFound
from brandproxy.store import Store, keys


class AccessDenied(Final):
    """No key, a wrong key, or a key for another tenant."""

    action = "Send `Authorization: Bearer KEY` with a key made by `brandproxy key create`."


class Forbidden(Final):
    """A valid key that may not do this."""

    action = "Use an operator's key (`brandproxy key create` without `--tenant`)."


@dataclass(frozen=True, slots=True)
class Principal:
    key_id: str
    tenant: str | None

    def sees(self, tenant: str) -> bool:
        return self.tenant is None or self.tenant == tenant


@dataclass(frozen=True, slots=True)
class AccessKey:
    """What is kept of a key: everything but the key."""

    id: str
    hash: str
    tenant: str | None
    note: str
    created_at: int


async def create_key(store: Store, tenant: str | None, note: str = "") -> tuple[AccessKey, str]:
    """A new key and its text, which is shown this once."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(24)
    key = AccessKey(key_id, _hash(secret), tenant, note, int(time.time()))
    await store.put(keys.access(key_id), json.dumps(asdict(key)).encode())
    return key, f"bp_{key_id}_{secret}"


async def list_keys(store: Store) -> list[AccessKey]:
    return [AccessKey(**json.loads(entry.value)) for entry in await store.list(keys.ACCESS)]


async def revoke_key(store: Store, key_id: str) -> None:
    if not await store.delete(keys.access(key_id)):
        raise NotFound(f"no API key {key_id!r}", "See `brandproxy key list`.")


async def authenticate(store: Store, authorization: str) -> Principal:
    """The principal of an Authorization header's value. Raises AccessDenied."""
    scheme, _, text = authorization.partition(" ")
    parts = text.strip().split("_", 2)
    if scheme.lower() != "bearer" or len(parts) != 3 or parts[0] != "bp":
        raise AccessDenied("no valid API key was sent")
    entry = await store.get(keys.access(parts[1])) if parts[1].isalnum() else None
    key = AccessKey(**json.loads(entry.value)) if entry else None
    if not hmac.compare_digest(key.hash if key else _hash(""), _hash(parts[2])) or key is None:
        raise AccessDenied("no valid API key was sent")
    return Principal(key.id, key.tenant)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
