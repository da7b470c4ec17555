"""Clicks and opens that come close together are answered in one go.

Most of what an answer costs is bringing the code and the data for it into the processor's caches, and a write to
disk; both are shared by all that are answered together. So each waits for company, a little:
1. when as many wait, here or for the disk, as there are connections, nobody else can come: no more
2. else as long as company keeps coming: until none came for `QUIET`, or the first waited `PATIENCE`, behind a
   proxy on this machine `LONGER`: its work in between empties the caches

Behind a proxy on this machine, with nothing else to answer, the process itself sleeps meanwhile: to wake up for
each that comes is a tenth of what its answer costs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sized
from typing import Protocol

from brandproxy.errors import SpoolFull
from brandproxy.spool import Spool

log = logging.getLogger(__name__)

QUIET, PATIENCE, LONGER = 0.002, 0.008, 0.016  # seconds
_TICK = 0.0005  # seconds; the event loop's timers are no finer


class Asking(Protocol):
    """A connection whose request waits; it asks again only after `send`."""

    def decide(self) -> bytes | None:
        """Answer; or give the record that has to be on disk first, and wait for `send`."""

    def send(self, written: bool) -> None: ...
    def abort(self) -> None: ...


class Gathering:
    """`connections` are all that may ask; the records of their answers go to `spool`. `others` are the requests
    that are answered in another way; None: never sleep."""

    def __init__(self, spool: Spool, connections: Sized, others: Collection[object] | None = None) -> None:
        self._spool = spool
        self._connections = connections
        self._others = others
        self._patience = PATIENCE if others is None else LONGER
        self._asking: list[Asking] = []
        self._since = self._last = 0.0  # when the first and the last of them came
        self._timer: asyncio.TimerHandle | None = None

    def join(self, connection: Asking) -> None:
        self._last = time.monotonic()
        if not self._asking:
            self._since = self._last
        self._asking.append(connection)
        if self._complete():
            self._answer()
        elif self._timer is None:
            soon = QUIET if self._others is None else 0  # what came together is read before it sleeps
            self._timer = asyncio.get_running_loop().call_later(soon, self._look)

    def _complete(self) -> bool:
        return len(self._asking) + self._spool.waiting >= len(self._connections)

    def _look(self) -> None:
        """Answer, or see to it that it will be done."""
        self._timer = None
        loop = asyncio.get_running_loop()
        wait = min(self._last + QUIET, self._since + self._patience) - time.monotonic()
        if wait < _TICK or self._complete():
            self._answer()
        elif self._others is None or self._others:
            self._timer = loop.call_later(wait, self._look)
        else:
            time.sleep(wait)
            self._timer = loop.call_later(0, self._look)  # once what came meanwhile is read

    def _answer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asking, self._asking = self._asking, []
        recorded = [(connection, record) for connection in asking if (record := _decided(connection)) is not None]
        if not recorded:
            return
        try:
            commit = self._spool.append(*(record for _, record in recorded))
        except SpoolFull:  # counted and alarmed by the spool
            for connection, _ in recorded:
                connection.send(False)
        else:
            for connection, _ in recorded:
                commit.then(connection.send)


def _decided(connection: Asking) -> bytes | None:
    """What goes wrong with one goes wrong with that one alone."""
    try:
        return connection.decide()
    except Exception:
        log.exception("edge: a request could not be answered")
        connection.abort()
        return None
