"""Where commands get analytics from: the running control process, or the engine itself when none runs.

The embedded engine belongs to one process. With a server running that is the server, and it is asked over its
control port; otherwise the same application answers inside this process, so that both ways give one answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette

from brandproxy.config import load
from brandproxy.context import Context, open_context
from brandproxy.control import find, new_key
from brandproxy.engines import Engine, open_engine
from brandproxy.errors import BadInput, BrandproxyError, Retryable

PREFIX = "/v1/analytics"


class NoServer(Retryable):
    action = "Start one with `brandproxy serve`, or set BRANDPROXY_DATA to the directory of one that runs."


class Source:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def get(self, path: str, params: Mapping[str, str]) -> Any:
        return await self.send("GET", path, params)

    async def send(
        self, method: str, path: str, params: Mapping[str, str], body: Mapping[str, str] | None = None
    ) -> Any:
        """The JSON answer of an analytics route. Raises BadInput or Retryable with the server's sentence."""
        response = await self.client.request(method, PREFIX + path, params=dict(params), json=body)
        if response.is_success:
            return response.json()
        problem = response.json()
        kind: type[BrandproxyError] = BadInput if response.status_code < 500 else Retryable
        raise kind(problem.get("detail") or problem["title"], problem.get("action", ""))

    def stream(self, path: str, params: Mapping[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
        """A GET whose answer has no end."""
        return self.client.stream("GET", PREFIX + path, params=dict(params), timeout=None)


@asynccontextmanager
async def open_source() -> AsyncIterator[Source]:
    """The control process of this data directory, or the engine itself."""
    control = find(load())
    if control is not None:
        headers = {"Authorization": f"Bearer {control.key}"}
        async with httpx.AsyncClient(
            base_url=control.url, headers=headers, timeout=600, trust_env=False
        ) as client:
            yield Source(client)
        return
    async with own_engine() as (context, engine):
        app, key = _application(context, engine)
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", headers=headers) as client:
            yield Source(client)


def need_server() -> None:
    """Raises NoServer when no control process runs on this data directory."""
    if find(load()) is None:
        raise NoServer("no server runs here, so nothing new can arrive")


@asynccontextmanager
async def own_engine(drained: bool = True) -> AsyncIterator[tuple[Context, Engine]]:
    """This installation's engine, with what waited in the spool taken in. Raises EngineBusy beside a server."""
    from brandproxy.shipping import drain

    async with open_context(load()) as context:
        engine = open_engine(context.settings)
        try:
            if drained:
                await drain(context, engine)
            yield context, engine
        finally:
            await engine.close()


def _application(context: Context, engine: Engine) -> tuple[Starlette, str]:
    from brandproxy.analytics.api import routes
    from brandproxy.web import on_error

    app = Starlette(routes=routes(context, engine), exception_handlers={BrandproxyError: on_error})
    app.state.context = context
    app.state.control_key = key = new_key()
    return app, key
