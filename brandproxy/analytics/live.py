"""The live feed: server-sent events (WHATWG HTML §9.2) of what has just been ingested.

One watcher asks the engine for the newest events while anybody listens, and hands them to every listener whose
filter they match; asking the engine rather than the collector makes every control node tell everything.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from brandproxy.analytics.export import FIELDS, event
from brandproxy.analytics.filters import Filter
from brandproxy.engines import Engine
from brandproxy.errors import Retryable
from brandproxy.web import TooManyRequests

# ruff: noqa: S608 (only constants and bound parameters become SQL)

POLL = 0.4  # seconds
_LATE = 15_000_000  # microseconds: an event ingested later than this after it happened is not live any more
_HEARTBEAT = 15.0  # seconds; keeps proxies from closing an idle stream
_WAITING = 1000  # events a slow listener may lag behind before the oldest are dropped
_MOST = 2000  # events told in one turn; beyond that nobody can follow them


class Live:
    def __init__(self, engine: Engine, feeds: int) -> None:
        """`feeds`: those that one tenant, or one operator's key, may have open: each costs memory and a filter
        pass per event."""
        self._engine, self._feeds = engine, feeds
        self._listeners: dict[asyncio.Queue[dict[str, Any]], Filter] = {}
        self._keys: Counter[str] = Counter()
        self._watcher: asyncio.Task[None] | None = None

    def stream(self, f: Filter, key: str) -> AsyncIterator[bytes]:
        """The feed of one listener, from now on; ends when the listener goes.

        `key` is the tenant's slug or the operator's key id. Raises TooManyRequests when it has all its feeds open.
        """
        if self._keys[key] >= self._feeds:
            raise TooManyRequests(
                f"{key} has {self._feeds} live feeds open", "Close one, or share one between readers."
            )
        return self._stream(f, key)

    async def _stream(self, f: Filter, key: str) -> AsyncIterator[bytes]:
        if self._keys[key] >= self._feeds:  # others that asked at the same time were first
            return
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)
        self._listeners[queue] = f
        self._keys[key] += 1
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        try:
            yield b"retry: 2000\n: brandproxy\n\n"
            while True:
                try:
                    async with asyncio.timeout(_HEARTBEAT):
                        found = await queue.get()
                    yield f"id: {found['id']}\nevent: event\ndata: {json.dumps(found)}\n\n".encode()
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            del self._listeners[queue]
            self._keys[key] -= 1
            self._keys += Counter()  # forgets keys that listen no more

    async def _watch(self) -> None:
        seen: dict[str, int] | None = None
        while self._listeners:
            try:
                rows = await self._newest()
            except Retryable:
                rows = []
            for row in rows if seen is not None else ():
                if row[0] not in (seen or {}):
                    self._tell(event(row))
            oldest = _now_us() - 2 * _LATE
            seen = {i: at for i, at in (seen or {}).items() if at > oldest} | {row[0]: row[2] for row in rows}
            await asyncio.sleep(POLL)

    async def _newest(self) -> list[tuple[Any, ...]]:
        rows = await self._engine.query(
            f"SELECT {', '.join(FIELDS)} FROM events WHERE at_us >= $since ORDER BY at_us DESC LIMIT {_MOST}",
            {"since": _now_us() - _LATE},
        )
        return rows[::-1]

    def _tell(self, found: dict[str, Any]) -> None:
        for queue, f in self._listeners.items():
            if matches(f, found):
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(found)


def matches(f: Filter, found: dict[str, Any]) -> bool:
    """Whether an event is one that a filter asks for; a live filter has no end."""
    for name in ("tenant", "campaign", "message", "recipient", "host", "kind", "link"):
        value = getattr(f, name)
        if value not in ("", None) and found[name] != value:
            return False
    return f.machines == "include" or bool(found["machine"]) == (f.machines == "only")


def _now_us() -> int:
    return int(time.time() * 1e6)
