"""Signing in with an API key, security headers on every page, rendering."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from brandproxy import web
from brandproxy.access import AccessDenied, authenticate
from brandproxy.analytics import periods
from brandproxy.analytics.dashboard import view
from brandproxy.context import Context
from brandproxy.errors import BadInput, BrandproxyError

STATIC = files("brandproxy.analytics.dashboard") / "static"
ZONE_COOKIE = "brandproxy_zone"  # set by the script from the browser's own zone

# Nothing from elsewhere, nothing inline: scripts and styles are our files only (CSP level 3).
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would take the Origin from our own forms too
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_TRIES = web.Budget(rate=0.5, burst=20)

_pages = Environment(
    loader=PackageLoader("brandproxy.analytics.dashboard"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_pages.filters.update(
    count=view.count,
    short=view.short,
    percent=view.percent,
    duration=view.duration,
    place=view.place,
    ago=view.ago,
)
_pages.globals.update(change=view.change, moment=view.moment, clock=view.clock, day=view.day)


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(_pages.get_template(template).render(**values), status, HEADERS)


def fault(error: BrandproxyError) -> Response:
    """The page for an error; somebody who is not signed in is sent to do that."""
    status = web.status_of(error)
    if status == 401:
        return RedirectResponse("/login", 303, HEADERS)
    return render("fault.html", status, error=error)


def zone_of(request: Request) -> ZoneInfo:
    """The reader's time zone, UTC until the browser has told it."""
    try:
        return periods.zone_of(request.cookies.get(ZONE_COOKIE, "UTC").replace("%2F", "/"))
    except BadInput:
        return ZoneInfo("UTC")


async def login_page(request: Request) -> Response:
    return render("login.html", fault="")


async def login(context: Context, request: Request) -> Response:
    """A right key becomes a session and leads to the overview."""
    client = request.client.host if request.client else ""
    try:
        _TRIES.spend(client, time.monotonic())
        key = str((await request.form()).get("key", "")).strip()
        await authenticate(context.store, f"Bearer {key}")
    except AccessDenied:
        return render("login.html", 401, fault="That key is not valid here. Check that it was copied whole.")
    except web.TooManyRequests:
        return render("login.html", 429, fault="Too many tries. Wait a minute, then try again.")
    response = RedirectResponse("/", 303, HEADERS)
    web.sign_in(context, response, key, secure=request.url.scheme == "https")
    return response


async def logout(request: Request) -> Response:
    response = RedirectResponse("/login", 303, HEADERS)
    response.delete_cookie(web.SESSION, samesite="strict", httponly=True)
    return response
