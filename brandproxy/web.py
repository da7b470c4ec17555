"""Manners of the control port, shared by its front ends: how often a key may ask, errors as RFC 9457 problems,
and the OpenAPI document. Who may ask is `guard`'s.

The composition root puts on the app's state: `context`; `control_key`, the key of commands on this machine
(`brandproxy.control`), if there is one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from brandproxy import __version__
from brandproxy.access import AccessDenied, Forbidden, MissingScope, Principal, Scope
from brandproxy.errors import BadInput, BrandproxyError, Conflict, NotFound, Retryable


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


_REMEMBERED = 10_000  # buckets kept at once


class Budget:
    """Requests per key: a token bucket each, `rate` a second on average and `burst` at once."""

    def __init__(self, rate: float = 50, burst: int = 200) -> None:
        self._rate, self._burst = rate, burst
        self._left: dict[str, tuple[float, float]] = {}

    def spend(self, key: str, now: float) -> None:
        """Raises TooManyRequests. `now` in seconds, any epoch."""
        left, since = self._left.pop(key, (float(self._burst), now))
        left = min(float(self._burst), left + (now - since) * self._rate)
        self._left[key] = (max(left - 1, 0.0) if left >= 1 else left, now)
        if len(self._left) > _REMEMBERED:  # who has waited longest has the fullest bucket
            del self._left[next(iter(self._left))]
        if left < 1:
            raise TooManyRequests(f"key {key} has asked more than {self._rate:g} times a second")


BUDGET = Budget()


def require_tenant(who: Principal, tenant: str) -> None:
    """Another tenant's things are not found rather than forbidden: their existence is not told."""
    if not who.sees(tenant):
        raise NotFound(f"no tenant {tenant!r}")


def require_operator(who: Principal) -> None:
    """Raises Forbidden for a tenant's key."""
    if who.tenant is not None:
        raise Forbidden("this is for the operator's keys only")


def single(request: Request, names: Collection[str]) -> dict[str, str]:
    """The query parameters, each known and given once. Raises BadInput."""
    asked: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in names:
            known = f"Known: {', '.join(sorted(names))}." if names else "There are none."
            raise BadInput(f"no parameter {name[:40]!r} here", known)
        if name in asked:
            raise BadInput(f"parameter {name} is given twice", "Give it once.")
        asked[name] = value
    return asked


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
    response = problem(status_of(error), type(error).__name__, str(error), error.action)
    if isinstance(error, MissingScope):  # RFC 6750 §3.1
        response.headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope}"'
    return response


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
    403: "The key lacks the scope, or is not an operator's",
    404: "Not there, or not yours",
    405: "No such method here",
    409: "It exists, or it has changed",
    429: "Too many requests with this key",
    503: "Something behind the API is away or busy; try again",
}


_KEY = (
    "An API key, made by `brandproxy key create` or `POST /v1/keys`. Each operation names the scope it needs, and"
    f" `operator` when it is for operators' keys only. Scopes: {', '.join(Scope)}; admin includes onboard."
)


def openapi(*paths: Paths) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the given path items."""
    described = deepcopy({path: item for group in paths for path, item in group.items()})
    for item in described.values():
        for operation in item.values():
            operation["responses"] = problems(401, 403, 429) | operation["responses"]  # every one asks for a key
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
