"""What is asked without an API key.

- `/onboarding/<link>`: a customer's page, private by its sealed link; it never changes anything but our knowledge.
  Served at `control.public_listen`, apart from everything else; on the control port only while that is loopback.
- `/caddy/ask?domain=…`: Caddy's on-demand TLS asks whether a name is one of ours (200) or not (404)
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute

from brandproxy.certs.status import CertStatus, status
from brandproxy.context import Context
from brandproxy.core.names import hostname
from brandproxy.errors import BadInput, BrandproxyError, NotFound
from brandproxy.guard import Open, checked
from brandproxy.model import Host, HostState
from brandproxy.onboarding import Report, Watcher, links
from brandproxy.store.seal import open_seal

_HERE = Path(__file__).parent
_FILES = {"page.css": "text/css", "page.js": "text/javascript"}
_FRESH = 5.0  # seconds a look is shown before an open page makes another
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Robots-Tag": "noindex, nofollow",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
}
_MARKS = {"right": "✓ found", "missing": "✗ missing", "wrong": "✗ wrong", "unknown": "… no answer"}
_WORDS = {
    HostState.PENDING: ("bad", "Waiting for your records.", "Create what is marked below."),
    HostState.VERIFIED: ("", "Your records are right.", "The certificate is being made; this takes a minute."),
    HostState.LIVE: ("good", "All done.", "Your name is connected. Please leave the records in place."),
    HostState.BROKEN: ("bad", "The records are gone.", "Mail is sent without your name until they are back."),
    HostState.SUSPENDED: ("bad", "This name is switched off.", "Please ask whoever sent you this page."),
}


class Public:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._seal = open_seal(context.settings)
        self._watcher = Watcher(context)
        self._looking: dict[str, asyncio.Lock] = {}
        self._templates = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)

    async def page(self, request: Request) -> Response:
        return await self._show("onboarding.html", request)

    async def status(self, request: Request) -> Response:
        """The part of the page that changes; an open page asks for it every two seconds."""
        return await self._show("status.html", request)

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _FILES:
            raise NotFound("no such file")
        return FileResponse(_HERE / "static" / name, media_type=_FILES[name], headers=_HEADERS)

    async def ask(self, request: Request) -> Response:
        """https://caddyserver.com/docs/caddyfile/options#on-demand-tls: any 2xx lets Caddy issue."""
        try:
            site = self._context.directory.site(hostname(request.query_params.get("domain", "")))
        except BadInput:
            site = None
        known = site is not None and site.host.state in (HostState.VERIFIED, HostState.LIVE)
        return PlainTextResponse("yes" if known else "no", 200 if known else 404)

    async def _show(self, template: str, request: Request) -> Response:
        try:
            host = await links.open_link(self._seal, self._context.registry, request.path_params["link"])
        except NotFound as error:
            return PlainTextResponse(f"{error}\n{error.action}", 404, _HEADERS)
        host, report = await self._look(host)
        certificate = await status(self._context.store, host.name) if host.proven else CertStatus(host.name)
        contested = await self._context.registry.contested(host)
        tone, headline, explanation = _WORDS[host.state]
        text = self._templates.get_template(template).render(
            host=host, tone=tone, headline=headline, explanation=explanation, marks=_MARKS,
            lines=report.lines, findings=report.findings, alignment=report.alignment,
            certificate=_certificate(host, certificate), checked=_checked(report), contested=contested,
        )  # fmt: skip
        return HTMLResponse(text, headers=_HEADERS)

    async def _look(self, host: Host) -> tuple[Host, Report]:
        """The last look; a new one when it is old and somebody waits for it. One at a time for a host."""
        if len(self._looking) > 10_000:
            self._looking.clear()
        async with self._looking.setdefault(host.target, asyncio.Lock()):
            holder = await self._context.registry.host(host.name)
            beside = "" if holder.tenant == host.tenant else host.tenant
            report = await self._watcher.last(host.name, beside)
            settled = host.state in (HostState.LIVE, HostState.SUSPENDED)
            fresh = 60.0 if settled and report.lines else _FRESH
            if report.watch.checked_at > time.time() - fresh:
                return host, report
            try:
                return await self._watcher.check(host.name, host.tenant)
            except BrandproxyError:
                return host, report


def _certificate(host: Host, certificate: CertStatus) -> str:
    if certificate.error:
        return f"Not yet: {certificate.error}"
    if certificate.not_after:
        return f"Valid until {_day(certificate.not_after)}; it is renewed by itself."
    if host.state is HostState.VERIFIED:
        return "Being made."
    return "Follows by itself as soon as the records are right."


def _checked(report: Report) -> str:
    if not report.watch.checked_at:
        return "Not looked yet."
    return f"Last looked {datetime.fromtimestamp(report.watch.checked_at, UTC):%Y-%m-%d %H:%M:%S} UTC."


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def pages(context: Context) -> list[BaseRoute]:
    """What customers are given links to; it leads to nothing else."""
    public = Public(context)
    return [
        Open("/onboarding/static/{name}", public.file, "files without data"),
        Open("/onboarding/{link}", public.page, "the sealed link is the right to it"),
        Open("/onboarding/{link}/status", public.status, "the sealed link is the right to it"),
    ]


def questions(context: Context) -> list[BaseRoute]:
    """What machines on the operator's side ask without a key."""
    return [Open("/caddy/ask", Public(context).ask, "says of a name only whether it is served")]


def application(context: Context) -> Starlette:
    """The pages alone, for `control.public_listen`; whatever else is asked gets the same bare answer."""

    async def refuse(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        return PlainTextResponse("There is nothing here.\n", status, _HEADERS)

    handlers: dict[Any, Any] = {HTTPException: refuse, BrandproxyError: refuse}
    return Starlette(routes=checked(pages(context)), exception_handlers=handlers)
