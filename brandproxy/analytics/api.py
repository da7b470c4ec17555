"""`/v1/analytics`: the questions of `queries` over HTTP. Filters and isolation come from `filters.of_request`."""

from __future__ import annotations

import hashlib
import json
import time
from functools import partial
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from brandproxy.access import Principal
from brandproxy.analytics import export, maintenance, periods, queries
from brandproxy.analytics.filters import Filter, number, of_request
from brandproxy.analytics.live import Live
from brandproxy.analytics.paths import PATHS
from brandproxy.context import Context
from brandproxy.engines import Engine
from brandproxy.errors import BadInput
from brandproxy.guard import Handler, described

__all__ = ["PATHS", "routes"]

PREFIX = "/v1/analytics"
MAX_TOP = 500
MAX_EXPORT = 1_000_000
_CLOSED_US = 60_000_000  # a period this long over changes only when events come late


def routes(context: Context, engine: Engine) -> list[BaseRoute]:
    """The routes of this module, for the control port's application."""
    live = Live(engine, context.settings.limits.feeds)
    squeezed = [Middleware(GZipMiddleware, minimum_size=1000)]
    plain: dict[str, Handler] = {
        "/summary": partial(_summary, engine),
        "/timeseries": partial(_timeseries, engine),
        "/top": partial(_top, engine),
        "/events": partial(_events, engine),
        "/timeline": partial(_references, engine),
        "/messages/{message}": partial(_timeline, engine, "message"),
        "/recipients/{recipient}": partial(_timeline, engine, "recipient"),
    }
    others = maintenance.handlers(context, engine)
    found = [
        described(PATHS, PREFIX + path, {"GET": work, **others.pop(path, {})}, middleware=squeezed)
        for path, work in plain.items()
    ]
    return [
        *found,
        described(PATHS, f"{PREFIX}/live", {"GET": partial(_live, live)}),
        *(described(PATHS, PREFIX + path, methods) for path, methods in others.items()),
    ]


async def _summary(engine: Engine, request: Request, who: Principal) -> Response:
    f = of_request(request, who)
    return _answer(request, f, await queries.summary(engine, f))


async def _timeseries(engine: Engine, request: Request, who: Principal) -> Response:
    f = of_request(request, who, ("unit", "zone", "uniques"))
    unit = _one_of(request, "unit", periods.UNITS, "day")
    zone = periods.zone_of(request.query_params.get("zone", "UTC"))
    uniques = _one_of(request, "uniques", ("true", "false"), "true") == "true"
    return _answer(request, f, await queries.timeseries(engine, f, unit, zone, uniques))


async def _top(engine: Engine, request: Request, who: Principal) -> Response:
    f = of_request(request, who, ("by", "limit"))
    by = _one_of(request, "by", tuple(queries.TOP), "link")
    limit = number("limit", request.query_params.get("limit", "20"), 1, MAX_TOP)
    return _answer(request, f, await queries.top(engine, f, by, limit))


async def _events(engine: Engine, request: Request, who: Principal) -> Response:
    f = of_request(request, who, ("cursor", "limit", "format"))
    after = request.query_params.get("cursor", "")
    form = _one_of(request, "format", ("json", "ndjson", "csv"), "json")
    default = export.PAGE if form == "json" else MAX_EXPORT
    limit = number("limit", request.query_params.get("limit", str(default)), 1, MAX_EXPORT)
    if form == "json":
        events, following = await export.page(engine, f, min(limit, export.MAX_PAGE), after)
        return _answer(request, f, {"events": events, "next": following or None})
    if after:
        export.place(after)  # a bad cursor is refused before the stream begins
    work, media = (export.ndjson, "application/x-ndjson") if form == "ndjson" else (export.as_csv, "text/csv")
    name = f'attachment; filename="events.{form}"'
    return StreamingResponse(
        work(engine, f, after, limit), media_type=media, headers={"Content-Disposition": name}
    )


async def _references(engine: Engine, request: Request, who: Principal) -> Response:
    """References are any text (`list/4711`, `..`): they stand in the query, a path has its own ideas of them."""
    f = of_request(request, who, ("cursor", "limit"))
    if not (f.message or f.recipient):
        raise BadInput("whose timeline?", "Name a `message`, a `recipient`, or both.")
    limit = number("limit", request.query_params.get("limit", str(export.PAGE)), 1, export.MAX_PAGE)
    after = request.query_params.get("cursor", "")
    events, following = await export.page(engine, f, limit, after, newest_first=False)
    return _answer(request, f, {"events": events, "next": following or None})


async def _timeline(engine: Engine, what: str, request: Request, who: Principal) -> Response:
    f = of_request(request, who, ("cursor", "limit"), **{what: request.path_params[what]})
    limit = number("limit", request.query_params.get("limit", str(export.PAGE)), 1, export.MAX_PAGE)
    after = request.query_params.get("cursor", "")
    events, following = await export.page(engine, f, limit, after, newest_first=False)
    return _answer(request, f, {what: request.path_params[what], "events": events, "next": following or None})


async def _live(live: Live, request: Request, who: Principal) -> Response:
    stream = live.stream(of_request(request, who), who.tenant or who.key_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def _one_of(request: Request, name: str, allowed: tuple[str, ...], default: str) -> str:
    value = request.query_params.get(name, default)
    if value not in allowed:
        raise BadInput(f"{name} {value[:40]!r} is none of {', '.join(allowed)}")
    return value


def _answer(request: Request, f: Filter, value: Any) -> Response:
    """JSON; the answer about a period that is over carries an ETag (RFC 9110 §8.8.3)."""
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    headers = {"Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    if f.until_us < time.time() * 1e6 - _CLOSED_US:
        headers["ETag"] = tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
