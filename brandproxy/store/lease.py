"""Holding a lock while a block runs: the same for every home of the store.

Invariant: the block never runs on for longer than `ttl` after the last renewal that succeeded. When the lease
is lost, the block's task is cancelled where it stands and `LockLost` comes out of the `async with`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from brandproxy.errors import Retryable
from brandproxy.store.base import Lease, LockLost


@asynccontextmanager
async def held(
    lease: Lease, ttl: float, renew: Callable[[], Awaitable[bool]], release: Callable[[], Awaitable[object]]
) -> AsyncIterator[Lease]:
    """`renew` is False when somebody else holds the lock by now; both may raise Retryable."""
    owner = asyncio.current_task()
    assert owner is not None
    renewing = asyncio.create_task(_renew_until_lost(ttl, renew))
    renewing.add_done_callback(lambda task: None if task.cancelled() else owner.cancel())
    try:
        yield lease
    except asyncio.CancelledError:
        if renewing.done() and owner.uncancel() == 0:
            raise LockLost(f"lock {lease.name!r} was lost while it was needed") from None
        raise
    finally:
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
