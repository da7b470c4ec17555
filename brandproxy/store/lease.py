"""Holding a lock while a block runs: the same for every home of the store.

Invariants: the block never runs on for longer than `ttl` after the last renewal that succeeded. When the lease
is lost, the block's task is cancelled where it stands and `LockLost` comes out of the `async with`. A process that
was paused may still have a write on its lips when it wakes, so every write made in the block carries the lock with
it (`guards`), and the store itself refuses it once the lock is not held any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field

from brandproxy.errors import Retryable
from brandproxy.store.base import Lease, LockLost


@dataclass(frozen=True, slots=True)
class Guard:
    """A lock held in this block: what is written here is written only while `holder` holds it."""

    store: object = field(repr=False)
    lock: str
    holder: str


# Tasks begun in a block are part of it: they inherit its guards, and end with it.
_GUARDS: ContextVar[tuple[Guard, ...]] = ContextVar("guards", default=())


def guards(store: object) -> list[Guard]:
    """The locks of this store that the running block holds, all of them."""
    return [guard for guard in _GUARDS.get() if guard.store is store]


@asynccontextmanager
async def held(
    guard: Guard,
    lease: Lease,
    ttl: float,
    renew: Callable[[], Awaitable[bool]],
    release: Callable[[], Awaitable[object]],
) -> AsyncIterator[Lease]:
    """`renew` is False when somebody else holds the lock by now; both may raise Retryable."""
    owner, inside = asyncio.current_task(), True
    assert owner is not None

    def lost(task: asyncio.Task[None]) -> None:
        if inside and not task.cancelled():
            owner.cancel()

    renewing = asyncio.create_task(_renew_until_lost(ttl, renew))
    renewing.add_done_callback(lost)
    before = _GUARDS.get()
    _GUARDS.set((*before, guard))
    try:
        yield lease
    except asyncio.CancelledError:
        if renewing.done() and owner.uncancel() == 0:
            raise LockLost(f"lock {lease.name!r} was lost while it was needed") from None
        raise
    finally:
        inside = False  # a block that is over is not cancelled any more: nobody would know why
        _GUARDS.set(before)
        renewing.cancel()
        with suppress(Retryable):  # it ends by itself
            await release()


async def _renew_until_lost(ttl: float, renew: Callable[[], Awaitable[bool]]) -> None:
    """Returns when the lease cannot be relied on any more."""
    ends = time.monotonic() + ttl
    while True:
        await asyncio.sleep(ttl / 3)
        asked = time.monotonic()
        try:
            async with asyncio.timeout(ends - asked):
                if not await renew():
                    return
            ends = asked + ttl
        except Retryable:
            if time.monotonic() + ttl / 3 >= ends:
                return
        except TimeoutError:
            return
