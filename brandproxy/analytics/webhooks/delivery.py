"""Sending to webhooks. Invariant: a webhook's events go out in the order they were taken in, at least once; a
place moves on only behind a batch that was answered 2xx or was given up and is kept among the dead.

An answer is judged in this order:
1. 2xx: delivered
2. 410: the receiver wants no more; the webhook is disabled with that reason
3. anything else, or none: again after the next delay of `DELAYS`, no sooner than Retry-After; after the last
   one the batch is given up, and the next begins

One node of an installation delivers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter
from standardwebhooks import Webhook as Signer

from brandproxy.analytics.export import FIELDS, event
from brandproxy.analytics.queries import iso
from brandproxy.analytics.webhooks.book import Batch, Book, Place, Webhook, new_batch
from brandproxy.context import Context
from brandproxy.engines import Engine
from brandproxy.errors import BrandproxyError, Retryable
from brandproxy.fetch import Fetcher, open_fetcher

log = logging.getLogger(__name__)

DELAYS = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200)  # seconds; a day and a bit altogether
MOST = 200  # events in a batch
SETTLED_US = 2_000_000  # events younger than this may still get neighbours from other collectors
_POLL = 1.0  # seconds
_SECONDS = 15.0  # a receiver has to answer
_AT_ONCE = 8  # webhooks sent to at the same time

SENT = Counter("brandproxy_webhook_batches", "Batches sent to webhooks", ["outcome"])


async def deliver(context: Context, engine: Engine) -> None:
    """Run for ever on the node that leads (`leading.lead`); survives a store and an engine that are away."""
    async with open_fetcher(context.settings) as fetcher:
        delivery = Delivery(Book(context), engine, fetcher)
        while True:
            try:
                await delivery.turn()
            except Retryable as error:
                log.warning("webhooks wait: %s", error)
            await asyncio.sleep(_POLL)


class Delivery:
    def __init__(self, book: Book, engine: Engine, fetcher: Fetcher) -> None:
        self._book, self._engine, self._fetcher = book, engine, fetcher
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def turn(self) -> None:
        """One look at every webhook; a slow receiver holds up no other for longer than its time-out."""
        active = [hook for hook in await self._book.all() if not hook.disabled]
        await asyncio.gather(*map(self._serve, active))

    async def _serve(self, hook: Webhook) -> None:
        async with self._slots:
            for batch in await self._book.dead(hook.id):
                if batch.next_at:
                    await self._again(hook, batch)
            while await self._next(hook):
                pass

    async def _again(self, hook: Webhook, batch: Batch) -> None:
        """A dead batch that somebody asked to be sent once more."""
        error, _ = await self._send(hook, batch)
        await self._book.bury(hook.id, replace(batch, next_at=0.0, error=error), keep=bool(error))

    async def _next(self, hook: Webhook) -> bool:
        """Send the batch that is due; whether another may follow at once."""
        place = await self._book.whereabouts(hook)
        batch = place.batch
        if batch is None:
            batch = await self._gather(hook, place.after)
            if batch is None:
                return False
        elif batch.next_at > time.time():
            return False
        await self._book.place(hook.id, replace(place, batch=batch))
        error, wait = await self._send(hook, batch)
        if not error:
            await self._book.place(hook.id, Place(batch.upto))
            return True
        await self._failed(hook, place, batch, error, wait)
        return False

    async def _failed(self, hook: Webhook, place: Place, batch: Batch, error: str, wait: float) -> None:
        if error.startswith("410"):
            await self._book.disable(hook, f"answered {error} at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
        if batch.attempts >= len(DELAYS):
            log.error(
                "webhook %s: batch %s given up after %d tries: %s", hook.id, batch.id, batch.attempts + 1, error
            )
            await self._book.bury(hook.id, replace(batch, next_at=0.0, error=error))
            await self._book.place(hook.id, Place(batch.upto))
            return
        delay = max(wait, DELAYS[batch.attempts] * random.uniform(0.9, 1.2))  # noqa: S311 - spreads retries
        tried = replace(batch, attempts=batch.attempts + 1, next_at=time.time() + delay, error=error)
        await self._book.place(hook.id, replace(place, batch=tried))

    async def _gather(self, hook: Webhook, after: tuple[int, str]) -> Batch | None:
        """The next batch behind a place, or None when there is nothing new."""
        rows = await self._rows(hook, after, (int(time.time() * 1e6) - SETTLED_US, "g"))  # "g": behind every id
        return new_batch(after, (rows[-1][0], rows[-1][1])) if rows else None

    async def _rows(self, hook: Webhook, after: tuple[int, str], upto: tuple[int, str]) -> list[tuple[Any, ...]]:
        kinds = {f"kind{n}": kind for n, kind in enumerate(hook.kinds)}
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

    async def _send(self, hook: Webhook, batch: Batch) -> tuple[str, float]:
        """("" or what went wrong, seconds the receiver asked to wait)."""
        rows = await self._rows(hook, batch.after, batch.upto)
        if not rows:  # forgotten or judged to be machines' since
            return "", 0.0
        data = {"events": [event(row[2:]) for row in rows]}
        body = json.dumps({"type": "events", "timestamp": iso(batch.upto[0]), "data": data})
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": batch.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Signer(self._book.secret(hook)).sign(batch.id, now, body),
        }
        try:
            answer = await self._fetcher.request(
                "POST", hook.url, content=body.encode(), headers=headers, max_bytes=65536, seconds=_SECONDS
            )
        except BrandproxyError as error:
            SENT.labels("failed").inc()
            return str(error), 0.0
        if 200 <= answer.status < 300:
            SENT.labels("delivered").inc()
            return "", 0.0
        SENT.labels("failed").inc()
        after = answer.headers.get("retry-after", "")
        return f"{answer.status} from {hook.url.partition('?')[0]}", min(
            float(after), 86400.0
        ) if after.isdecimal() else 0.0
