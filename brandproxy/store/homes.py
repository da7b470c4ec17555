"""Which home of the store a settings value names; a home is imported only when asked for."""

from __future__ import annotations

from pathlib import Path

from brandproxy.errors import BadSettings
from brandproxy.store.base import Store


def open_store(url: str, data: Path) -> Store:
    """The store a settings value names: `files:` (in the data directory) or `redis://…` (see `connect`).

    Imports the home only when asked for, so that one machine needs no Redis client.
    """
    if url.partition(":")[0] == "files":
        from brandproxy.store.files import FileStore

        return FileStore(local_file(url, data))
    if url.startswith("redis"):
        from brandproxy.store.redis import RedisStore

        return RedisStore(url)
    raise BadSettings(f"no store under {url!r}", "Use `files:` or `redis://host:port/0`.")


def local_file(url: str, data: Path) -> Path:
    """The file on this node that holds what it serves from: the store itself, or the copy of the fleet's store."""
    return data / ("store.db" if url.startswith("files:") else "replica.db")
