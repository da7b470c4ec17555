"""How much one tenant may have, so that none takes from the others. Section `[limits]` of the settings.

The limits hold for a tenant's own keys. Operators, over HTTP or by commands, may go beyond them for a tenant.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from brandproxy.access import Principal
from brandproxy.config import Settings
from brandproxy.errors import Conflict

_adding: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()


class LimitReached(Conflict):
    """A tenant has as many of something as the operator lets it have."""


@asynccontextmanager
async def room(
    settings: Settings, who: Principal | None, what: str, count: Callable[[], Awaitable[int]]
) -> AsyncIterator[None]:
    """Add one more of `what` (a field of `[limits]`) in the block; `count` tells how many there are.

    `who` None is the operator. One at a time of a tenant and kind in a process, so that requests at once do not
    all find the last place free. Raises LimitReached.
    """
    if who is None or who.tenant is None:
        yield
        return
    most: int = getattr(settings.limits, what)
    lock = _adding.get((who.tenant, what)) or _adding.setdefault((who.tenant, what), asyncio.Lock())
    async with lock:
        if await count() >= most:
            raise LimitReached(
                f"tenant {who.tenant!r} has {most} {what} already, the most it may have",
                f"Remove one that is not needed, or ask the operator, who can add it or raise `limits.{what}`.",
            )
        yield
