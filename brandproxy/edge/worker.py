"""One edge process: its own store connection, directory, spool and event loop, on the shared sockets."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from prometheus_client import Gauge

from brandproxy import certs, metrics
from brandproxy.config import Settings
from brandproxy.context import open_context
from brandproxy.edge.app import LOCAL, Edge
from brandproxy.edge.assets import Assets
from brandproxy.edge.balanced import Balanced
from brandproxy.edge.connection import Connection
from brandproxy.edge.open_connections import Front
from brandproxy.edge.secured import Secured
from brandproxy.edge.tickets import FleetSecrets, TicketSecrets
from brandproxy.edge.tls import Book
from brandproxy.edge.unsubscribe import Forwarder
from brandproxy.fetch import open_fetcher
from brandproxy.leading import keep
from brandproxy.scheduling import interrupt_nobody
from brandproxy.spool import Spool

log = logging.getLogger(__name__)

CONNECTIONS = Gauge(
    "brandproxy_edge_connections",
    "Open connections of recipients, looked at once a second",
    multiprocess_mode="livesum",
)

BACKLOG = 4096  # connections that wait to be accepted; beyond, a proxy would refuse the recipient
_DRAIN = 10.0  # seconds for requests in flight when told to stop


@dataclass(frozen=True, slots=True)
class Listeners:
    """Made before the fork and shared by all workers, so that a worker's death loses no waiting connection."""

    http: socket.socket
    https: socket.socket
    tickets: TicketSecrets


async def serve(settings: Settings, listeners: Listeners, number: int, ready: int) -> None:
    """Run worker `number` until SIGTERM; writes one byte to the descriptor `ready` when it answers.

    Told to end before that, while it waits for the store for instance, it is cancelled.
    """
    stop, starting = asyncio.Event(), asyncio.current_task()
    loop = asyncio.get_running_loop()
    assert starting is not None
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, starting.cancel)
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings, actor="edge", replica=True))
        spool = Spool(
            settings.data / "spool", _writer_name(number), settings.edge.durability, settings.edge.spool_max_bytes
        )
        stack.push_async_callback(spool.close)
        wishes = Spool(settings.data / "unsubscribe", _writer_name(number), segment_seconds=10)
        stack.push_async_callback(wishes.close)
        assets = Assets(settings)
        await assets.start()
        stack.push_async_callback(assets.close)
        edge = Edge(context, spool, wishes, assets)
        await edge.load()
        work = [keep("directory", lambda: context.directory.follow(context.store))]
        if number == 0:
            work.append(keep("certificates", lambda: certs.mirror(context)))
            work.append(keep("unsubscribe", lambda: _forward(settings)))
            if settings.event_stream:
                # Here, because it needs the collector's libraries, which one machine's edge never does.
                from brandproxy.relay import ship

                stream = settings.event_stream
                work.append(keep("events", lambda: ship(context, stream)))
        tasks = [asyncio.create_task(_vital(part, stop)) for part in work]
        stack.callback(lambda: [task.cancel() for task in tasks])  # also when starting fails further down
        front = await _listen(settings, listeners, edge, stack)
        tasks.append(asyncio.create_task(_vital(_clock(front, listeners.tickets), stop)))
        gc.collect()
        gc.freeze()  # the directory stays: no need to walk it again and again
        gc.enable()
        if number == 0:
            stack.enter_context(metrics.exposed(settings))
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        os.write(ready, b"1")
        await stop.wait()
        for task in tasks:
            task.cancel()


async def _listen(settings: Settings, listeners: Listeners, edge: Edge, stack: AsyncExitStack) -> Front:
    directory = edge.context.directory
    book = Book(
        settings.certs_directory,
        lambda name: directory.site(name) is not None,
        listeners.tickets,
        settings.edge.warm_certificates,
        certs.spare(edge.context),
    )
    fleet = FleetSecrets(listeners.tickets, edge.context.registry.codec.seal)
    await fleet.load(edge.context.store)
    directory.changed.append(fleet.apply)
    directory.reloaded.append(fleet.load)
    front = Front(edge)
    open_listeners = [
        await _accept(settings, front, listener, certificates)
        for listener, certificates in ((listeners.http, None), (listeners.https, book))
    ]

    async def drain() -> None:
        for listener in open_listeners:
            listener.close()
        for connection in list(front.connections):
            connection.shutdown()
        for _ in range(int(_DRAIN / 0.05)):
            if not front.connections and not front.state.tasks:
                break
            await asyncio.sleep(0.05)

    stack.push_async_callback(drain)
    return front


async def _accept(
    settings: Settings, front: Front, listener: socket.socket, book: Book | None
) -> asyncio.Server | Balanced:
    def make(peer: str | None = None) -> asyncio.Protocol:
        if book is None:
            return Connection(front, peer)
        return Secured(front, book, peer, lambda peer: Connection(front, peer))

    loop = asyncio.get_running_loop()
    if settings.edge.proxy_protocol:
        return Balanced(listener, make, settings.edge.proxies)
    # The event loop listens anew, with a backlog of 100 unless told.
    if listener.family == socket.AF_UNIX:
        interrupt_nobody()  # a proxy on this machine, with more requests at hand: one waking up for several
        return await loop.create_unix_server(lambda: make(LOCAL), sock=listener, backlog=BACKLOG)
    return await loop.create_server(make, sock=listener, backlog=BACKLOG)


async def _forward(settings: Settings) -> None:
    async with open_fetcher(settings) as fetcher:

        async def post(url: str, body: bytes, kind: str) -> int:
            headers = {"content-type": kind} if kind else {}
            got = await fetcher.request("POST", url, content=body, headers=headers, max_bytes=1 << 20)
            return got.status

        await Forwarder(settings.data / "unsubscribe", post).run()


async def _vital(part: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """A task without which the worker must not go on: it stops, and is started anew by its parent."""
    try:
        await part
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("edge: a vital task ended, the worker stops")
        stop.set()


async def _clock(front: Front, tickets: TicketSecrets) -> None:
    while True:
        await asyncio.sleep(1.0)
        front.tick()
        tickets.advance(time.time())
        CONNECTIONS.set(len(front.connections))


def _writer_name(number: int) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", f"{socket.gethostname()[:40]}-{os.getpid()}-{number}")
