"""Sending to webhooks. Invariant: what a lane holds for a webhook goes out in the lane's order, at least once; a
place moves on only behind a batch that was answered 2xx or was given up and is kept among the dead.

An answer is judged in this order:
1. 2xx: delivered
2. 410: the receiver wants no more; the webhook is disabled with that reason
3. anything else, or none: again after the next delay of `DELAYS`, no sooner than Retry-After; after the last
   one the batch is given up, and the next begins

One node of an installation delivers; one that was relieved without noticing moves no place any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from prometheus_client import Counter
from standardwebhooks import Webhook as Signer

from brandproxy.context import Context
from brandproxy.errors import BrandproxyError, Conflict, Retryable
from brandproxy.fetch import Fetcher, open_fetcher
from brandproxy.webhooks.book import Batch, Book, Mark, Place, Webhook

log = logging.getLogger(__name__)

DELAYS = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200)  # seconds; a day and a bit altogether
_POLL = 1.0  # seconds
_SECONDS = 15.0  # a receiver has to answer
_IDLE = 600.0  # seconds until a webhook without news is looked at all the same
_UNREST = 5.0  # seconds after trouble that is our own
_BESIDE = 8  # of them of one tenant
_AT_ONCE = 32  # receivers sent to at the same time

SENT = Counter("brandproxy_webhook_batches", "Batches sent to webhooks", ["outcome"])


@dataclass(frozen=True, slots=True)
class Message:
    """A body as Standard Webhooks has it; `timestamp` as RFC 3339."""

    type: str
    timestamp: str
    data: dict[str, Any]


class Lane(Protocol):
    """Things that happened, in an order. Raises Retryable while it cannot tell."""

    name: str
    kinds: tuple[str, ...]

    async def news(self) -> Callable[[Webhook], bool]:
        """Whether what came since the last call may concern a webhook; at the first call all may be."""

    async def next(self, hook: Webhook, after: Mark) -> Batch | None:
        """The next batch behind a place, or None when there is nothing new."""

    async def message(self, hook: Webhook, batch: Batch) -> Message | None:
        """What a batch says now; None when nothing of it is left to say."""


async def deliver(context: Context, lanes: Sequence[Lane]) -> None:
    """Run for ever on the node that leads (`leading.lead`); survives a store and a lane that are away."""
    async with open_fetcher(context.settings) as fetcher:
        delivery = Delivery(Book(context), lanes, fetcher)
        try:
            while True:
                try:
                    await delivery.begin()
                except Retryable as error:
                    log.warning("webhooks wait: %s", error)
                except Exception:
                    log.exception("webhooks: again in a second")
                await asyncio.sleep(_POLL)
        finally:
            await delivery.stop()


class Delivery:
    def __init__(self, book: Book, lanes: Sequence[Lane], fetcher: Fetcher) -> None:
        self._book, self._lanes, self._fetcher = book, lanes, fetcher
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._of_tenant: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_BESIDE))
        self._busy: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._rest: dict[tuple[str, str], tuple[int, float]] = {}  # version of the webhook, until when (monotonic)
        self._missed: set[tuple[str, str]] = set()  # busy when there was news: not idle when they are done

    async def turn(self) -> None:
        """One look at every webhook, to its end."""
        await self.begin()
        await asyncio.gather(*self._busy.values())

    async def begin(self) -> None:
        """Start on every webhook that has something to do and nobody at it; a slow receiver holds up no other, a
        lane no other lane, a tenant no other tenant.

        One look for all tells what is new, so that a webhook to which nothing happens costs next to nothing. One
        that was changed (a replay, say) is looked at at once.
        """
        hooks = await self._book.versions()
        present = {hook.id for hook, _ in hooks}
        self._rest = {place: rest for place, rest in self._rest.items() if place[0] in present}
        for lane in self._lanes:
            try:
                concerned = await lane.news()
            except Exception as error:
                log.warning("webhooks, %s: %s", lane.name, error)
                continue
            for hook, version in hooks:
                if hook.disabled or not set(lane.kinds) & set(hook.kinds):
                    continue
                place, new = (hook.id, lane.name), concerned(hook)
                if place in self._busy:
                    self._missed |= {place} if new else set()
                elif new or not self._resting(place, version):
                    task = self._busy[place] = asyncio.create_task(self._serve(hook, version, lane))
                    task.add_done_callback(lambda _, place=place: self._busy.pop(place))  # type: ignore[misc]

    def _resting(self, place: tuple[str, str], version: int) -> bool:
        known, until = self._rest.get(place, (0, 0.0))
        return known == version and time.monotonic() < until

    async def stop(self) -> None:
        tasks = list(self._busy.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, hook: Webhook, version: int, lane: Lane) -> None:
        place, rest = (hook.id, lane.name), _UNREST
        self._rest.pop(place, None)
        try:
            async with self._of_tenant[hook.tenant], self._slots:
                self._missed.discard(place)
                for batch in await self._book.dead(hook.id):
                    if batch.next_at and batch.lane == lane.name:
                        await self._again(hook, lane, batch)
                while (waits := await self._next(hook, lane)) is None:
                    pass
                rest = 0.0 if place in self._missed else waits
        except (Retryable, Conflict) as error:
            log.warning("webhook %s waits: %s", hook.id, error)
        except Exception:  # whatever one webhook's records do, the others are served
            log.exception("webhook %s", hook.id)
        self._missed.discard(place)
        self._rest[place] = (version, time.monotonic() + rest)

    async def _again(self, hook: Webhook, lane: Lane, batch: Batch) -> None:
        """A dead batch that somebody asked to be sent once more."""
        error, _ = await self._send(hook, lane, batch)
        await self._book.bury(hook.id, replace(batch, next_at=0.0, error=error), keep=bool(error))

    async def _next(self, hook: Webhook, lane: Lane) -> float | None:
        """Send the batch that is due. None: another may follow at once; else seconds until there is something to
        do, unless there is news."""
        place = await self._book.whereabouts(hook, lane.name)
        batch = place.batch
        if batch is None:
            batch = await lane.next(hook, place.after)
            if batch is None:
                return _IDLE
        elif batch.next_at > time.time():
            return min(batch.next_at - time.time(), _IDLE)
        await self._book.place(hook.id, lane.name, replace(place, batch=batch))
        error, wait = await self._send(hook, lane, batch)
        place = await self._book.whereabouts(hook, lane.name)
        if place.batch is None or place.batch.id != batch.id:
            raise Conflict(f"batch {batch.id} was taken over by another node")
        if not error:
            await self._book.place(hook.id, lane.name, Place(batch.upto, version=place.version))
            return None
        await self._failed(hook, place, batch, error, wait)
        return 0.0

    async def _failed(self, hook: Webhook, place: Place, batch: Batch, error: str, wait: float) -> None:
        if error.startswith("410"):
            await self._book.disable(hook, f"answered {error} at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
        if batch.attempts >= len(DELAYS):
            log.error(
                "webhook %s: batch %s given up after %d tries: %s", hook.id, batch.id, batch.attempts + 1, error
            )
            await self._book.bury(hook.id, replace(batch, next_at=0.0, error=error))
            await self._book.place(hook.id, batch.lane, Place(batch.upto, version=place.version))
            return
        delay = max(wait, DELAYS[batch.attempts] * random.uniform(0.9, 1.2))  # noqa: S311 - spreads retries
        tried = replace(batch, attempts=batch.attempts + 1, next_at=time.time() + delay, error=error)
        await self._book.place(hook.id, batch.lane, replace(place, batch=tried))

    async def _send(self, hook: Webhook, lane: Lane, batch: Batch) -> tuple[str, float]:
        """("" or what went wrong, seconds the receiver asked to wait)."""
        message = await lane.message(hook, batch)
        if message is None:
            return "", 0.0
        body = json.dumps({"type": message.type, "timestamp": message.timestamp, "data": message.data})
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": batch.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Signer(self._book.secret(hook)).sign(batch.id, now, body),
        }
        try:
            answer = await self._fetcher.request(
                "POST",
                hook.url,
                tenant=hook.tenant,
                content=body.encode(),
                headers=headers,
                max_bytes=65536,
                seconds=_SECONDS,
            )
        except BrandproxyError as error:
            SENT.labels("failed").inc()
            return str(error), 0.0
        if 200 <= answer.status < 300:
            SENT.labels("delivered").inc()
            return "", 0.0
        SENT.labels("failed").inc()
        after = answer.headers.get("retry-after", "")
        wait = min(float(after), 86400.0) if after.isdecimal() else 0.0
        return f"{answer.status} from {hook.url.partition('?')[0]}", wait
