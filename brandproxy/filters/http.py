"""`POST /v1/rewrite`: a message in, the message with the tenant's links out (control port).

The body is message/rfc822. `tenant`, `campaign`, `message` and `recipient` are query parameters; the message's
own control headers say what they do not. A tenant's key rewrites for that tenant only.
The answer is message/rfc822 with the figures in `Brandproxy-Report`; who sends `Accept: multipart/mixed` gets
two parts: the full report (application/json) and the message.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from brandproxy import web
from brandproxy.access import Principal, Scope
from brandproxy.context import Context
from brandproxy.errors import BadInput, NotFound
from brandproxy.filters import control
from brandproxy.filters.lookup import Identity
from brandproxy.filters.pipeline import UNKNOWN, Arrival, Outcome, Pipeline
from brandproxy.grants import ANY, TRUSTED, Grant
from brandproxy.guard import Rule, described
from brandproxy.model import References

_PIECE = 1 << 18
_TYPE = "message/rfc822"
_QUERY = ("tenant", "campaign", "message", "recipient")


def routes(context: Context) -> list[BaseRoute]:
    pipeline = Pipeline(context)
    limit = context.settings.mail.max_message

    async def rewrite(request: Request, who: Principal) -> Response:
        if request.headers.get("content-type", _TYPE).partition(";")[0].strip().lower() != _TYPE:
            return web.problem(415, "the body is not a message", action=f"Send it as Content-Type: {_TYPE}.")
        pipeline.check_load("http")
        query = web.single(request, _QUERY)
        tenant = who.tenant or query.get("tenant", "")
        web.require_tenant(who, query.get("tenant", tenant))
        references = References(
            _reference(query, "campaign"), _reference(query, "message"), _reference(query, "recipient")
        )
        message = await _body(request, limit)
        if message is None:
            return web.problem(413, f"the message is larger than {limit} bytes")
        grant = Grant((tenant,), (ANY,)) if tenant else TRUSTED
        outcome = await pipeline.process(Arrival("http", message, identity=Identity(grant), references=references))
        if tenant and outcome.word == UNKNOWN:  # said by the caller, not by the message: a mistake to tell
            raise NotFound(f"no tenant {tenant!r}")
        full = "multipart/mixed" in request.headers.get("accept", "")
        return _multipart(outcome) if full else _single(outcome)

    # mail is shed by what is running, not by a count for each second
    return [described(PATHS, "/v1/rewrite", {"POST": rewrite}, counted=False)]


def _reference(query: Any, name: str) -> str:
    value: str = query.get(name, "")
    if value and not control.usable(value):
        raise BadInput(f"{name} cannot be a reference", "Use an opaque id of at most 128 printable characters.")
    return value


async def _body(request: Request, limit: int) -> bytes | None:
    """The whole body, or None when it is larger; what is too large is not read to its end."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        return None
    pieces, size = [], 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > limit:
                return None
            pieces.append(piece)
    except ClientDisconnect as error:
        raise BadInput("the request broke off in the midst of its message") from error
    return b"".join(pieces)


def _single(outcome: Outcome) -> Response:
    headers = {"Brandproxy-Report": json.dumps(_figures(outcome)), "Cache-Control": "no-store"}
    headers["Content-Length"] = str(len(outcome.message))
    return StreamingResponse(_pieces(outcome.message), headers=headers, media_type=_TYPE)


def _multipart(outcome: Outcome) -> Response:
    """RFC 2046 §5.1.3. The boundary is random: it does not occur in what it separates."""
    boundary = secrets.token_hex(16)
    report = outcome.report.to_dict() if outcome.report else {}
    body = json.dumps({"outcome": outcome.word, "tenant": outcome.tenant, "report": report}).encode()
    parts = b"".join((
        f"--{boundary}\r\nContent-Type: application/json\r\n\r\n".encode(), body,
        f"\r\n--{boundary}\r\nContent-Type: {_TYPE}\r\n\r\n".encode(), outcome.message,
        f"\r\n--{boundary}--\r\n".encode(),
    ))  # fmt: skip
    headers = {"Cache-Control": "no-store", "Content-Length": str(len(parts))}
    return StreamingResponse(_pieces(parts), headers=headers, media_type=f"multipart/mixed; boundary={boundary}")


def _figures(outcome: Outcome) -> dict[str, Any]:
    report = outcome.report
    figures: dict[str, Any] = {"outcome": outcome.word, "tenant": outcome.tenant[:100]}  # a message says anything
    if report is not None:
        figures |= {"rewritten": len(report.rewritten), "skipped": len(report.skipped), "reason": report.reason}
    return figures


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """A large answer goes out as fast as the client reads, without a second copy of it in the server."""
    view = memoryview(body)
    for at in range(0, len(body), _PIECE):
        yield bytes(view[at : at + _PIECE])


_TEXT = {"schema": {"type": "string"}}
_PROBLEMS = {
    "400": "a reference cannot stand in a link", "401": "no valid key", "403": "the key lacks the scope",
    "404": "no such tenant for this key",
    "413": "the message is too large", "415": "the body is not message/rfc822",
    "503": "busy, or the store is away; try again",
}  # fmt: skip

PATHS: dict[str, Any] = {
    "/v1/rewrite": {
        "post": {
            "summary": "Rewrite one message for a tenant",
            "tags": ["mail"],
            "security": Rule(Scope.REWRITE).security,
            "parameters": [
                {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": "string"}}
                for name, text in (
                    ("tenant", "whose links; default: the key's tenant, X-Brandproxy-Tenant, the sender's domain"),
                    ("campaign", "reference signed into each link"),
                    ("message", "reference signed into each link"),
                    ("recipient", "opaque reference of the one recipient"),
                )
            ],
            "requestBody": {"required": True, "content": {_TYPE: _TEXT}},
            "responses": {
                "200": {
                    "description": "the message; with Accept: multipart/mixed, the report and the message",
                    "headers": {"Brandproxy-Report": {"description": "figures as JSON", **_TEXT}},
                    "content": {_TYPE: _TEXT, "multipart/mixed": _TEXT},
                },
                **{
                    code: {
                        "description": text,
                        "content": {"application/problem+json": {"schema": {"type": "object"}}},
                    }
                    for code, text in _PROBLEMS.items()
                },
            },
        }
    }
}
