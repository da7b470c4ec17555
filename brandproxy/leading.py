"""Work in the background of a process: kept going (`keep`), by one node of a fleet for all (`lead`).

Invariant of `lead`: at most one node runs the work; when its node dies or loses the store for longer than `TTL`,
the work is stopped there (the lock's own promise) and another node begins it within `TTL` + `RETRY` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from prometheus_client import Counter

from brandproxy.errors import BadSettings, Locked, Retryable
from brandproxy.store import Store

log = logging.getLogger(__name__)

TTL = 10.0  # seconds
RETRY = 2.0  # seconds between tries to become the leader
PAUSES = (1.0, 5.0, 30.0, 60.0)  # seconds before work that failed is begun again
CALM = 600.0  # seconds of work after which a failure counts as the first

FAILURES = Counter("brandproxy_background_failures", "Failures of work in the background, by its name", ["work"])


async def keep(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work`; when it fails begin it again, later each time, while all else in the process goes on.

    The failure after the last of `PAUSES` is raised: what only a new process cures shall get one. So is
    BadSettings, at once: nothing but its reader cures it.
    """
    failures = 0
    while True:
        began = time.monotonic()
        try:
            await work()
            return
        except BadSettings:
            raise
        except Exception:
            FAILURES.labels(name).inc()
            failures = 0 if time.monotonic() - began > CALM else failures
            if failures == len(PAUSES):
                raise
            log.exception("%s: failed, again in %.0f s", name, PAUSES[failures])
        await asyncio.sleep(PAUSES[failures])
        failures += 1


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
