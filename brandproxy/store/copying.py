"""Moving a running installation from one store to another.

Invariant: when `copy` returns, the target held every entry of the source, byte for byte, at one moment after the
last change that was seen. Sealed values stay sealed: the new place needs the same master key. Locks stay behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from brandproxy.errors import Conflict
from brandproxy.store.base import Entry, Store

_AT_ONCE = 64  # writes in flight
_ROUNDS = 10  # looks for changes that came meanwhile, before it is said that they do not end


async def copy(source: Store, target: Store, tell: Callable[[int, int], None]) -> int:
    """Copy all entries; how many there are. `tell(done, of)` reports progress.

    1. The target must be empty, or hold nothing but what an earlier, broken-off copy of this source brought.
    2. Copy what differs, remove what the source no longer has; again, until nothing differs.
    Raises Conflict when the target holds keys the source never had, or the source does not come to rest.
    """
    theirs = {entry.key for entry in await target.list("")}
    ours = {entry.key for entry in await source.list("")}
    if strange := sorted(theirs - ours):
        raise Conflict(
            f"the target holds {len(strange)} entries that the source has not, e.g. {strange[0]!r}",
            "Copy into an empty store.",
        )
    for _ in range(_ROUNDS):
        entries = await source.list("")
        present = {entry.key: entry.value for entry in await target.list("")}
        wanted = [entry for entry in entries if present.get(entry.key) != entry.value]
        gone = present.keys() - {entry.key for entry in entries}
        if not wanted and not gone:
            return len(entries)
        await _write(target, wanted, len(entries) - len(wanted), tell)
        for key in gone:
            await target.delete(key)
    raise Conflict(
        "the source keeps changing", "Stop what writes to it (control nodes, commands), then copy again."
    )


async def _write(target: Store, entries: list[Entry], before: int, tell: Callable[[int, int], None]) -> None:
    queue = iter(entries)
    done = before

    async def work() -> None:
        nonlocal done
        for entry in queue:
            await target.put(entry.key, entry.value)
            done += 1
            if done % 500 == 0:
                tell(done, before + len(entries))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(_AT_ONCE, len(entries))):
            tasks.create_task(work())
    tell(done, before + len(entries))
