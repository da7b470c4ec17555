"""Who may send as whom: the map of logins in the store, and the sending domains that tenants have proven.

`add`, `remove` and `everything` keep the map; `Book` is a mail filter's copy in memory, fed with the changes the
directory hands on: 100,000 logins, in force within 2 s. Logins in `mail.logins` go before the store's.
"""

from __future__ import annotations

import json
import logging
from functools import lru_cache

from pydantic import TypeAdapter

from brandproxy import grants
from brandproxy.errors import BadInput, NotFound
from brandproxy.grants import Grant
from brandproxy.model import Sender, SenderState
from brandproxy.store import Change, Store, keys

log = logging.getLogger(__name__)

_SENDERS = TypeAdapter(tuple[Sender, ...])
_RANK = {SenderState.PROVEN: 0, SenderState.BROKEN: 1}  # broken: right once, and nobody else has proven it


async def add(store: Store, login: str, grant: Grant) -> str:
    """What a login (`user`, `user@domain`, `*@domain`) may do from now on; the login as kept. Raises BadInput."""
    name = _login(login)
    value = {"tenants": grant.tenants, "domains": grant.domains, "header": grant.header}
    await store.put(keys.identity(name), json.dumps(value).encode())
    return name


async def remove(store: Store, login: str) -> str:
    """Raises NotFound."""
    name = _login(login)
    if not await store.delete(keys.identity(name)):
        raise NotFound(f"no login {login[:80]!r} in the map", "See `brandproxy mail map list`.")
    return name


async def everything(store: Store) -> dict[str, Grant]:
    """By login, in their order."""
    found = {
        entry.key.removeprefix(keys.IDENTITY): _grant(entry.value) for entry in await store.list(keys.IDENTITY)
    }
    return {name: grant for name, grant in found.items() if grant is not None}


def _login(text: str) -> str:
    try:
        return grants.login(text)
    except ValueError as error:
        raise BadInput(str(error)) from error


@lru_cache(maxsize=1 << 14)
def _grant(value: bytes) -> Grant | None:
    """Logins with the same rights share one. What cannot be read gives none."""
    try:
        return grants.grant(json.loads(value))
    except ValueError:
        log.exception("map of logins: unreadable entry")
        return None


class Book:
    """`load` once, then hand every Change of the feed to `apply`."""

    def __init__(self) -> None:
        self.loaded = False
        self._logins: dict[str, Grant] = {}
        self.senders: dict[str, str] = {}  # domain -> tenant

    def login(self, pattern: str) -> Grant | None:
        return self._logins.get(pattern)

    async def load(self, store: Store) -> None:
        """Raises StoreUnavailable."""
        await self._load(store, await everything(store))

    async def load_for(self, store: Store, login: str) -> None:
        """All that is asked about this one login, for a process that handles one mail."""
        found: dict[str, Grant] = {}
        for pattern in grants.patterns(login):
            usable = 0 < len(pattern.encode("utf-8", "replace")) <= grants.MAX_LOGIN and pattern.isprintable()
            entry = await store.get(keys.identity(pattern)) if usable else None
            if entry is not None and (grant := _grant(entry.value)):
                found[pattern] = grant
        await self._load(store, found)

    async def _load(self, store: Store, logins: dict[str, Grant]) -> None:
        senders = [(entry.key, entry.value) for entry in await store.list(keys.SENDER)]
        self._logins, self.senders = logins, {}
        for key, value in senders:
            self._take_sender(key.removeprefix(keys.SENDER), value)
        self.loaded = True

    def apply(self, change: Change) -> None:
        if change.key.startswith(keys.IDENTITY):
            name = change.key.removeprefix(keys.IDENTITY)
            grant = _grant(change.value) if change.value is not None else None
            if grant is None:
                self._logins.pop(name, None)
            else:
                self._logins[name] = grant
        elif change.key.startswith(keys.SENDER):
            self._take_sender(change.key.removeprefix(keys.SENDER), change.value)

    def _take_sender(self, domain: str, value: bytes | None) -> None:
        self.senders.pop(domain, None)
        try:
            claims = [claim for claim in _SENDERS.validate_json(value or b"[]") if claim.state in _RANK]
        except ValueError:
            log.exception("sender %s: unreadable record", domain)
            return
        if claims:
            self.senders[domain] = min(claims, key=lambda claim: _RANK[claim.state]).tenant
