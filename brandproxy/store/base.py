"""The store's contract. One test suite (`tests/store/`) holds every home to it.

- A value is bytes, at most 1 MiB; a key is text without control characters, 1 to 512 bytes. Anything else
  raises `BadInput` before the store is asked.
- `create`, `replace` and `delete` with a version are atomic between all processes and nodes. Versions grow over
  the whole store and are never given twice, so a key removed and made again is another version.
- A write that returned has reached the store's own durability; one that raised `StoreUnavailable` may or may
  not have happened, and may be repeated.
- `watch` yields one Change for every write after its cursor, in order. The value is the key's newest at the
  moment of delivery, so the last state of every key is always among what it yields. While the store is away it
  raises `StoreUnavailable`: watch again from the last cursor seen, and nothing is missed. A cursor the feed no
  longer holds (too old, or of writes a fail-over lost) raises `CursorLost`: list again.
- A lock is a lease: it ends by itself `ttl` seconds after its last renewal. Its `fence` grows with every
  grant of that lock. A holder that cannot renew in time is cancelled inside its block, which then raises
  `LockLost`. What is written in the block, also by tasks begun there, is written only while the lock is held: the
  store checks it in the same step, so that a process that slept through its lease overwrites nothing (`LockLost`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from brandproxy.errors import BadInput, Final, Retryable

MAX_VALUE = 1 << 20
MAX_KEY = 512
FEED_KEPT = 50_000  # changes the feed holds at least; a watcher further behind lists again


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class LockLost(Retryable):
    """The lease ended while its block still ran: another may hold it by now."""

    action = "Start again; look first at what was already done."


class CursorLost(Final):
    action = "List the prefix again and watch from the new cursor."


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    value: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Change:
    """`value` None: the key was deleted. `cursor` resumes behind this change."""

    cursor: str
    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Lease:
    name: str
    fence: int


class Store(Protocol):
    async def get(self, key: str) -> Entry | None: ...

    async def list(self, prefix: str) -> list[Entry]:
        """All entries under the prefix, ordered by key, each as it was at some moment during the call."""

    async def create(self, key: str, value: bytes) -> bool:
        """Write only if the key is absent; False when it was there."""

    async def put(self, key: str, value: bytes) -> int:
        """Write whatever was there; the new version."""

    async def replace(self, key: str, value: bytes, version: int) -> bool:
        """Write only if the key still has this version; False otherwise."""

    async def delete(self, key: str, version: int | None = None) -> bool:
        """Remove (only at this version, when given); False when nothing was removed."""

    def lock(self, name: str, ttl: float = 30.0) -> AbstractAsyncContextManager[Lease]:
        """Hold the named lock in the block, renewed while it runs. Raises `Locked` when another holds it, and
        `LockLost` when it could not be kept."""

    async def cursor(self) -> str:
        """The present end of the change feed; watch from here after a `list`."""

    def watch(self, prefix: str, cursor: str) -> AsyncIterator[Change]:
        """Changes under the prefix after `cursor`, for ever. Raises `CursorLost`, `StoreUnavailable`."""

    async def close(self) -> None: ...


def check(key: str, value: bytes = b"") -> None:
    """Raises BadInput when a key or value is outside the contract's bounds."""
    if _CONTROL.search(key) or not 0 < len(key.encode()) <= MAX_KEY:
        raise BadInput(f"not a store key: {key[:80]!r}", "Use 1 to 512 bytes without control characters.")
    if len(value) > MAX_VALUE:
        raise BadInput(f"the value of {key[:80]!r} has {len(value)} bytes", f"Use at most {MAX_VALUE}.")
