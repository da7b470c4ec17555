"""Signing in with an API key, security headers on every page, rendering."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from brandproxy import clients, guard, sessions, web
from brandproxy.access import AccessDenied, Principal, authenticate
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

_LONGEST = 4096  # bytes of a sign-in
TRIES_A_SECOND, TRIES_AT_ONCE = 0.5, 20  # sign-ins of one address

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


async def sign_in(context: Context, tries: web.Budget, request: Request) -> Response:
    tries = getattr(request.app.state, "tries", tries)
    return await login(context, tries, request) if request.method == "POST" else render("login.html", fault="")


async def login(context: Context, tries: web.Budget, request: Request) -> Response:
    """A right key becomes a session and leads to the overview."""
    try:
        tries.spend(clients.address(context.settings, request), time.monotonic())
        if "origin" in request.headers and not guard.from_own_page(request):
            raise AccessDenied("the request does not come from a page of this server")
        who = await authenticate(context.store, f"Bearer {await _given(request)}")
    except AccessDenied:
        return render("login.html", 401, fault="That key is not valid here. Check that it was copied whole.")
    except web.TooManyRequests:
        return render("login.html", 429, fault="Too many tries. Wait a minute, then try again.")
    cookie = await sessions.begin(context.store, context.registry.codec.seal, who)
    response = RedirectResponse("/", 303, HEADERS)
    response.set_cookie(
        clients.cookie_name(context.settings, request), cookie, sessions.SECONDS,
        secure=clients.is_secure(context.settings, request), httponly=True, samesite="strict",
    )  # fmt: skip
    return response


async def _given(request: Request) -> str:
    """The key of the form, of which nothing long is read. Raises AccessDenied."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST:
            raise AccessDenied("that is no key")
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    return fields.get("key", [""])[0].strip()


async def logout(context: Context, request: Request, who: Principal) -> Response:
    """Ends the session everywhere, not only in this browser."""
    name = clients.cookie_name(context.settings, request)
    await sessions.end(context.store, request.cookies.get(name, ""))
    response = RedirectResponse("/login", 303, HEADERS)
    response.delete_cookie(
        name, secure=clients.is_secure(context.settings, request), samesite="strict", httponly=True
    )
    return response
