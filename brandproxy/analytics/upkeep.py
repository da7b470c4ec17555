"""What the engine needs beside questions: settling what arrived, and deleting what is too old to keep.

How long events are kept, in this order: the tenant's `keep_days`, the operator's `analytics.keep_days`; 0 in
both means for ever. A tenant may keep events longer or shorter than the operator's default.

Invariants: an event is deleted `GRACE` after it became too old, and nothing is deleted before the number of days
has been in force for as long: until then a mistake is undone by setting the number back. Each deletion is audited
with its count. One tenant's trouble keeps no other's events.
"""

from __future__ import annotations

import json
import logging
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter

from brandproxy.context import Context
from brandproxy.engines import Engine
from brandproxy.errors import Retryable
from brandproxy.store import keys
from brandproxy.store.records import BROKEN, tell

log = logging.getLogger(__name__)

GRACE = 86400  # seconds
_SETTLE = 30.0  # seconds between looks at what has gathered
_FORGET = 3600.0  # seconds between looks for events too old to keep
_DAY = 86400

FAILURES = Counter("brandproxy_retention_failures", "Tenants whose old events could not be deleted")


async def maintain(context: Context, engine: Engine) -> None:
    """Run for ever beside the collector; survives an engine that is away, and whatever one piece of work meets."""
    forgotten = 0.0
    while True:
        await _try("settling", engine.settle)
        if not forgotten or time.monotonic() - forgotten > _FORGET:
            await _try("retention", lambda: forget_old(context, engine, int(time.time())))
            forgotten = time.monotonic()
        await sleep(_SETTLE)


async def _try(name: str, work: Callable[[], Awaitable[object]]) -> bool:
    try:
        await work()
    except Retryable as error:
        log.warning("%s waits: %s", name, error)
    except Exception:
        log.exception("%s failed, again later", name)
    else:
        return True
    return False


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose events, and how many days they are kept. `name`: a tenant's slug, or `*`: the operator's default."""

    name: str
    days: int
    where: str
    params: dict[str, Any]


async def forget_old(context: Context, engine: Engine, now: int) -> int:
    """Delete events that have been too old for `GRACE`; how many went. `now` in seconds."""
    gone = 0
    for scope in await _scopes(context):

        async def work(scope: Scope = scope) -> None:
            nonlocal gone
            gone += await _forget(context, engine, scope, now)

        if not await _try(f"retention of {scope.name}", work):
            FAILURES.inc()
    return gone


async def _scopes(context: Context) -> list[Scope]:
    """A tenant whose record cannot be read keeps its events: nobody knows for how long."""
    tenants = await context.registry.tenants()
    found = [
        Scope(t.slug, t.policy.keep_days, "tenant = $tenant", {"tenant": t.slug})
        for t in tenants
        if t.policy.keep_days
    ]
    default = context.settings.analytics.keep_days
    if default > 0:
        unread = {e.key.removeprefix(keys.TENANT) for e in await context.store.list(keys.TENANT)}
        unread -= {t.slug for t in tenants}
        others = {f"t{n}": slug for n, slug in enumerate([*(s.name for s in found), *sorted(unread)])}
        where = " AND ".join(["TRUE", *(f"tenant <> ${name}" for name in others)])
        found.append(Scope("*", default, where, others))
    return found


async def _forget(context: Context, engine: Engine, scope: Scope, now: int) -> int:
    since = await _in_force_since(context, scope, now)
    where = f"{scope.where} AND at_us < $before"
    registry = context.registry.acting("retention")
    subject = "all" if scope.name == "*" else scope.name
    tenant = "" if scope.name == "*" else scope.name
    if since == now:  # seen for the first time: whoever made a mistake has until then to undo it
        params = scope.params | {"before": (now - scope.days * _DAY) * 1_000_000}
        [(count,)] = await engine.query(f"SELECT count(*) FROM events WHERE {where}", params)  # noqa: S608
        if count:
            when = datetime.fromtimestamp(now + GRACE, UTC).isoformat()
            await registry.audit(
                "events.expiring", subject, tenant=tenant, days=scope.days, events=int(count), deleted_at=when
            )
            log.warning("retention: %d events of %s go at %s: %d days are kept", count, subject, when, scope.days)
    if now - since < GRACE:
        return 0
    before = now - scope.days * _DAY - GRACE
    gone = await engine.delete(where, scope.params | {"before": before * 1_000_000})
    if gone:
        await registry.audit(
            "events.expired", subject, tenant=tenant, days=scope.days, deleted=gone,
            before=datetime.fromtimestamp(max(before, 0), UTC).isoformat(),
        )  # fmt: skip
    return gone


async def _in_force_since(context: Context, scope: Scope, now: int) -> int:
    """Since when this number of days has been in force, as far as was seen; remembered in the store.

    Changing a tenant's number removes the record (`Registry.change_tenant`), so that going back and forth between
    two looks is seen as well.
    """
    key = keys.retention(scope.name)
    entry = await context.store.get(key)
    if entry is not None:
        try:
            known = json.loads(entry.value)
            if known["days"] == scope.days and 0 <= int(known["since"]) <= now:
                return int(known["since"])
        except BROKEN as error:
            tell(key, entry.value, error)
    await context.store.put(key, json.dumps({"days": scope.days, "since": now}).encode())
    return now


async def forget_recipient(engine: Engine, tenant: str, recipient: str) -> int:
    """Remove every event of a recipient of a tenant at once (a privacy request); how many went."""
    return await engine.delete(
        "tenant = $tenant AND recipient = $recipient", {"tenant": tenant, "recipient": recipient}
    )
