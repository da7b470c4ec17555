"""The lane of hosts and certificates: each notice is a message of its own, in the order of the store's versions.

Invariant: a place passes a notice only when every older one was at hand. Two listings and the change feed make it
so: what the first listing saw the newest of, the second has all before; what is newer comes by the feed, in order.
"""

from __future__ import annotations

import asyncio
import bisect
import time
from collections.abc import Callable
from datetime import UTC, datetime

from brandproxy.context import Context
from brandproxy.store import Change, Store, keys
from brandproxy.store.records import tell
from brandproxy.webhooks.book import Batch, Mark, Webhook
from brandproxy.webhooks.delivery import Message
from brandproxy.webhooks.notices import KEPT, KINDS, Notice, load

_TIDY = 60.0  # seconds between looks for notices that are missing or too old
_AT_WORK = 10  # seconds after a change in which its own node writes the notice


class ChangeLane:
    """The directory must be followed beside it. `close` when done."""

    name: str = "changes"
    kinds: tuple[str, ...] = KINDS

    def __init__(self, context: Context) -> None:
        self._store, self._registry = context.store, context.registry.acting("webhooks")
        self._directory = context.directory
        self._known: dict[int, tuple[str, Notice]] = {}  # version -> (id, notice)
        self._order: list[int] = []
        self._fresh: list[str] = []  # keys the feed told of, in its order
        self._loaded, self._tidied = False, 0.0
        self._passed: dict[str, int] = {}  # webhook -> up to here nothing concerns it; not looked at every second
        self._looked = 0  # up to here `news` told
        self._reading = asyncio.Lock()
        self._directory.changed.append(self._told)
        self._directory.reloaded.append(self._lost)

    def close(self) -> None:
        self._directory.changed.remove(self._told)
        self._directory.reloaded.remove(self._lost)

    async def news(self) -> Callable[[Webhook], bool]:
        await self._refresh()
        newest = self._order[bisect.bisect_right(self._order, self._looked) :]
        fresh = {(self._known[version][1].kind, self._known[version][1].tenant) for version in newest}
        everything = not self._looked
        self._looked = max(self._order[-1] if self._order else 0, 1)

        def concerns(hook: Webhook) -> bool:
            return everything or any(k in hook.kinds and hook.tenant in ("", tenant) for k, tenant in fresh)

        return concerns

    async def next(self, hook: Webhook, after: Mark) -> Batch | None:
        await self._refresh()
        behind = max(after[0], self._passed.get(hook.id, 0))
        for version in self._order[bisect.bisect_right(self._order, behind) :]:
            notice_id, notice = self._known[version]
            if notice.kind in hook.kinds and hook.tenant in ("", notice.tenant):
                return Batch(f"msg_{notice_id}", after, (version, ""), lane=self.name)
            self._passed[hook.id] = version
        return None

    async def message(self, hook: Webhook, batch: Batch) -> Message | None:
        await self._refresh()
        found = self._known.get(batch.upto[0])
        if found is None:  # kept no longer
            return None
        notice = found[1]
        at = datetime.fromtimestamp(notice.at, UTC).isoformat().replace("+00:00", "Z")
        return Message(notice.kind, at, {"tenant": notice.tenant, **notice.data})

    def _told(self, change: Change) -> None:
        if change.key.startswith(keys.NOTICE) and change.value is not None:
            self._fresh.append(change.key)

    async def _lost(self, store: Store) -> None:
        self._loaded = False

    async def _refresh(self) -> None:
        async with self._reading:
            if not self._loaded:
                await self._load()
            while self._fresh:
                entry = await self._store.get(self._fresh[0])
                if entry is not None:
                    self._learn(entry.version, entry.key, entry.value)
                self._fresh.pop(0)
            if self._tidied < time.monotonic() - _TIDY:
                await self._tidy()
                self._tidied = time.monotonic()

    async def _load(self) -> None:
        first = await self._store.list(keys.NOTICE)
        newest = max((entry.version for entry in first), default=0)
        for entry in await self._store.list(keys.NOTICE):
            if entry.version <= newest:
                self._learn(entry.version, entry.key, entry.value)
        self._loaded = True

    def _learn(self, version: int, key: str, value: bytes) -> None:
        """A notice that cannot be read is passed over."""
        if version in self._known:
            return
        try:
            notice = load(value)
        except ValueError as error:
            tell(key, value, error)
            return
        self._known[version] = (key.removeprefix(keys.NOTICE), notice)
        bisect.insort(self._order, version)

    async def _tidy(self) -> None:
        """Old notices go; a change whose node died before it could tell is told now."""
        now, oldest = time.time(), time.time() - KEPT
        for version in [version for version in self._order if self._known[version][1].at < oldest]:
            notice_id, _ = self._known.pop(version)
            self._order.remove(version)
            await self._store.delete(keys.notice(notice_id))
        told = {notice_id for notice_id, _ in self._known.values()}
        for host in self._directory.hosts():
            if host.change and host.change not in told and oldest + _TIDY < host.since < now - _AT_WORK:
                await self._registry.tell(host)
