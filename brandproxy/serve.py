"""The composition root: which process runs what.

`serve --role all` is a supervisor: it starts one process a role, starts a fallen one again, and ends with them.
Invariant: no child outlives the supervisor, even after kill -9 (the kernel kills it with its parent), so a
restart never meets an old process on its ports or files.

    edge      recipients: links, assets, challenges                    (brandproxy/edge)
    control   collector, analytics, HTTP API, certificates, DNS watch  (one asyncio task group)
    milter    smtp                                                     (brandproxy/filters)
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from fcntl import LOCK_EX, LOCK_NB, flock
from typing import IO, Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from brandproxy import certs, shipping
from brandproxy.config import Settings
from brandproxy.context import Context, open_context
from brandproxy.control import announce
from brandproxy.engines import Engine, open_engine
from brandproxy.errors import BadSettings, BrandproxyError, Conflict

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # prctl(2)
_DRAIN = 15.0  # seconds a child has to end after SIGTERM


def run(settings: Settings, role: str) -> None:
    """Run a role until SIGTERM or SIGINT. Raises BadSettings for an unknown role."""
    _die_with_parent()
    if role == "all":
        with _only_server(settings):
            _supervise(["edge", "control"])
        return
    if role not in _ROLES:
        raise BadSettings(f"no role {role!r}", f"Use one of: all, {', '.join(_ROLES)}.")
    _ROLES[role](settings)


def build_control(context: Context, engine: Engine) -> Starlette:
    """The control port's application: every front end's routes under one set of manners."""
    from brandproxy import web
    from brandproxy.admin import api as admin
    from brandproxy.analytics import api as analytics
    from brandproxy.analytics.dashboard import pages

    routes = [
        *analytics.routes(context, engine),
        *pages.routes(context, engine),
        *admin.routes(context),
        web.openapi_route(analytics.PATHS, admin.PATHS),
    ]
    app = Starlette(routes=routes, exception_handlers={BrandproxyError: web.on_error, HTTPException: web.on_error})
    app.state.context = context
    return app


def _edge(settings: Settings) -> None:
    from brandproxy.edge import workers

    workers.run(settings)


def _control(settings: Settings) -> None:
    asyncio.run(_control_tasks(settings))


async def _control_tasks(settings: Settings) -> None:
    """Everything of the control role in one task group; it ends when the HTTP server does."""
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings, actor="server"))
        engine = open_engine(settings)
        stack.push_async_callback(engine.close)
        app = build_control(context, engine)
        app.state.control_key = stack.enter_context(announce(settings, settings.control.listen)).key
        host, _, port = settings.control.listen.rpartition(":")
        server = uvicorn.Server(
            uvicorn.Config(
                app, host=host.strip("[]"), port=int(port), log_level="warning", timeout_graceful_shutdown=5
            )
        )
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(work) for work in _background(context, engine)]
            await server.serve()
            for task in background:
                task.cancel()


def _background(context: Context, engine: Engine) -> list[Coroutine[Any, Any, None]]:
    from brandproxy.analytics import upkeep

    return [
        context.directory.follow(context.store),
        shipping.collect(context, engine),
        upkeep.maintain(context, engine),
        certs.maintain(context),
    ]


_ROLES: dict[str, Callable[[Settings], None]] = {"edge": _edge, "control": _control}


def _supervise(roles: list[str]) -> None:
    """Keep one process a role running until a signal says stop."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: stopping.append(number))
    children = {role: _start(role) for role in roles}
    started = dict.fromkeys(roles, time.monotonic())
    while not stopping:
        time.sleep(0.1)
        for role, child in children.items():
            if child.poll() is None or stopping:
                continue
            if time.monotonic() - started[role] < 3:
                time.sleep(1)  # falls at once: do not spin
            log.error("%s ended with %s, starting it again", role, child.returncode)
            children[role], started[role] = _start(role), time.monotonic()
    _stop(list(children.values()))


def _start(role: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"BRANDPROXY_PARENT": str(os.getpid())}
    return subprocess.Popen(
        [sys.executable, "-m", "brandproxy", "serve", "--role", role], env=environment, start_new_session=True
    )


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(_DRAIN)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _die_with_parent() -> None:
    """prctl(2): SIGKILL when the supervisor dies. It may have died before the call, hence the second look."""
    parent = os.environ.get("BRANDPROXY_PARENT")
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit("the supervisor is gone")


def _only_server(settings: Settings) -> IO[str]:
    """Hold the data directory: two servers on it would fight over the analytics file. Raises Conflict."""
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = open(settings.data / "serve.lock", "a+")  # noqa: SIM115 - held open for the life of the process
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise Conflict(
            f"another brandproxy serves {settings.data}", "Stop it, or set BRANDPROXY_DATA to another directory."
        ) from error
    return file
