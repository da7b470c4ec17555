"""The pages. Each asks the same questions as the API, with the same filter and the same isolation."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute

from brandproxy import web
from brandproxy.access import Principal, Scope
from brandproxy.analytics import export, queries
from brandproxy.analytics.dashboard import clickmap, hosts, session, view
from brandproxy.analytics.dashboard.view import View
from brandproxy.analytics.filters import of_request
from brandproxy.context import Context
from brandproxy.engines import Engine
from brandproxy.errors import BadInput, NotFound
from brandproxy.guard import Guarded, Open, Rule

_STATIC = {
    "app.css": "text/css", "app.js": "text/javascript", "uplot.js": "text/javascript", "uplot.css": "text/css",
    "icon.svg": "image/svg+xml", "uplot.LICENSE.txt": "text/plain",
}  # fmt: skip

# the lists on the overview: title, what `top` groups by, the filter a row sets
LISTS = (
    ("Links", "link", ""),
    ("Campaigns", "campaign", "campaign"),
    ("Destinations", "domain", ""),
    ("Hosts", "host", "host"),
    ("Mail clients and browsers", "client", ""),
    ("Devices", "device", ""),
    ("Countries", "country", ""),
    ("Why machines", "reason", ""),
)
_ROWS = 8

Page = Callable[["Desk", Request, Principal], Awaitable[Response]]


class Desk:
    """What every page needs."""

    def __init__(self, context: Context, engine: Engine) -> None:
        self.context = context
        self.engine = engine

    async def show(
        self, template: str, request: Request, who: Principal, v: View | None, **values: Any
    ) -> Response:
        tenants = self.context.directory.slugs() if who.tenant is None else [who.tenant]
        shared: dict[str, Any] = {
            "who": who,
            "may": {scope.name.lower(): who.has(scope) for scope in Scope},
            "tenants": tenants,
            "periods": list(view.PERIODS.values()),
            "path": request.url.path,
        }
        return session.render(template, v=v, zone=session.zone_of(request), **shared, **values)


# What each page needs; the links to it are shown to who has that.
_READ, _ONBOARD, _ADMIN = Rule(Scope.ANALYTICS_READ), Rule(Scope.ONBOARD), Rule(Scope.ADMIN)


def routes(context: Context, engine: Engine) -> list[BaseRoute]:
    """The dashboard's routes, for the control port's application."""
    desk = Desk(context, engine)
    tries = web.Budget(session.TRIES_A_SECOND, session.TRIES_AT_ONCE)
    pages: dict[str, dict[str, tuple[Rule, Page]]] = {
        "/": {"GET": (Rule(None), overview)},
        "/campaign": {"GET": (_READ, campaign)},
        "/campaign/map": {"GET": (_READ, click_map), "POST": (_ADMIN, keep_mail)},
        "/message": {"GET": (_READ, partial(timeline, "message"))},
        "/recipient": {"GET": (_READ, partial(timeline, "recipient"))},
        "/hosts": {"GET": (_ONBOARD, host_list)},
        "/live": {"GET": (_READ, live)},
    }
    guarded = [
        Guarded(path, {m: (rule, partial(page, desk)) for m, (rule, page) in methods.items()}, session.fault)
        for path, methods in pages.items()
    ]
    return [
        *guarded,
        Open("/login", partial(session.sign_in, context, tries), "how one becomes somebody", ("GET", "POST")),
        Guarded("/logout", {"POST": (Rule(None), partial(session.logout, context))}, session.fault),
        Open("/static/{name}", static, "files without data"),
    ]


async def static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        return Response(status_code=404, headers=session.HEADERS)
    body = (session.STATIC / name).read_bytes()
    tag = f'"{hashlib.blake2b(body, digest_size=8).hexdigest()}"'
    headers = session.HEADERS | {"Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=_STATIC[name], headers=headers)


def read(request: Request, who: Principal) -> View:
    """What a page's address asks for. Raises BadInput, NotFound."""
    asked = {name: value for name, value in request.query_params.items() if value}
    name = asked.get("period", view.DEFAULT_PERIOD)
    if name not in view.PERIODS:
        raise BadInput(f"no period {name[:20]!r}")
    f = of_request(request, who, lenient=True)
    period = view.PERIODS[name]
    return View(request.url.path, asked, period, view.with_period(f, period, session.zone_of(request)))


async def overview(desk: Desk, request: Request, who: Principal) -> Response:
    """The figures; a key that may not see them is led to what it may see."""
    if not who.has(Scope.ANALYTICS_READ):
        if who.has(Scope.ONBOARD):
            return RedirectResponse("/hosts", 303, session.HEADERS)
        return await desk.show("nothing.html", request, who, None)
    v = read(request, who)
    zone = session.zone_of(request)
    now, before, series, *lists = await asyncio.gather(
        queries.summary(desk.engine, v.filter),
        queries.summary(desk.engine, v.before),
        queries.timeseries(desk.engine, v.filter, v.period.unit, zone),
        *(queries.top(desk.engine, v.filter, by, _ROWS) for _, by, _ in LISTS),
    )
    shown = [(*named, found) for named, found in zip(LISTS, lists, strict=True) if _tells(found["items"])]
    return await desk.show("overview.html", request, who, v, now=now, before=before, series=series, lists=shown)


def _tells(items: list[dict[str, Any]]) -> bool:
    """A list of nothing but "unknown" tells nothing (no GeoIP database, as a rule)."""
    return any(item["key"] for item in items)


async def campaign(desk: Desk, request: Request, who: Principal) -> Response:
    """A campaign: its figures and the mail's links in order with their shares."""
    v = read(request, who)
    name = v.filter.campaign
    if not name:
        raise BadInput("no campaign was named", "Choose one on the overview.")
    zone = session.zone_of(request)
    clicks = replace(v.filter, kind="click", link=None)
    now, series, links, messages = await asyncio.gather(
        queries.summary(desk.engine, v.filter),
        queries.timeseries(desk.engine, v.filter, v.period.unit, zone),
        queries.top(desk.engine, clicks, "link", 500),
        queries.top(desk.engine, v.filter, "message", _ROWS),
    )
    links["items"].sort(key=lambda item: item["link"])
    mapped = bool(v.filter.tenant) and await clickmap.kept(desk.context, v.filter.tenant, name) is not None
    values = {"name": name, "now": now, "series": series, "links": links, "messages": messages, "mapped": mapped}
    return await desk.show("campaign.html", request, who, v, **values)


async def click_map(desk: Desk, request: Request, who: Principal) -> Response:
    """The mail itself with shares drawn in, for the frame on the campaign's page."""
    v = read(request, who)
    text = await clickmap.kept(desk.context, v.filter.tenant, v.filter.campaign)
    if text is None:
        raise NotFound("no mail is kept for this campaign")
    links = await queries.top(desk.engine, replace(v.filter, kind="click", link=None), "link", 500)
    drawn = clickmap.draw(text, links["items"], desk.context.directory.ring(v.filter.tenant))
    return HTMLResponse(drawn, headers=session.HEADERS | {"Content-Security-Policy": clickmap.POLICY})


async def keep_mail(desk: Desk, request: Request, who: Principal) -> Response:
    v = read(request, who)
    if not v.filter.tenant or not v.filter.campaign:
        raise BadInput("whose campaign?", "Choose a tenant, then the campaign.")
    announced = request.headers.get("content-length", "")
    if not announced.isdecimal() or int(announced) > clickmap.MOST + 4096:
        raise BadInput("the mail is longer than a megabyte")
    async with request.form(max_files=1, max_fields=1) as form:
        given = form.get("mail")
        content = await given.read() if isinstance(given, UploadFile) else b""
    before = await clickmap.kept(desk.context, v.filter.tenant, v.filter.campaign)
    await clickmap.keep(desk.context, v.filter.tenant, v.filter.campaign, content, who)
    await desk.context.registry.acting(f"key {who.key_id}").audit(
        "campaign.mail", v.filter.campaign, tenant=v.filter.tenant,
        before=_size(before), after=f"{len(content)} bytes",
    )  # fmt: skip
    return RedirectResponse(v.url("/campaign") + "#map", 303, session.HEADERS)


def _size(text: str | None) -> str | None:
    return None if text is None else f"{len(text.encode())} bytes"


async def timeline(what: str, desk: Desk, request: Request, who: Principal) -> Response:
    """Everything that happened to one message or recipient, machines included, whatever the period."""
    v = read(request, who)
    name = getattr(v.filter, what)
    if not name:
        raise BadInput(f"no {what} was named", "Choose one on the overview or the live page.")
    f = replace(v.filter, since_us=0, machines="include")
    cursor = request.query_params.get("cursor", "")
    events, following = await export.page(desk.engine, f, 200, cursor, newest_first=False)
    return await desk.show(
        "timeline.html", request, who, v, what=what, name=name, events=events, following=following
    )


async def live(desk: Desk, request: Request, who: Principal) -> Response:
    v = read(request, who)
    f = replace(v.filter, machines="include")
    events, _ = await export.page(desk.engine, f, 50)
    return await desk.show("live.html", request, who, v, events=events)


async def host_list(desk: Desk, request: Request, who: Principal) -> Response:
    v = read(request, who)
    found, left_out = await hosts.states(desk.context, v.filter.tenant)
    return await desk.show("hosts.html", request, who, v, hosts=found, left_out=left_out)
