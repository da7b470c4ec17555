"""Moving a running installation from one store to another.

Invariants: when `copy` returns, the target held every entry of the source, byte for byte, at one moment after the
last change that was seen; nothing is removed from a target that anybody but a copy has written to (the entry
`copying` tells what a copy left). Sealed values stay sealed: the new place needs the same master key. Locks stay
behind.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from brandproxy.errors import Conflict
from brandproxy.store.base import Entry, Store

_AT_ONCE = 64  # writes in flight
_LEFT = "copying"
_ROUNDS = 10  # looks for changes that came meanwhile, before it is said that they do not end


async def copy(source: Store, target: Store, tell: Callable[[int, int], None]) -> int:
    """Copy all entries; how many there are. `tell(done, of)` reports progress.

    1. The target must be empty, or hold nothing but what an earlier copy of this source brought: whole, or broken
       off. What the source has lost since then is removed.
    2. Copy what differs, remove what the source no longer has; again, until nothing differs.
    Raises Conflict when the target holds keys the source never had, or is in use since an earlier copy, or the
    source does not come to rest.
    """
    await _check_target(source, target)
    for _ in range(_ROUNDS):
        entries, there = await _entries(source), await _entries(target)
        present = {entry.key: entry.value for entry in there}
        wanted = [entry for entry in entries if present.get(entry.key) != entry.value]
        gone = present.keys() - {entry.key for entry in entries}
        if not wanted and not gone:
            await target.put(_LEFT, _digest(there))
            return len(entries)
        await target.delete(_LEFT)  # until it is whole again; a copy that breaks off here may be gone on with
        await _write(target, wanted, len(entries) - len(wanted), tell)
        for key in gone:
            await target.delete(key)
    raise Conflict(
        "the source keeps changing", "Stop what writes to it (control nodes, commands), then copy again."
    )


async def _entries(store: Store) -> list[Entry]:
    return [entry for entry in await store.list("") if entry.key != _LEFT]


async def _check_target(source: Store, target: Store) -> None:
    """Raises Conflict when somebody else's work would be overwritten."""
    theirs, left = await _entries(target), await target.get(_LEFT)
    if left is not None and left.value != _digest(theirs):
        raise Conflict(
            "the target was written to since a copy filled it: it is in use", "Copy into an empty store."
        )
    ours = {entry.key for entry in await _entries(source)}
    strange = sorted(entry.key for entry in theirs if entry.key not in ours)
    if strange and left is None:
        raise Conflict(
            f"the target holds {len(strange)} entries that the source has not, e.g. {strange[0]!r}",
            "Copy into an empty store.",
        )


def _digest(entries: list[Entry]) -> bytes:
    written = "".join(f"{entry.key}\0{entry.version}\0" for entry in entries)
    return hashlib.sha256(written.encode()).hexdigest().encode()


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
