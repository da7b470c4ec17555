"""Sign-ins at the dashboard. The cookie holds a random id; the record holds which key signed in and until when,
never the key. A sign-in ends when it is signed out, with its key, and by itself.

The record lies under the hash of the id, so that reading the store gives nobody a session, and is sealed with
that hash in it, so that writing the store gives nobody one either.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import replace

from brandproxy import access
from brandproxy.access import AccessDenied, Principal
from brandproxy.store import Store, keys
from brandproxy.store.records import BROKEN
from brandproxy.store.seal import Seal

SECONDS = 12 * 3600


async def begin(store: Store, seal: Seal, who: Principal) -> str:
    """A new session of a key that was just authenticated: the cookie's value."""
    await _sweep(store, seal)
    text, now = secrets.token_urlsafe(32), int(time.time())
    digest, until = _digest(text), min(now + SECONDS, who.expires_at or now + SECONDS)
    await store.put(keys.session(digest), seal.seal(json.dumps([digest, who.key_id, until]).encode()))
    return text


async def principal_of(store: Store, seal: Seal, text: str) -> Principal:
    """Who is signed in. Raises AccessDenied."""
    return await _by_digest(store, seal, _digest(text))


async def still(store: Store, seal: Seal, who: Principal) -> bool:
    """Whether a principal that was authenticated earlier would be so again."""
    try:
        await (_by_digest(store, seal, who.session) if who.session else access.principal_of(store, who.key_id))
    except AccessDenied:
        return False
    return True


async def end(store: Store, text: str) -> None:
    await store.delete(keys.session(_digest(text)))


async def _by_digest(store: Store, seal: Seal, digest: str) -> Principal:
    entry = await store.get(keys.session(digest))
    found = _record(seal, entry.value) if entry else None
    if found is None or found[0] != digest or found[2] <= time.time():
        raise AccessDenied("the session is over", "Sign in again.")
    who = await access.principal_of(store, found[1])
    return replace(who, expires_at=min(found[2], who.expires_at or found[2]), session=digest)


async def _sweep(store: Store, seal: Seal) -> None:
    for entry in await store.list(keys.SESSION):
        found = _record(seal, entry.value)
        if found is None or found[2] <= time.time():
            await store.delete(entry.key, entry.version)


def _record(seal: Seal, value: bytes) -> tuple[str, str, int] | None:
    """(digest of the id, key id, end in seconds), or None for what is none of ours."""
    try:
        digest, key_id, until = json.loads(seal.open(value))
        return str(digest), str(key_id), int(until)
    except BROKEN:
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
