"""API keys over HTTP. Nobody makes a key that may do more, or lives longer, than the one they ask with."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager

from brandproxy import access, limits, web
from brandproxy.admin.operations import Call, Operation
from brandproxy.admin.views import AccessMade, AccessView, NewAccess, Rotation
from brandproxy.core import names

_ADMIN = access.Scope.ADMIN


async def list_keys(call: Call) -> list[AccessView]:
    found = [key for key in await access.list_keys(call.context.store) if call.who.tenant in (None, key.tenant)]
    uses = await access.last_uses(call.context.store)
    return [
        AccessView(
            key.id, key.tenant, key.note, key.created_at, [*key.principal.scopes_named], key.expires_at or None,
            uses.get(key.id), key.replaces or None,
        )
        for key in found
    ]  # fmt: skip


async def add_key(call: Call) -> AccessMade:
    """A key grants at most what its maker has, for at most as long."""
    wanted, who = call.body, call.who
    if wanted.tenant is None:
        call.operator()
    else:
        web.require_tenant(who, names.slug(wanted.tenant))
        await call.registry.tenant(wanted.tenant)
    scopes = who.scopes if wanted.scopes is None else access.scopes_of(wanted.scopes)
    _within(call, scopes)
    if who.expires_at and (wanted.expires_at or 0) > who.expires_at:
        raise access.Forbidden("the new key would outlive yours", "Ask for an earlier `expires_at`.")
    ends = wanted.expires_at or who.expires_at
    async with _room(call):
        key, text = await access.create_key(call.context.store, wanted.tenant, wanted.note[:500], scopes, ends)
    await call.registry.audit("key.create", key.id, tenant=key.tenant or "", after=access.shown(key))
    return _made(key, text)


async def rotate_access(call: Call) -> AccessMade:
    old = await _access(call)
    _within(call, old.principal.scopes)
    store, overlap = call.context.store, call.body.overlap_seconds
    async with _room(call):
        ending, key, text = await access.rotate_key(store, old.id, overlap, call.who.expires_at)
    before, after = access.shown(old), access.shown(ending) | {"replaced_by": key.id}
    await call.registry.audit("key.rotate", old.id, tenant=key.tenant or "", before=before, after=after)
    return _made(key, text)


async def revoke_access(call: Call) -> None:
    key = await access.revoke_key(call.context.store, (await _access(call)).id)
    await call.registry.audit("key.revoke", key.id, tenant=key.tenant or "", before=access.shown(key))


def _room(call: Call) -> AbstractAsyncContextManager[None]:
    async def count() -> int:
        found = await access.list_keys(call.context.store)
        return sum(key.tenant == call.who.tenant and key.valid(time.time()) for key in found)

    return limits.room(call.context.settings, call.who, "keys", count)


def _within(call: Call, scopes: frozenset[access.Scope]) -> None:
    """Nobody makes a key that may do more than their own. Raises MissingScope."""
    for scope in access.Scope:
        if scope in scopes:
            call.who.require(scope)


def _made(key: access.AccessKey, text: str) -> AccessMade:
    return AccessMade(key.id, text, [*key.principal.scopes_named], key.expires_at or None)


async def _access(call: Call) -> access.AccessKey:
    key = await access.get_key(call.context.store, call.path["id"])
    if call.who.tenant not in (None, key.tenant):
        raise access.unknown(key.id)
    return key


OPERATIONS = (
    Operation("GET", "/v1/keys", "List API keys", list_keys, list[AccessView], scope=_ADMIN),
    Operation("POST", "/v1/keys", "Make an API key", add_key, AccessMade, NewAccess, 201, scope=_ADMIN),
    Operation("DELETE", "/v1/keys/{id}", "Revoke an API key", revoke_access, scope=_ADMIN),
    Operation(
        "POST", "/v1/keys/{id}/rotate", "Make a key in its place; the old one goes on for the overlap",
        rotate_access, AccessMade, Rotation, 201, scope=_ADMIN,
    ),
)  # fmt: skip
