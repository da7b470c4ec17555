"""The lane of clicks, opens and unsubscribes, in the order in which they were taken in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from brandproxy.analytics.export import FIELDS, event
from brandproxy.analytics.queries import iso
from brandproxy.engines import Engine
from brandproxy.webhooks.book import EVENTS, Batch, Mark, Webhook, new_batch
from brandproxy.webhooks.delivery import Message

MOST = 200  # events in a batch
OVERLAP_US = 1_000_000  # told twice rather than never
SETTLED_US = 2_000_000  # events younger than this may still get neighbours from other collectors


class EventLane:
    name: str = "events"
    kinds: tuple[str, ...] = EVENTS

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._looked = 0  # microseconds up to which `news` told

    async def news(self) -> Callable[[Webhook], bool]:
        upto = int(time.time() * 1e6) - SETTLED_US
        since, everything = self._looked, not self._looked
        rows = (
            []
            if everything
            else await self._engine.query(
                "SELECT DISTINCT tenant, kind, person FROM events WHERE seen_us > $since AND seen_us <= $upto",
                {"since": since - OVERLAP_US, "upto": upto},
            )
        )
        self._looked = max(upto, since)

        def concerns(hook: Webhook) -> bool:
            return everything or any(
                kind in hook.kinds and hook.tenant in ("", tenant) and (person or hook.machines)
                for tenant, kind, person in rows
            )

        return concerns

    async def next(self, hook: Webhook, after: Mark) -> Batch | None:
        rows = await self._rows(hook, after, (int(time.time() * 1e6) - SETTLED_US, "g"))  # "g": behind every id
        return new_batch(after, (rows[-1][0], rows[-1][1])) if rows else None

    async def message(self, hook: Webhook, batch: Batch) -> Message | None:
        """None: forgotten since, or judged to be machines'."""
        rows = await self._rows(hook, batch.after, batch.upto)
        events = [event(row[2:]) for row in rows]
        return Message("events", iso(batch.upto[0]), {"events": events}) if rows else None

    async def _rows(self, hook: Webhook, after: Mark, upto: Mark) -> list[tuple[Any, ...]]:
        wanted = [kind for kind in hook.kinds if kind in EVENTS]
        kinds = {f"kind{n}": kind for n, kind in enumerate(wanted)}
        where = [f"kind IN ({', '.join('$' + name for name in kinds)})"]
        where += ["tenant = $tenant"] if hook.tenant else []
        where += [] if hook.machines else ["person"]
        params = kinds | {"a": after[0], "ai": after[1], "u": upto[0], "ui": upto[1]}
        return await self._engine.query(
            f"SELECT seen_us, id, {', '.join(FIELDS)} FROM events WHERE {' AND '.join(where)}"  # noqa: S608
            " AND seen_us >= $a AND seen_us <= $u AND (seen_us > $a OR id > $ai) AND (seen_us < $u OR id <= $ui)"
            f" ORDER BY seen_us, id LIMIT {MOST}",
            params | ({"tenant": hook.tenant} if hook.tenant else {}),
        )
