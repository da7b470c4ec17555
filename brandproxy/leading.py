"""Work that one node of a fleet does for all: whoever holds the store's lock does it, the others stand by.

Invariant: at most one node runs the work; when its node dies or loses the store for longer than `TTL`, the work
is stopped there (the lock's own promise) and another node begins it within `TTL` + `RETRY` seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from brandproxy.errors import Locked, Retryable
from brandproxy.store import Store

log = logging.getLogger(__name__)

TTL = 10.0  # seconds
RETRY = 2.0  # seconds between tries to become the leader


async def lead(store: Store, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` whenever this node leads, until cancelled. Errors of the work other than Retryable end it."""
    while True:
        try:
            async with store.lock(f"leader/{name}", TTL) as lease:
                log.info("%s: this node leads (fence %d)", name, lease.fence)
                await work()
                return
        except Locked:
            pass
        except Retryable as error:
            log.warning("%s: not leading any more: %s", name, error)
        await asyncio.sleep(RETRY)
