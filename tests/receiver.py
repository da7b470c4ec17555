"""Somebody's server that webhooks are sent to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.conftest import free_port


@dataclass
class Receiver:
    """Somebody's server. `answers` are given in turn, then 204."""

    url: str = ""
    answers: list[Response] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def endpoint(self, request: Request) -> Response:
        self.got.append((dict(request.headers), await request.body()))
        return self.answers.pop(0) if self.answers else Response(status_code=204)

    def ids(self, number: int) -> list[str]:
        return [e["id"] for e in json.loads(self.got[number][1])["data"]["events"]]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found, number = Receiver(), free_port()
    app = Starlette(routes=[Route("/hook", found.endpoint, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=number, log_level="error"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    found.url = f"http://127.0.0.1:{number}/hook"
    yield found
    server.should_exit = True
    await task
