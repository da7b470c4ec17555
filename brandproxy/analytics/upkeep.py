"""What the engine needs beside questions: settling what arrived, and forgetting what is too old to keep.

How long events are kept, in this order: the tenant's `keep_days`, the operator's `analytics.keep_days`; 0 in
both means for ever. A tenant may keep events longer or shorter than the operator's default.
"""

from __future__ import annotations

import asyncio
import logging
import time

from brandproxy.context import Context
from brandproxy.engines import Engine
from brandproxy.errors import Retryable

log = logging.getLogger(__name__)

_SETTLE = 30.0  # seconds between looks at what has gathered
_FORGET = 6 * 3600.0  # seconds between looks for events too old to keep


async def maintain(context: Context, engine: Engine) -> None:
    """Run for ever beside the collector; survives an engine that is away."""
    forgotten = 0.0
    while True:
        try:
            await engine.settle()
            if time.monotonic() - forgotten > _FORGET or not forgotten:
                await forget_old(context, engine, int(time.time()))
                forgotten = time.monotonic()
        except Retryable as error:
            log.warning("upkeep of the analytics engine waits: %s", error)
        await asyncio.sleep(_SETTLE)


async def forget_old(context: Context, engine: Engine, now: int) -> int:
    """Remove events older than their tenant keeps them; how many went. `now` in seconds."""
    default = context.settings.analytics.keep_days
    own = {t.slug: t.policy.keep_days for t in await context.registry.tenants() if t.policy.keep_days}
    gone = 0
    for slug, days in own.items():
        before = (now - days * 86400) * 1_000_000
        gone += await engine.delete("tenant = $tenant AND at_us < $before", {"tenant": slug, "before": before})
    if default:
        others = {f"t{n}": slug for n, slug in enumerate(own)}
        keep = "".join(f" AND tenant <> ${name}" for name in others)
        before = (now - default * 86400) * 1_000_000
        gone += await engine.delete(f"at_us < $before{keep}", {"before": before, **others})
    return gone


async def forget_recipient(engine: Engine, tenant: str, recipient: str) -> int:
    """Remove every event of a recipient of a tenant (a privacy request); how many went."""
    return await engine.delete(
        "tenant = $tenant AND recipient = $recipient", {"tenant": tenant, "recipient": recipient}
    )
