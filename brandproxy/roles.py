"""The roles a process can have; each runs until SIGTERM. `serve` starts them.

edge         recipients: links, assets, challenges
control      HTTP API, dashboard, certificates, DNS watch
collector    events into the analytics engine; part of control while the engine is embedded there
milter smtp  the front ends a mail server talks to

A fleet runs as many of each as it likes; what is done once for all is led by one of them (`leading`).
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from brandproxy import access, certs, onboarding, relay, shipping, sockets
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.control import announce
from brandproxy.engines import Engine, embedded, open_engine
from brandproxy.errors import BrandproxyError
from brandproxy.http_server import server_protocol
from brandproxy.leading import keep, lead
from brandproxy.metrics import exposed

_FORM = 1 << 20  # bytes of a request that is no message; routes have narrower bounds of their own
_BACKLOG = 2048


def edge(settings: Settings) -> None:
    from brandproxy.edge import workers

    workers.run(settings)


def control(settings: Settings) -> None:
    asyncio.run(_control(settings))


def milter(settings: Settings) -> None:
    from brandproxy.filters.milter import run

    mail(settings, run)


def smtp(settings: Settings) -> None:
    from brandproxy.filters.smtp import run

    mail(settings, run)


def mail(settings: Settings, run: Callable[[Context], Awaitable[None]]) -> None:
    """A mail front end with its directory; SIGTERM lets it answer what it has begun."""
    logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd tells every line of every conversation
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # two a conversation; 1,024 are usual

    async def main() -> None:
        async with open_context(settings, actor="mail", replica=True) as context:
            work = asyncio.ensure_future(run(context))
            follow = asyncio.gather(context.directory.follow(context.store), access.keep_uses(context.store))
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, work.cancel)
            with exposed(settings), suppress(asyncio.CancelledError):
                await work
            follow.cancel()
            with suppress(asyncio.CancelledError):  # unread, it is an error in the log
                await follow

    asyncio.run(main())


def build_control(context: Context, engine: Engine) -> Starlette:
    """The control port's application: every front end's routes under one set of manners."""
    from brandproxy import guard, web
    from brandproxy.admin import api as admin
    from brandproxy.admin import public
    from brandproxy.analytics import api as analytics
    from brandproxy.analytics.dashboard import pages
    from brandproxy.analytics.webhooks import api as webhooks
    from brandproxy.filters import http as rewriting
    from brandproxy.onboarding import links

    control = context.settings.control
    routes = [
        *analytics.routes(context, engine),
        *pages.routes(context, engine),
        *webhooks.routes(context),
        *admin.routes(context),
        *public.questions(context),
        *(public.pages(context) if links.pages_at(control) == control.listen else ()),
        *rewriting.routes(context),
        guard.openapi_route(analytics.PATHS, webhooks.PATHS, admin.PATHS, rewriting.PATHS),
    ]
    app = Starlette(
        routes=guard.checked(routes),
        exception_handlers={BrandproxyError: web.on_error, HTTPException: web.on_error},
    )
    app.state.context = context
    return app


async def _control(settings: Settings) -> None:
    """Everything of the control role in one task group; it ends when the HTTP server does, or for `keep`."""
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings, actor="server"))
        engine = open_engine(settings)
        stack.push_async_callback(engine.close)
        app = build_control(context, engine)
        listener = stack.enter_context(sockets.bind(settings.control.listen, _BACKLOG))
        app.state.control_key = stack.enter_context(announce(settings, settings.control.listen)).key
        server = _server(app, settings.mail.max_message + _FORM)
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(work) for work in _background(context, engine)]
            if settings.control.public_listen:
                background.append(group.create_task(_serve_pages(context)))
            with exposed(settings):
                await server.serve([listener])
            for task in background:
                task.cancel()


def _server(app: Starlette, max_body: int) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=server_protocol(max_body),
            proxy_headers=False,  # `clients` says whose word counts
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
    )


async def _serve_pages(context: Context) -> None:
    """Customers' pages, on a port that leads nowhere else, until cancelled. Raises BadSettings."""
    from brandproxy.admin import public

    address = context.settings.control.public_listen
    listening = sockets.bind(address, 128)
    server = _server(public.application(context), _FORM)
    server.signals = ()
    try:
        await server.serve([listening])
    finally:
        listening.close()


class _Server(uvicorn.Server):
    """Stops on a signal and returns; uvicorn by itself raises the signal again, past what is closed after it."""

    signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in self.signals:
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield


def _background(context: Context, engine: Engine) -> list[Coroutine[Any, Any, None]]:
    from brandproxy.analytics import upkeep
    from brandproxy.edge import tickets
    from brandproxy.senders import watch as senders

    led: dict[str, Callable[[], Awaitable[None]]] = {
        "certificates": lambda: certs.maintain(context),
        "onboarding": lambda: onboarding.watch(context),
        "senders": lambda: senders.watch(context),
        "analytics": lambda: upkeep.maintain(context, engine),
        "tickets": lambda: tickets.keep_secrets(context.store, context.registry.codec.seal),
        "webhooks": lambda: _webhooks(context, engine),
    }
    own: dict[str, Callable[[], Awaitable[None]]] = {
        "directory": lambda: context.directory.follow(context.store),
        "keys": lambda: access.keep_uses(context.store),
        **({"collector": lambda: _collect(context, engine)} if embedded(context.settings) else {}),
        **{name: partial(lead, context.store, name, work) for name, work in led.items()},
    }
    return [keep(name, work) for name, work in own.items()]


async def _webhooks(context: Context, engine: Engine) -> None:
    from brandproxy.analytics.webhooks.events import EventLane
    from brandproxy.webhooks import delivery
    from brandproxy.webhooks.changes import ChangeLane

    with closing(ChangeLane(context)) as changes:
        await delivery.deliver(context, (EventLane(engine), changes))


def collector(settings: Settings) -> None:
    asyncio.run(_collector(settings))


async def _collector(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings, actor="collector", replica=True))
        engine = open_engine(settings)
        stack.push_async_callback(engine.close)
        collecting = asyncio.create_task(_collect(context, engine))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, collecting.cancel)
        with exposed(settings), suppress(asyncio.CancelledError):
            await collecting


async def _collect(context: Context, engine: Engine) -> None:
    """From the edges of the fleet, or from the edge of this machine."""
    stream = context.settings.event_stream
    await (relay.collect(context, engine, stream) if stream else shipping.collect(context, engine))


ROLES: dict[str, Callable[[Settings], None]] = {
    "edge": edge, "control": control, "collector": collector, "milter": milter, "smtp": smtp,
}  # fmt: skip
