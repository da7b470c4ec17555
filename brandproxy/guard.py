"""Who may reach a route of the control port: every route is a `Guarded` with a rule for each method, or an `Open`
one that says why. `checked` refuses an application with any other, so a route without a rule never answers.

Who asks is decided in this order:
1. the key of commands on this machine (`app.state.control_key`, see `brandproxy.control`)
2. the API key of the Authorization header
3. the session cookie of the dashboard; it changes things only by requests from our own pages
Then the rule: first the scope (403 names it), then whether it is the operator's alone. Whose things a key sees is
the handler's to ask (`Principal.sees`), since only it knows whose they are.

A streamed answer is watched while it runs: it ends within HEARTBEAT seconds of its key's or session's end.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from brandproxy import clients, sessions, web
from brandproxy.access import AccessDenied, Principal, Scope, authenticate
from brandproxy.context import Context
from brandproxy.errors import BrandproxyError, Final, Retryable

HEARTBEAT = 3.0  # seconds between two looks at the key of a streamed answer
_OPERATOR = "operator"  # beside the scope in OpenAPI: roles of a security requirement (OpenAPI 3.1 §4.8.30)
_CONTROL = "control"  # id of the key of commands on this machine

Handler = Callable[[Request, Principal], Awaitable[Response]]
Fault = Callable[[BrandproxyError], Response]


class Undeclared(Final):
    """A route or operation that does not say who may use it."""

    action = "Declare its scope where the operation is described."


@dataclass(frozen=True, slots=True)
class Rule:
    """`scope` None: any valid key. `operator`: no tenant's key. `counted`: spends of the key's budget."""

    scope: Scope | None
    operator: bool = False
    counted: bool = True

    @property
    def security(self) -> list[dict[str, list[str]]]:
        """As OpenAPI says it."""
        return [{"bearer": [*([self.scope] if self.scope else []), *([_OPERATOR] if self.operator else [])]}]

    def admit(self, who: Principal) -> None:
        """Raises Forbidden."""
        if self.scope is not None:
            who.require(self.scope)
        if self.operator:
            web.require_operator(who)


def rule_of(described: Mapping[str, Any], counted: bool = True) -> Rule:
    """The rule an OpenAPI operation declares. Raises Undeclared: nothing is open because somebody forgot."""
    roles = [role for requirement in described.get("security", ()) for role in requirement.get("bearer", ())]
    scopes = [role for role in roles if role != _OPERATOR]
    if len(scopes) != 1 or scopes[0] not in list(Scope):
        raise Undeclared(f"the operation {described.get('summary', '')!r} declares no scope")
    return Rule(Scope(scopes[0]), _OPERATOR in roles, counted)


class Open(Route):
    """A route for everybody. `why` is for the reader."""

    def __init__(
        self, path: str, endpoint: Callable[..., Any], why: str, methods: Sequence[str] = ("GET",)
    ) -> None:
        super().__init__(path, endpoint, methods=list(methods))
        self.why = why


class Guarded(Route):
    """One path; each method with its rule. `fault` renders errors, where they are not problems but pages."""

    def __init__(
        self,
        path: str,
        handlers: Mapping[str, tuple[Rule, Handler]],
        fault: Fault | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self.rules = {method: rule for method, (rule, _) in handlers.items()}

        async def endpoint(request: Request) -> Response:
            rule, handler = handlers["GET" if request.method == "HEAD" else request.method]
            try:
                who = await admit(request, rule)
                return _watched(request.app.state.context, who, await handler(request, who))
            except BrandproxyError as error:
                if fault is None:
                    raise
                return fault(error)

        super().__init__(path, endpoint, methods=list(handlers), middleware=middleware)


def described(
    paths: web.Paths, path: str, handlers: Mapping[str, Handler], counted: bool = True, **more: Any
) -> Guarded:
    """The route of a path item, by the rules that its OpenAPI operations declare. Raises Undeclared."""
    found = {}
    for method, handler in handlers.items():
        operation = paths.get(path, {}).get(method.lower())
        if operation is None:
            raise Undeclared(f"{method} {path} is not described")
        found[method] = (rule_of(operation, counted), handler)
    return Guarded(path, found, **more)


def openapi_route(*paths: web.Paths) -> Open:
    """`GET /openapi.json`. Raises Undeclared when an operation declares no scope."""
    for operation in (operation for group in paths for item in group.values() for operation in item.values()):
        rule_of(operation)
    document = web.openapi(*paths)

    async def endpoint(request: Request) -> Response:
        return JSONResponse(document)

    return Open("/openapi.json", endpoint, "tells nothing about tenants")


def checked(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    """The same routes. Raises Undeclared when one of them has no rule."""
    for route in routes:
        if not isinstance(route, Guarded | Open):
            raise Undeclared(f"the route {getattr(route, 'path', route)!r} does not say who may use it")
    return list(routes)


async def admit(request: Request, rule: Rule) -> Principal:
    """Who asks, when the rule lets them. Raises AccessDenied (401), Forbidden (403), TooManyRequests (429)."""
    who = await _identify(request)
    if rule.counted:
        budget: web.Budget = getattr(request.app.state, "budget", web.BUDGET)
        budget.spend(who.key_id, time.monotonic())
    rule.admit(who)
    return who


async def _identify(request: Request) -> Principal:
    context: Context = request.app.state.context
    header = request.headers.get("authorization", "")
    control_key: str = getattr(request.app.state, "control_key", "")
    if control_key and hmac.compare_digest(header.encode("utf-8", "replace"), f"Bearer {control_key}".encode()):
        return Principal(_CONTROL, None, frozenset(Scope))
    cookie = request.cookies.get(clients.cookie_name(context.settings, request), "")
    if header or not cookie:
        return await authenticate(context.store, header)
    if request.method not in ("GET", "HEAD") and not from_own_page(request):
        raise AccessDenied("the request does not come from a page of this server")
    return await sessions.principal_of(context.store, context.registry.codec.seal, cookie)


def from_own_page(request: Request) -> bool:
    """Whether a browser sent this for one of our own pages: no other page can forge Origin and Fetch Metadata."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == request.headers.get("host", "")


def _watched(context: Context, who: Principal, response: Response) -> Response:
    streamed = isinstance(response, StreamingResponse | FileResponse)
    return _Watched(context, who, response) if streamed and who.key_id != _CONTROL else response


class _Watched(Response):
    """A streamed answer that ends with the key or session it was given to.

    Server-sent events end as they do by themselves; anything else is broken off, so that nobody takes the part
    for the whole (RFC 9112 §8: a chunked message without its last chunk is incomplete).
    """

    def __init__(self, context: Context, who: Principal, response: Response) -> None:
        self._context, self._who, self._response = context, who, response
        self.status_code, self.background = response.status_code, None
        self.raw_headers = response.raw_headers

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._response(scope, receive, send))
        try:
            while not (await asyncio.wait({work}, timeout=self._patience()))[0]:
                if not await self._valid():
                    break
        finally:
            ended = not work.done()
            if ended:
                work.cancel()
                with suppress(asyncio.CancelledError):
                    await work
        if not ended:
            return work.result()
        if self._response.media_type == "text/event-stream":
            with suppress(OSError):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        return None

    def _patience(self) -> float:
        left = self._who.expires_at - time.time() if self._who.expires_at else HEARTBEAT
        return max(0.0, min(HEARTBEAT, left))

    async def _valid(self) -> bool:
        """A store that is away says nothing against a key; its own expiry needs no store."""
        if self._who.expires_at and time.time() >= self._who.expires_at:
            return False
        try:
            return await sessions.still(self._context.store, self._context.registry.codec.seal, self._who)
        except Retryable:
            return True
