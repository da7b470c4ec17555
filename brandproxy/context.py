"""What the front ends are given: settings and the services of floors 2 and 3, opened once per process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from brandproxy import data_directory
from brandproxy.config import Settings
from brandproxy.directory import Directory
from brandproxy.store import Store, local_file, open_store
from brandproxy.store.replica import Replica
from brandproxy.tenants import Registry


@dataclass(frozen=True, slots=True)
class Context:
    settings: Settings
    store: Store
    registry: Registry
    directory: Directory


@asynccontextmanager
async def open_context(settings: Settings, actor: str = "cli", replica: bool = False) -> AsyncIterator[Context]:
    """Open the store and read the directory once; `directory.follow(store)` is the caller's to run.

    `replica`: read from this node's own copy of the fleet's store, so that it may be down. A store on files is
    on this node already.
    """
    data_directory.secure(settings.data)
    store = open_store(settings.store, settings.data)
    try:
        if replica and not settings.store.startswith("files:"):
            store = Replica(store, local_file(settings.store, settings.data))
            await store.start()
        registry = Registry(store, settings, actor=actor)
        directory = Directory(registry.codec, settings)
        await directory.load(store)
        yield Context(settings, store, registry, directory)
    finally:
        await store.close()
