"""The store's contract. One test suite (`tests/store/`) holds every home to it.

- A value is bytes, at most 1 MiB; a key is text without control characters, at most 512 bytes.
- `create`, `replace` and `delete` with a version are atomic between all processes and nodes.
- A write that returned has reached the store's own durability; one that raised `StoreUnavailable` may or may
  not have happened, and may be repeated.
- `watch` yields every change after its cursor, in order, at least once, across reconnects; the newest state of
  a key is always among what it yields. A cursor too old to resume from raises `CursorLost`: list again.
- A lock is a lease: it ends by itself `ttl` seconds after its last renewal. Its `fence` grows with every
  grant of that lock, so that a late writer can be told from the present holder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from brandproxy.errors import BadSettings, Final

MAX_VALUE = 1 << 20
MAX_KEY = 512


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
        """All entries under the prefix, ordered by key."""

    async def create(self, key: str, value: bytes) -> bool:
        """Write only if the key is absent; False when it was there."""

    async def put(self, key: str, value: bytes) -> int:
        """Write whatever was there; the new version."""

    async def replace(self, key: str, value: bytes, version: int) -> bool:
        """Write only if the key still has this version; False otherwise."""

    async def delete(self, key: str, version: int | None = None) -> bool:
        """Remove (only at this version, when given); False when nothing was removed."""

    def lock(self, name: str, ttl: float = 30.0) -> AbstractAsyncContextManager[Lease]:
        """Hold the named lock in the block, renewed while it runs. Raises `Locked` when another holds it."""

    async def cursor(self) -> str:
        """The present end of the change feed; watch from here after a `list`."""

    def watch(self, prefix: str, cursor: str) -> AsyncIterator[Change]:
        """Changes under the prefix after `cursor`, for ever."""

    async def close(self) -> None: ...


def open_store(url: str, data: Path) -> Store:
    """The store a settings value names: `files:` (in the data directory) or `redis://…`.

    Imports the home only when asked for, so that one machine needs no Redis client.
    """
    scheme = url.partition(":")[0]
    if scheme == "files":
        from brandproxy.store.files import FileStore

        return FileStore(data / "store.db")
    if scheme in ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster"):
        raise BadSettings("the Redis store is not built yet", "Use `files:`.")
    raise BadSettings(f"no store under {url!r}", "Use `files:` or `redis://host:port/0`.")
