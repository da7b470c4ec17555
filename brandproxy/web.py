"""Manners of the control port, shared by its front ends: who asks, how often, errors as RFC 9457 problems, and
the OpenAPI document.

The composition root puts on the app's state: `context`; `control_key`, the key of commands on this machine
(`brandproxy.control`), if there is one.

`principal` decides who asks, in this order:
1. the bearer key of the Authorization header
2. the session cookie of the dashboard (`sign_in`), with a request from our own pages only when it changes things
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Mapping
from copy import deepcopy
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from brandproxy import __version__
from brandproxy.access import AccessDenied, Forbidden, Principal, authenticate
from brandproxy.context import Context
from brandproxy.errors import BadInput, BrandproxyError, Conflict, NotFound, Retryable

SESSION = "brandproxy_session"
SESSION_SECONDS = 12 * 3600


class TooManyRequests(Retryable):
    action = "Wait for the seconds of Retry-After; ask for more at once rather than more often."


_STATUS: tuple[tuple[type[BrandproxyError], int], ...] = (
    (AccessDenied, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (BadInput, 400),
    (TooManyRequests, 429),
    (Retryable, 503),
)


class Budget:
    """Requests per key: a token bucket each, `rate` a second on average and `burst` at once."""

    def __init__(self, rate: float = 50, burst: int = 200) -> None:
        self._rate, self._burst = rate, burst
        self._left: dict[str, tuple[float, float]] = {}

    def spend(self, key: str, now: float) -> None:
        """Raises TooManyRequests. `now` in seconds, any epoch."""
        left, since = self._left.get(key, (float(self._burst), now))
        left = min(float(self._burst), left + (now - since) * self._rate)
        if left < 1:
            raise TooManyRequests(f"key {key} has asked more than {self._rate:g} times a second")
        if len(self._left) > 10_000:  # full buckets carry no memory worth keeping
            self._left.clear()
        self._left[key] = (left - 1, now)


_BUDGET = Budget()


async def principal(request: Request) -> Principal:
    """Who asks. Raises AccessDenied (401) or TooManyRequests (429)."""
    who = await identify(request)
    budget: Budget = getattr(request.app.state, "budget", _BUDGET)
    budget.spend(who.key_id, time.monotonic())
    return who


async def identify(request: Request) -> Principal:
    """`principal` without the budget, for what comes as often as mail does."""
    context: Context = request.app.state.context
    header = request.headers.get("authorization", "")
    control_key: str = getattr(request.app.state, "control_key", "")
    if control_key and hmac.compare_digest(header.encode("utf-8", "replace"), f"Bearer {control_key}".encode()):
        return Principal("control", None)
    cookie = request.cookies.get(SESSION, "")
    if not header and cookie:
        if request.method not in ("GET", "HEAD") and not _from_own_page(request):
            raise AccessDenied("the request does not come from a page of this server")
        header = f"Bearer {_opened(context, cookie)}"
    return await authenticate(context.store, header)


def _from_own_page(request: Request) -> bool:
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == request.headers.get("host", "")


def _opened(context: Context, cookie: str) -> str:
    """The API key sealed in a session cookie. Raises AccessDenied when it is none of ours or is over."""
    try:
        session = json.loads(context.registry.codec.seal.open(cookie.encode("ascii")))
        if session["until"] > time.time():
            return str(session["key"])
    except (BrandproxyError, ValueError, KeyError, TypeError):
        pass
    raise AccessDenied("the session is over", "Sign in again.")


def sign_in(context: Context, response: Response, key: str, secure: bool) -> None:
    """Put `key`, which the caller has authenticated, into the session cookie: sealed, and gone by itself."""
    session = json.dumps({"key": key, "until": int(time.time()) + SESSION_SECONDS}).encode()
    cookie = context.registry.codec.seal.seal(session).decode("ascii")
    response.set_cookie(SESSION, cookie, SESSION_SECONDS, secure=secure, httponly=True, samesite="strict")


def require_tenant(who: Principal, tenant: str) -> None:
    """Another tenant's things are not found rather than forbidden: their existence is not told."""
    if not who.sees(tenant):
        raise NotFound(f"no tenant {tenant!r}")


def require_operator(who: Principal) -> None:
    """Raises Forbidden for a tenant's key."""
    if who.tenant is not None:
        raise Forbidden("this is for the operator's keys only")


def problem(status: int, title: str, detail: str = "", action: str = "") -> Response:
    """RFC 9457 §3: application/problem+json."""
    body = {"type": "about:blank", "status": status, "title": title, "detail": detail, "action": action}
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "2"}}
    return JSONResponse(body, status, headers.get(status), media_type="application/problem+json")


async def on_error(request: Request, error: Exception) -> Response:
    """Exception handler for the whole tree: each error with its status, sentence and next step."""
    if isinstance(error, HTTPException):
        response = problem(error.status_code, error.detail)
        response.headers.update(error.headers or {})
        return response
    assert isinstance(error, BrandproxyError)
    return problem(status_of(error), type(error).__name__, str(error), error.action)


def status_of(error: BrandproxyError) -> int:
    return next((code for kind, code in _STATUS if isinstance(error, kind)), 500)


Paths = Mapping[str, Mapping[str, Any]]

PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "properties": {
        "type": {"type": "string"},
        "status": {"type": "integer"},
        "title": {"type": "string"},
        "detail": {"type": "string"},
        "action": {"type": "string", "description": "what to do next"},
    },
    "required": ["type", "status", "title"],
}


def problems(*statuses: int) -> dict[str, Any]:
    """The `responses` entries of an operation that may answer these problems."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {str(status): {"description": _MEANING[status], "content": content} for status in statuses}


_MEANING = {
    400: "A value in the request breaks its rules",
    401: "No valid key",
    403: "Only with an operator's key",
    404: "Not there, or not yours",
    405: "No such method here",
    409: "It exists, or it has changed",
    429: "Too many requests with this key",
    503: "Something behind the API is away or busy; try again",
}


_KEY = "An API key, made by `brandproxy key create` or `POST /v1/keys`"


def openapi(*paths: Paths) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the given path items."""
    described = deepcopy({path: item for group in paths for path, item in group.items()})
    for item in described.values():
        for operation in item.values():
            operation["responses"] = problems(401, 429) | operation["responses"]  # every one asks for a key
    return {
        "openapi": "3.1.0",
        "info": {"title": "brandproxy", "version": __version__, "license": {"name": "Apache-2.0"}},
        "security": [{"bearer": []}],
        "paths": described,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _KEY}},
            "schemas": {"Problem": PROBLEM},
        },
    }


def openapi_route(*paths: Paths) -> Route:
    """`GET /openapi.json`, open to everybody: it tells nothing about tenants."""
    document = openapi(*paths)

    async def endpoint(request: Request) -> Response:
        return JSONResponse(document)

    return Route("/openapi.json", endpoint)
