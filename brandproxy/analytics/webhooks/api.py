"""`/v1/webhooks`: a tenant's key manages its own webhooks, an operator's all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from brandproxy import bodies, limits
from brandproxy.access import Principal, Scope
from brandproxy.analytics.queries import iso
from brandproxy.context import Context
from brandproxy.core.differences import difference
from brandproxy.errors import NotFound
from brandproxy.guard import Rule, described
from brandproxy.web import problems, require_tenant, single
from brandproxy.webhooks.book import EVENTS, GROUPS, KINDS, Batch, Book, Webhook

_MAX_BODY = 16384

_ALL = (*KINDS, *GROUPS)
_KIND = Annotated[str, Field(pattern=f"^({'|'.join(_ALL)})$".replace(".", "[.]"))]


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """`tenant` empty: the key's own, or with an operator's key all tenants. `kinds` may name a group: host,
    certificate."""

    url: Annotated[str, Field(min_length=8, max_length=2048)]
    kinds: Annotated[tuple[_KIND, ...], Field(min_length=1, max_length=len(_ALL))] = EVENTS
    machines: bool = False
    tenant: str = ""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)


_NEW = TypeAdapter(NewWebhook)

Work = Callable[[Context, Request, Principal], Awaitable[Response]]


def routes(context: Context) -> list[BaseRoute]:
    works: dict[str, dict[str, Work]] = {
        "": {"GET": _list, "POST": _add},
        "/{id}": {"DELETE": _remove},
        "/{id}/dead": {"GET": _dead},
        "/{id}/replay": {"POST": _replay},
    }
    return [
        described(
            PATHS, f"/v1/webhooks{path}", {m: partial(_answer, context, work) for m, work in methods.items()}
        )
        for path, methods in works.items()
    ]


async def _answer(context: Context, work: Work, request: Request, who: Principal) -> Response:
    single(request, ())
    response = await work(context, request, who)
    response.headers["Cache-Control"] = "no-store"
    return response


async def _list(context: Context, request: Request, who: Principal) -> Response:
    return JSONResponse({"webhooks": [shown(hook) for hook in await Book(context).all() if who.sees(hook.tenant)]})


async def _add(context: Context, request: Request, who: Principal) -> Response:
    new: NewWebhook = bodies.parse(NewWebhook, await bodies.read(request, _MAX_BODY))
    if set(new.kinds) & set(EVENTS):
        who.require(Scope.ANALYTICS_READ)  # it sends them to whoever the URL names
    tenant = new.tenant or who.tenant or ""
    require_tenant(who, tenant)
    if tenant:
        await context.registry.tenant(tenant)
    book = Book(context)

    async def count() -> int:
        return sum(hook.tenant == who.tenant for hook in await book.all())

    async with limits.room(context.settings, who, "webhooks", count):
        hook, secret = await book.add(tenant, new.url, new.kinds, new.machines)
    await _audit(context, who, "webhook.add", hook, **difference(None, hook))
    return JSONResponse(shown(hook) | {"secret": secret}, 201)


async def _own(context: Context, request: Request, who: Principal) -> Webhook:
    hook = await Book(context).get(request.path_params["id"])
    if not who.sees(hook.tenant):
        raise NotFound(f"no webhook {hook.id!r}")
    return hook


async def _remove(context: Context, request: Request, who: Principal) -> Response:
    hook = await _own(context, request, who)
    await Book(context).remove(hook.id)
    await _audit(context, who, "webhook.remove", hook, **difference(hook, None))
    return Response(status_code=204)


async def _dead(context: Context, request: Request, who: Principal) -> Response:
    hook = await _own(context, request, who)
    return JSONResponse({"batches": [buried(batch) for batch in await Book(context).dead(hook.id)]})


async def _replay(context: Context, request: Request, who: Principal) -> Response:
    hook = await _own(context, request, who)
    count = await Book(context).replay(hook.id)
    await _audit(context, who, "webhook.replay", hook, batches=count)
    return JSONResponse({"batches": count})


async def _audit(context: Context, who: Principal, what: str, hook: Webhook, **more: Any) -> None:
    await context.registry.acting(f"key {who.key_id}").audit(what, hook.id, tenant=hook.tenant, **more)


def shown(hook: Webhook) -> dict[str, Any]:
    """A webhook without its secret."""
    return {
        "id": hook.id, "tenant": hook.tenant or None, "url": hook.url, "kinds": list(hook.kinds),
        "machines": hook.machines, "created_at": hook.created_at, "disabled": hook.disabled or None,
    }  # fmt: skip


def buried(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id, "lane": batch.lane, "from": iso(batch.after[0]), "until": iso(batch.upto[0]),
        "error": batch.error, "waiting": bool(batch.next_at),
    }  # fmt: skip


_TEXT, _MAYBE = {"type": "string"}, {"type": ["string", "null"]}
_HOOK = {
    "id": _TEXT, "tenant": _MAYBE, "url": _TEXT, "kinds": {"type": "array", "items": _TEXT},
    "machines": {"type": "boolean"}, "created_at": {"type": "integer"}, "disabled": _MAYBE,
}  # fmt: skip
_BATCH = {
    "id": _TEXT,
    "lane": _TEXT,
    "from": _TEXT,
    "until": _TEXT,
    "error": _TEXT,
    "waiting": {"type": "boolean"},
}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_ADMIN = Rule(Scope.ADMIN).security


def _described(name: str, summary: str, status: str, schema: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    content = {"content": {"application/json": {"schema": schema}}} if schema else {}
    responses = {status: {"description": "Done", **content}, **problems(400, 401, 403, 404, 429, 503)}
    return {
        "operationId": name,
        "tags": ["webhooks"],
        "summary": summary,
        "security": _ADMIN,
        "responses": responses,
        **more,
    }


def _many(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    return _object({name: {"type": "array", "items": _object(properties)}})


_ID = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-z]+$"}}]
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": _NEW.json_schema()}}}}

PATHS: dict[str, dict[str, Any]] = {
    "/v1/webhooks": {
        "get": _described("webhooks", "The webhooks", "200", _many("webhooks", _HOOK)),
        "post": _described(
            "add_webhook", "Send events on, signed; the secret is shown once", "201",
            _object(_HOOK | {"secret": _TEXT}), **_BODY,
        ),
    },
    "/v1/webhooks/{id}": {
        "delete": _described("remove_webhook", "Send nothing more", "204", None, parameters=_ID),
    },
    "/v1/webhooks/{id}/dead": {
        "get": _described("dead_batches", "Batches given up", "200", _many("batches", _BATCH), parameters=_ID),
    },
    "/v1/webhooks/{id}/replay": {
        "post": _described(
            "replay", "Send the batches given up once more", "200", _object({"batches": {"type": "integer"}}),
            parameters=_ID,
        ),
    },
}  # fmt: skip
