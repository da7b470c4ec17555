"""API keys: who may ask what over HTTP. A key is `bp_<id>_<secret>`; the store keeps only its hash.

`Principal.tenant` None is the operator; otherwise the one tenant this key sees. Isolation is decided by
`Principal.sees`, and what a key may do by `Principal.require`, nowhere else. A key stored before there were
scopes has all of them.

When a key was last used is kept apart from its record, so that writing it can never bring back a key that was
revoked meanwhile; requests only remember it, and `keep_uses` writes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from brandproxy.errors import BadInput, Conflict, Final, NotFound, Retryable
from brandproxy.store import Entry, Store, keys
from brandproxy.store.records import Unreadable, readable

MAX_OVERLAP = 30 * 86400  # seconds that a rotated key may go on
_COARSE = 60  # seconds between two writes of one key's last use
_LONGEST = 400  # characters of a key that are looked at


class AccessDenied(Final):
    """No key, a wrong, revoked or expired key."""

    action = "Send `Authorization: Bearer KEY` with a key made by `brandproxy key create`."


class Forbidden(Final):
    """A valid key that may not do this."""

    action = "Use an operator's key (`brandproxy key create` without `--tenant`)."


class MissingScope(Forbidden):
    """A valid key without the scope that this needs; `scope` names it."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(
            f"this needs a key with the scope {scope}", f"Make one: `brandproxy key create --scope {scope}`."
        )
        self.scope = scope


class Scope(StrEnum):
    """What a key may do, within what it sees."""

    ANALYTICS_READ = "analytics:read"  # events and figures
    REWRITE = "rewrite"  # mail: rewriting over HTTP, logging in to the SMTP proxy
    ONBOARD = "onboard"  # read tenants, claim host names, look at their records
    ADMIN = "admin"  # change everything; includes onboard, but neither reading events nor rewriting


ALL = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `expires_at`: seconds, 0: never. `session`: the sign-in at the dashboard it comes from, if any."""

    key_id: str
    tenant: str | None
    scopes: frozenset[Scope]
    expires_at: int = 0
    session: str = ""

    def sees(self, tenant: str) -> bool:
        return self.tenant is None or self.tenant == tenant

    def has(self, scope: Scope) -> bool:
        return scope in self.scopes or (scope is Scope.ONBOARD and Scope.ADMIN in self.scopes)

    @property
    def scopes_named(self) -> list[str]:
        return [str(scope) for scope in Scope if scope in self.scopes]

    def require(self, scope: Scope) -> None:
        """Raises MissingScope (403)."""
        if not self.has(scope):
            raise MissingScope(scope)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """What is kept of a key: everything but the key. `replaces`: the id of the key it was rotated from."""

    id: str
    hash: str
    tenant: str | None
    note: str
    created_at: int
    scopes: tuple[str, ...] = tuple(Scope)
    expires_at: int = 0  # seconds; 0: never
    replaces: str = ""

    def valid(self, now: float) -> bool:
        return not self.expires_at or now < self.expires_at

    @property
    def principal(self) -> Principal:
        """A scope of a newer version that is not known here grants nothing."""
        return Principal(self.id, self.tenant, ALL & set(self.scopes), self.expires_at)


_KEY = TypeAdapter(AccessKey)


def scopes_of(names: Iterable[str]) -> frozenset[Scope]:
    """Scopes by their names. Raises BadInput for an unknown one and for none at all."""
    known = [str(scope) for scope in Scope]
    names = list(names)
    if unknown := [name for name in names if name not in known]:
        raise BadInput(f"no scope {unknown[0][:40]!r}", f"Use some of: {', '.join(known)}.")
    if not names:
        raise BadInput("a key without scopes may do nothing", f"Use some of: {', '.join(known)}.")
    return frozenset(map(Scope, names))


async def create_key(
    store: Store,
    tenant: str | None,
    note: str = "",
    scopes: Iterable[str] = tuple(Scope),
    expires_at: int = 0,
    replaces: str = "",
) -> tuple[AccessKey, str]:
    """A new key and its text, which is shown this once. Raises BadInput."""
    granted, now = scopes_of(scopes), int(time.time())
    if expires_at and not now < expires_at < 1 << 40:
        raise BadInput("expires_at has passed already, or is no time in seconds")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(24)
    ordered = tuple(scope for scope in Scope if scope in granted)
    key = AccessKey(key_id, _hash(secret), tenant, note, now, ordered, expires_at, replaces)
    await store.put(keys.access(key_id), _KEY.dump_json(key))
    return key, f"bp_{key_id}_{secret}"


async def rotate_key(store: Store, key_id: str, overlap: int, latest: int = 0) -> tuple[AccessKey, AccessKey, str]:
    """A new key that may do the same; the old one goes on for `overlap` seconds and then expires.

    `latest`: the new key expires by then (0: when the old one would have). Gives the old key, the new one and its
    text. Raises NotFound, BadInput, Conflict for a key that has expired.
    """
    if not 0 <= overlap <= MAX_OVERLAP:
        raise BadInput(f"an overlap is 0 to {MAX_OVERLAP // 86400} days")
    entry = await store.get(keys.access(key_id)) if key_id.isalnum() else None
    if entry is None:
        raise unknown(key_id)
    old, now = _load(entry), int(time.time())
    if not old.valid(now):
        raise Conflict(f"API key {key_id} has expired", "Make a new one: `brandproxy key create`.")
    ends = _earlier(old.expires_at, latest)
    made, text = await create_key(store, old.tenant, old.note, old.principal.scopes, ends, old.id)
    old = replace(old, expires_at=_earlier(old.expires_at, max(1, now + overlap)))
    if not await store.replace(entry.key, _KEY.dump_json(old), entry.version):
        await store.delete(keys.access(made.id))
        raise Conflict(f"API key {key_id} was changed or revoked meanwhile")
    return old, made, text


def _earlier(one: int, other: int) -> int:
    """The earlier of two ends, of which 0 is none."""
    return min(one, other) if one and other else one or other


async def list_keys(store: Store) -> list[AccessKey]:
    """Those that can be read."""
    return readable(await store.list(keys.ACCESS), _load)


def _load(entry: Entry) -> AccessKey:
    """Raises Unreadable."""
    try:
        key = _KEY.validate_json(entry.value)
    except ValidationError as error:
        raise Unreadable(f"{entry.key} cannot be read") from error
    if keys.access(key.id) != entry.key:
        raise Unreadable(f"{entry.key} holds API key {key.id[:80]!r}")
    return key


async def get_key(store: Store, key_id: str) -> AccessKey:
    """Raises NotFound."""
    entry = await store.get(keys.access(key_id)) if key_id.isalnum() and key_id.isascii() else None
    if entry is None:
        raise unknown(key_id)
    return _load(entry)


async def revoke_key(store: Store, key_id: str) -> AccessKey:
    """Remove a key; what was open with it ends within a heartbeat. Raises NotFound."""
    key = await get_key(store, key_id)
    if not await store.delete(keys.access(key_id)):
        raise unknown(key_id)
    await store.delete(keys.access_use(key_id))
    return key


def shown(key: AccessKey) -> dict[str, object]:
    """A key for the audit trail: what it grants, not its hash."""
    return {"tenant": key.tenant, "note": key.note, "scopes": key.scopes, "expires_at": key.expires_at or None}


def unknown(key_id: str) -> NotFound:
    return NotFound(f"no API key {key_id[:40]!r}", "See `brandproxy key list`.")


async def authenticate(store: Store, authorization: str) -> Principal:
    """The principal of an Authorization header's value. Raises AccessDenied."""
    scheme, _, text = authorization[:_LONGEST].partition(" ")
    parts = text.strip().split("_", 2)
    if scheme.lower() != "bearer" or len(parts) != 3 or parts[0] != "bp":
        raise AccessDenied("no valid API key was sent")
    key = await _stored(store, parts[1])
    if not hmac.compare_digest(key.hash if key else _hash(""), _hash(parts[2])) or key is None:
        raise AccessDenied("no valid API key was sent")
    return _admitted(key)


async def principal_of(store: Store, key_id: str) -> Principal:
    """Who a key stands for now, for one that proved earlier to hold it. Raises AccessDenied."""
    key = await _stored(store, key_id)
    if key is None:
        raise AccessDenied("this API key was revoked")
    return _admitted(key)


def _admitted(key: AccessKey) -> Principal:
    now = time.time()
    if not key.valid(now):
        raise AccessDenied("this API key has expired", "Make a new one: `brandproxy key create`.")
    _used[key.id] = int(now)
    return key.principal


async def _stored(store: Store, key_id: str) -> AccessKey | None:
    entry = await store.get(keys.access(key_id)) if key_id.isalnum() and key_id.isascii() else None
    try:
        return _load(entry) if entry else None
    except Unreadable:
        return None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


_used: dict[str, int] = {}  # key id -> second of its last use in this process; ids of valid keys only
_written: dict[str, int] = {}


async def last_uses(store: Store) -> dict[str, int]:
    """Key id -> second of its last use, at most a minute behind."""
    stored = await store.list(keys.ACCESS_USE)
    uses = readable(stored, lambda entry: (entry.key.removeprefix(keys.ACCESS_USE), int(entry.value)))
    found = {key_id: at for key_id, at in uses if 0 <= at < 1 << 40}
    return {key_id: max(found.get(key_id, 0), _used.get(key_id, 0)) for key_id in found.keys() | _used.keys()}


async def write_uses(store: Store) -> None:
    """Write the uses since the last call, each key's at most once a minute."""
    for key_id, at in list(_used.items()):
        if at - _written.get(key_id, 0) < _COARSE:
            continue
        if await store.get(keys.access(key_id)) is None:  # revoked meanwhile
            _used.pop(key_id, None)
            _written.pop(key_id, None)
            continue
        await store.put(keys.access_use(key_id), str(at).encode())
        _written[key_id] = at


async def keep_uses(store: Store, every: float = 5.0) -> None:
    """Write last uses for ever; what cannot be written now is written later."""
    while True:
        await asyncio.sleep(every)
        try:
            await write_uses(store)
        except Retryable:
            continue
