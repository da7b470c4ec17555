"""Manners of the control port, shared by its front ends: who asks, and errors as RFC 9457 problems."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from brandproxy.access import AccessDenied, Forbidden, Principal, authenticate
from brandproxy.context import Context
from brandproxy.errors import BadInput, BrandproxyError, Conflict, NotFound, Retryable

_STATUS: tuple[tuple[type[BrandproxyError], int], ...] = (
    (AccessDenied, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (BadInput, 400),
    (Retryable, 503),
)


async def principal(request: Request) -> Principal:
    """Who asks, by the bearer key. Raises AccessDenied (401). The app's state holds the Context."""
    context: Context = request.app.state.context
    return await authenticate(context.store, request.headers.get("authorization", ""))


def require_tenant(who: Principal, tenant: str) -> None:
    """Another tenant's things are not found rather than forbidden: their existence is not told."""
    if not who.sees(tenant):
        raise NotFound(f"no tenant {tenant!r}")


def problem(status: int, title: str, detail: str = "", action: str = "") -> Response:
    """RFC 9457 §3: application/problem+json."""
    body = {"type": "about:blank", "status": status, "title": title, "detail": detail, "action": action}
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


async def on_error(request: Request, error: Exception) -> Response:
    """Exception handler for the whole tree: each error with its status, sentence and next step."""
    if isinstance(error, HTTPException):
        return problem(error.status_code, error.detail)
    assert isinstance(error, BrandproxyError)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    return problem(status, type(error).__name__, str(error), error.action)
