"""An operation of the HTTP API, and how a table of them becomes routes and OpenAPI 3.1 path items.

Routes and documentation come from the same table, input is validated by the type that is documented, and
answers are dumped through the type that is documented, so that none of the three can disagree.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from brandproxy import bodies, web
from brandproxy.access import Principal, Scope
from brandproxy.context import Context
from brandproxy.errors import BadInput
from brandproxy.guard import Guarded, Handler, Rule
from brandproxy.tenants import Registry

_PATCH = ("application/merge-patch+json", "application/json")


@dataclass(frozen=True, slots=True)
class Call:
    """One request after authentication: who asks, the path's parameters, the query, the validated body."""

    context: Context
    who: Principal
    path: dict[str, str]
    query: dict[str, str]
    body: Any

    @property
    def registry(self) -> Registry:
        """The registry, with this key's name in the audit trail."""
        return self.context.registry.acting(f"key {self.who.key_id}")

    def operator(self) -> None:
        """Raises Forbidden (403) when a tenant's key asks."""
        web.require_operator(self.who)


@dataclass(frozen=True, slots=True)
class Operation:
    """`takes` and `gives` are types pydantic understands; None: no body. `query`: name -> description.

    `scope` is what a key needs for it, `operator` whether it is for operators' keys alone; `guard` asks for both.

    A PATCH takes a JSON Merge Patch (RFC 7396) onto `takes`, a dataclass with a default for each field; `run` gets
    the patch and merges it with `bodies.merged`.
    """

    method: str
    path: str
    summary: str
    run: Callable[[Call], Awaitable[Any]]
    gives: Any = None
    takes: Any = None
    status: int = 200
    query: tuple[tuple[str, str], ...] = ()
    scope: Scope = field(kw_only=True)  # no default: an operation that does not say who may use it does not load
    operator: bool = field(default=False, kw_only=True)

    @property
    def rule(self) -> Rule:
        return Rule(self.scope, self.operator)


def routes(context: Context, operations: Sequence[Operation]) -> list[BaseRoute]:
    """One route a path, so that another method on it is answered 405 with Allow."""
    paths = dict.fromkeys(operation.path for operation in operations)
    return [_route(context, path, [o for o in operations if o.path == path]) for path in paths]


def _route(context: Context, path: str, operations: list[Operation]) -> Guarded:
    def handler(operation: Operation) -> Handler:
        return lambda request, who: _answer(context, operation, request, who)

    return Guarded(path, {operation.method: (operation.rule, handler(operation)) for operation in operations})


async def _answer(context: Context, operation: Operation, request: Request, who: Principal) -> Response:
    query = web.single(request, {name for name, _ in operation.query})
    if operation.method == "PATCH" and (refused := _not_a_patch(request)):
        return refused
    body = _body(operation, await bodies.read(request))
    given = await operation.run(Call(context, who, request.path_params, query, body))
    if operation.gives is None:
        return Response(status_code=204)
    content = TypeAdapter(operation.gives).dump_json(given)
    headers = {"Cache-Control": "no-store"}
    return Response(content, operation.status, headers, media_type="application/json")


def _body(operation: Operation, body: bytes) -> Any:
    if operation.takes is None:
        if body.strip() not in (b"", b"{}", b"null"):
            raise BadInput("this takes no body", "Leave it out; `/openapi.json` describes what each path takes.")
        return None
    return bodies.patch(body) if operation.method == "PATCH" else bodies.parse(operation.takes, body)


def _not_a_patch(request: Request) -> Response | None:
    """RFC 5789 §2.2: another patch format is refused with the ones we take; so is none by name."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media in _PATCH or not media.endswith("+json"):
        return None
    refused = web.problem(415, f"{media[:80]} is no format of ours", "", f"Send {_PATCH[0]} (RFC 7396).")
    refused.headers["Accept-Patch"] = ", ".join(_PATCH)
    return refused


def path_items(operations: Sequence[Operation], tag: str) -> dict[str, Any]:
    """OpenAPI 3.1 path items (https://spec.openapis.org/oas/v3.1.0#path-item-object), schemas in place."""
    items: dict[str, Any] = {}
    for operation in operations:
        items.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, tag)
    return items


def _describe(operation: Operation, tag: str) -> dict[str, Any]:
    in_path = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in in_path]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in operation.query
    ]
    described: dict[str, Any] = {
        "summary": operation.summary,
        "tags": [tag],
        "security": operation.rule.security,
        "parameters": parameters,
        "responses": {str(operation.status if operation.gives is not None else 204): _success(operation)},
    }
    described["responses"] |= {str(code): _problem(title) for code, title in _failures(operation)}
    if operation.takes is not None:
        described["requestBody"] = {"required": True, "content": _taken(operation)}
    return described


def _success(operation: Operation) -> dict[str, Any]:
    if operation.gives is None:
        return {"description": "done"}
    return {"description": "done", "content": _json(operation.gives, "serialization")}


def _failures(operation: Operation) -> list[tuple[int, str]]:
    found = [(400, "the input is not valid"), (401, "no valid key"), (403, "this key may not do that")]
    found += [(404, "not found"), (503, "the store is away; try again")]
    return [*found, (409, "conflict with what is there")] if operation.method != "GET" else found


def _problem(title: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["status", "title"],
        "properties": {
            "type": {"type": "string"},
            "status": {"type": "integer"},
            "title": {"type": "string"},
            "detail": {"type": "string"},
            "action": {"type": "string"},
        },
    }
    return {"description": title, "content": {"application/problem+json": {"schema": schema}}}


def _taken(operation: Operation) -> dict[str, Any]:
    content = _json(operation.takes, "validation")
    schema = _closed(content["application/json"]["schema"])
    if operation.method == "PATCH":
        return {media: {"schema": _patching(schema)} for media in _PATCH}
    return {"application/json": {"schema": schema}}


def _closed(schema: Any) -> Any:
    """The schema as it is held: fields that are not named are refused."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return {key: _closed(value) for key, value in schema.items()} | closed


def _patching(schema: dict[str, Any]) -> dict[str, Any]:
    """The merge patches of an object: every field may be left out or null."""
    if schema.get("type") != "object":
        return {name: value for name, value in schema.items() if name != "default"}
    fields = {name: {"anyOf": [_patching(one), {"type": "null"}]} for name, one in schema["properties"].items()}
    return {"type": "object", "properties": fields, "additionalProperties": False}


def _json(kind: Any, mode: Any) -> dict[str, Any]:
    schema = TypeAdapter(kind).json_schema(mode=mode)
    return {"application/json": {"schema": _inline(schema, schema.pop("$defs", {}))}}


def _inline(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its definitions put in place: path items are then complete by themselves."""
    if isinstance(schema, list):
        return [_inline(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inline(value, definitions) for key, value in schema.items()}
