"""Moving history from one engine to another: embedded to cluster, or back.

Invariant: every copied stretch is a source of its own (`copy/<first moment>`), so a copy that broke off goes on
where it was and doubles nothing; at the end both engines are asked for their counts, tenant by tenant.
"""

# ruff: noqa: S608 (only constants of this module become SQL text)

from __future__ import annotations

from collections.abc import Callable

from brandproxy.engines.base import COLUMNS, Engine, Row
from brandproxy.errors import Conflict

_BATCH = 20_000  # events in one ingest
_LIST = ", ".join(COLUMNS)
_COUNTS = (
    "SELECT tenant, count(*), min(at_us), max(at_us) FROM events WHERE at_us <= $last"
    " GROUP BY tenant ORDER BY tenant"
)


async def copy(source: Engine, target: Engine, tell: Callable[[int, int], None]) -> int:
    """Copy all events up to the newest there is now; how many. `tell(done, of)` reports progress.

    Raises Conflict when the counts differ at the end, e.g. because the target held other events before.
    """
    [(total, last)] = await source.query("SELECT count(*), max(at_us) FROM events")
    after, after_id, done = -1, "", 0
    while done < total:
        rows = await source.query(
            f"SELECT {_LIST} FROM events WHERE at_us <= $last AND (at_us > $at OR (at_us = $at AND id > $id))"
            f" ORDER BY at_us, id LIMIT {_BATCH}",
            {"last": last, "at": after, "id": after_id},
        )
        if not rows:
            break
        events = [Row(*row) for row in rows]
        await target.ingest(f"copy/{events[0].at_us}-{events[0].id}", 0, len(events), events)
        after, after_id, done = events[-1].at_us, events[-1].id, done + len(events)
        tell(done, total)
    if total and await source.query(_COUNTS, {"last": last}) != await target.query(_COUNTS, {"last": last}):
        raise Conflict("the target's counts differ from the source's", "Copy into an empty engine.")
    return done
