"""HTTP-01 answers (RFC 8555 §8.3) on any node, for the host that was ordered for: from memory, else one look at
the store."""

from __future__ import annotations

import asyncio

from brandproxy.errors import Retryable
from brandproxy.store import Change, Store, keys

_PATIENCE = 2.0  # seconds for the store


class Challenges:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._answers: dict[str, bytes] = {}

    async def load(self) -> None:
        for entry in await self._store.list(keys.CHALLENGE):
            self._answers[entry.key] = entry.value

    def apply(self, change: Change) -> None:
        if not change.key.startswith(keys.CHALLENGE):
            return
        if change.value is None:
            self._answers.pop(change.key, None)
        else:
            self._answers[change.key] = change.value

    async def get(self, host: str, token: str) -> bytes | None:
        key = keys.challenge(host, token)
        if key in self._answers:
            return self._answers[key]
        try:
            entry = await asyncio.wait_for(self._store.get(key), _PATIENCE)
        except (Retryable, TimeoutError):
            return None
        return entry.value if entry else None
