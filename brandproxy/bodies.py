"""JSON that comes in over HTTP: read strictly, so that a slip of the pen is an answer and not a silence.

Invariant: what is not known is refused, not dropped: a field nobody reads, a field given twice (RFC 8259 §4 leaves
open which one counts), NaN, a number as text. `merged` is RFC 7396: what is not named stays, null gives back the
default.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request

from brandproxy.errors import BadInput

T = TypeVar("T")

MAX_BODY = 256 * 1024
_ACTION = "Send JSON as `/openapi.json` describes it."


async def read(request: Request, most: int = MAX_BODY) -> bytes:
    """The whole body. Raises BadInput when it is longer than `most` bytes."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise BadInput("the body is too long", f"Send at most {most} bytes.")
    except ClientDisconnect as error:
        raise BadInput("the request broke off in the midst of its body") from error
    return bytes(body)


def parse(kind: Any, body: bytes) -> Any:
    """A value of a type pydantic understands. Raises BadInput naming each field that is wrong and why."""
    _loads(body)
    return _valid(kind, body)


def patch(body: bytes) -> dict[str, Any]:
    """A JSON Merge Patch that is an object. Raises BadInput."""
    value = _loads(body)
    if not isinstance(value, dict):
        raise BadInput("the body is not an object", "Send the fields to change, as RFC 7396 has it.")
    return value


def merged(present: T, changes: dict[str, Any]) -> T:
    """A dataclass with a merge patch applied (RFC 7396 §2). Raises BadInput naming what is wrong."""
    kind: Any = type(present)
    adapter = _adapter(kind)
    value = _merge(adapter.dump_python(present, mode="json"), changes, adapter.dump_python(kind(), mode="json"))
    result: T = _valid(kind, json.dumps(value).encode())
    return result


def _merge(present: Any, changes: dict[str, Any], defaults: Any) -> dict[str, Any]:
    result = dict(present) if isinstance(present, dict) else {}
    for name, value in changes.items():
        default = defaults.get(name) if isinstance(defaults, dict) else None
        if value is None:
            result[name] = default  # of an unknown field None, which is refused with it
        else:
            result[name] = _merge(result.get(name), value, default) if isinstance(value, dict) else value
    return result


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError as error:
        raise BadInput("the body is nested too deeply", _ACTION) from error
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise BadInput(f"the body is not JSON: {str(error)[:200]}", _ACTION) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadInput(f"field {_shown(name)} is given twice", "Give it once.")
        found[name] = value
    return found


def _no_number(text: str) -> Any:
    raise BadInput(f"{text} is no number of JSON", _ACTION)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _valid(kind: Any, body: bytes) -> Any:
    try:
        return _adapter(kind).validate_json(body, strict=True, extra="forbid")
    except ValidationError as error:
        faults = [_sentence(kind, fault["loc"], fault["type"], fault["msg"]) for fault in error.errors()]
        raise BadInput("; ".join(faults[:10]), _ACTION) from error


def _sentence(kind: Any, place: Sequence[int | str], what: str, message: str) -> str:
    path = ".".join(_shown(step)[1:-1] if isinstance(step, str) else str(step) for step in place)
    if what in ("unexpected_keyword_argument", "extra_forbidden"):
        known = ", ".join(_known(kind, place[:-1]))
        return f"{path}: there is no such field" + (f"; known: {known}" if known else "")
    return f"{path or 'body'}: {message[:200]}"


def _known(kind: Any, place: Sequence[int | str]) -> list[str]:
    """The fields of the record at a place in a type."""
    kind = _record(kind)
    for step in place:
        if isinstance(step, str) and is_dataclass(kind):
            kind = get_type_hints(kind, include_extras=True).get(step)
        kind = _record(kind)
    return [field.name for field in fields(kind)] if is_dataclass(kind) else []


def _record(kind: Any) -> Any:
    """The dataclass in an annotation, a list or an optional; the kind itself when there is none."""
    if is_dataclass(kind):
        return kind
    inner = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
    return next((found for one in inner if is_dataclass(found := _record(one))), kind)


def _shown(text: str) -> str:
    return repr(text[:80])
