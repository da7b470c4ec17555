"""Connections kept for the next request, apart for every tenant.

Invariants: a connection opened for a tenant is never used for another one, and one opened for nobody in particular
(tenant None) is used once. At most `limit` connections are open. One tenant has at most half of them busy, and a
free one goes to the tenant that has the fewest, so that one tenant's slow servers do not hold up the others.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from brandproxy.errors import FetchFailed
from brandproxy.outbound.connection import Connection

_IDLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection leads, and whose it is."""

    tenant: str | None
    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A connection for one exchange; `used`: it carried another one before."""

    connection: Connection
    used: bool


class Pool:
    """`connect` opens a connection; it raises FetchFailed or FetchRefused, and bounds its time itself. `seconds`:
    longest wait for a free connection."""

    def __init__(self, limit: int, connect: Callable[[Place], Awaitable[Connection]], seconds: float) -> None:
        self._limit, self._connect, self._seconds = limit, connect, seconds
        self._idle: dict[Connection, tuple[Place, asyncio.TimerHandle]] = {}  # the longest idle first
        self._busy: Counter[str | None] = Counter()
        self._waiting: list[tuple[str | None, asyncio.Future[None]]] = []
        self._closed = False

    @asynccontextmanager
    async def lease(self, place: Place, fresh: bool = False) -> AsyncIterator[Lease]:
        """A connection for the time of the block; kept after it when its exchange ended clean. Raises FetchFailed
        when none gets free in time. `fresh`: never a kept one.
        """
        await self._enter(place.tenant)
        connection: Connection | None = None
        try:
            connection = None if fresh else await self._kept(place)
            used = connection is not None
            if connection is None:
                self._make_room()
                connection = await self._connect(place)
            yield Lease(connection, used)
            if connection.finish() and place.tenant is not None and not self._closed:
                self._keep(place, connection)
                connection = None
        finally:
            if connection is not None:
                connection.close()
            self._leave(place.tenant)

    def close(self) -> None:
        self._closed = True
        for connection in list(self._idle):
            self._drop(connection)

    async def _kept(self, place: Place) -> Connection | None:
        found = [connection for connection, (where, _) in self._idle.items() if where == place]
        for connection in reversed(found):
            self._idle.pop(connection)[1].cancel()
            # What lies in the socket unread comes in the loop's next round: then the connection closes itself.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not connection.closed:
                return connection
        return None

    def _keep(self, place: Place, connection: Connection) -> None:
        timer = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._drop, connection)
        self._idle[connection] = place, timer

    def _drop(self, connection: Connection) -> None:
        self._idle.pop(connection)[1].cancel()
        connection.close()

    def _make_room(self) -> None:
        """Idle connections give way to busy ones. (The place that is about to be filled is counted as busy.)"""
        for connection in [one for one in self._idle if one.closed]:
            self._drop(connection)
        while self._idle and self._busy.total() + len(self._idle) > self._limit:
            self._drop(next(iter(self._idle)))

    def _may(self, tenant: str | None) -> bool:
        share = self._limit if tenant is None else max(1, self._limit // 2)
        return self._busy.total() < self._limit and self._busy[tenant] < share

    async def _enter(self, tenant: str | None) -> None:
        if self._may(tenant):
            self._busy[tenant] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((tenant, turn))
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave(tenant)
            elif (tenant, turn) in self._waiting:
                self._waiting.remove((tenant, turn))
            if isinstance(error, TimeoutError):
                raise FetchFailed("all outbound connections are taken (`outbound.connections`)") from error
            raise

    def _leave(self, tenant: str | None) -> None:
        self._busy[tenant] -= 1
        if not self._busy[tenant]:
            del self._busy[tenant]
        while able := [one for one in self._waiting if self._may(one[0])]:
            chosen = min(able, key=lambda one: self._busy[one[0]])
            self._waiting.remove(chosen)
            if not chosen[1].done():
                self._busy[chosen[0]] += 1
                chosen[1].set_result(None)
