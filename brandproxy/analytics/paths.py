"""The OpenAPI path items of `api`. Parameters every operation shares are in `filters`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from brandproxy.access import Scope
from brandproxy.analytics.filters import PARAMETERS, REFERENCE, parameter
from brandproxy.analytics.periods import UNITS
from brandproxy.analytics.queries import DELAYS, NAMES, TOP
from brandproxy.guard import Rule
from brandproxy.web import problems

_INT = {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "format": "date-time"}
_TEXT = {"type": "string"}
_COUNTS = {name: _INT for kind in NAMES.values() for name in (kind, f"unique_{kind}")} | {"machines": _INT}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_PERIOD = {"since": _TIME, "until": _TIME}
_SUMMARY = _object(
    _PERIOD
    | _COUNTS
    | {
        "click_to_open": {"type": ["number", "null"], "description": "unique clicks per unique open"},
        "delay": _object({name: {"type": ["number", "null"]} for name in DELAYS})
        | {"description": "seconds from sending to click"},
    }
)
_POINT = {"type": "object", "properties": {"at": _TIME} | _COUNTS, "required": ["at", *NAMES.values(), "machines"]}
_SERIES = _object({"unit": _TEXT, "zone": _TEXT, **_PERIOD, "points": _array(_POINT)})
_ITEM = {
    "type": "object",
    "properties": {
        "key": _TEXT, "label": _TEXT, "events": _INT, "unique": _INT, "share": {"type": "number"},
        "campaign": _TEXT, "link": _INT,
    },
    "required": ["key", "label", "events", "unique", "share"],
}  # fmt: skip
_TOP = _object({"by": _TEXT, **_PERIOD, "total": _INT, "items": _array(_ITEM)})
EVENT = _object(
    {
        "id": _TEXT, "kind": _TEXT, "at": _TIME, "at_us": _INT, "tenant": _TEXT, "host": _TEXT, "campaign": _TEXT,
        "message": _TEXT, "recipient": _TEXT, "link": _INT, "url": _TEXT, "sent_at": _INT, "address": _TEXT,
        "agent": _TEXT, "method": _TEXT, "machine": _array(_TEXT), "device": _TEXT, "client": _TEXT,
        "country": _TEXT,
    }
)  # fmt: skip
_NEXT = {"type": ["string", "null"], "description": "cursor of the next page; null: this was the last"}
_PAGE = _object({"events": _array(EVENT), "next": _NEXT})

_LIMIT = parameter("limit", "most events to return", {"type": "integer", "minimum": 1, "maximum": 1000})
_CURSOR = parameter("cursor", "`next` of the page before", {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"})


_SHARED = frozenset(p["name"] for p in PARAMETERS)


_READ = Rule(Scope.ANALYTICS_READ)


def _get(
    name: str,
    summary: str,
    schema: dict[str, Any],
    *more: dict[str, Any],
    shared: Collection[str] = _SHARED,
    media: Any = None,
    method: str = "get",
    rule: Rule = _READ,
    takes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": takes}}}} if takes else {}
    parameters = [p for p in PARAMETERS if p["name"] in shared]
    content = media or {"application/json": {"schema": schema}}
    return {
        method: {
            "operationId": name,
            "tags": ["analytics"],
            "security": rule.security,
            "summary": summary,
            "parameters": [*parameters, *more],
            **body,
            "responses": {
                "200": {"description": "The answer", "content": content},
                "304": {"description": "As it was when the ETag was given"},
                **problems(400, 401, 403, 404, 409, 429, 503),
            },
        }
    }


def _timeline(what: str) -> dict[str, Any]:
    schema = _object({what: _TEXT, "events": _array(EVENT), "next": _NEXT})
    path = _in_path(what)
    summary = f"Everything that happened to one {what}, oldest first"
    found = _get(f"{what}_timeline", summary, schema, path, _LIMIT, _CURSOR, shared=_SHARED - {what})
    return {"get": found["get"] | {"deprecated": True, "description": _IN_QUERY}}


_IN_QUERY = "A path cannot carry every reference (`a/b`, `..`): `/v1/analytics/timeline` and `/forget` take any."


def _in_path(what: str) -> dict[str, Any]:
    return {
        "name": what, "in": "path", "required": True, "description": f"{what} reference",
        "schema": {"type": "string", "minLength": 1, "maxLength": 512, "pattern": r"^[^\u0000/]+$"},
    }  # fmt: skip


_FORMAT = parameter("format", "how to write them", {"type": "string", "enum": ["json", "ndjson", "csv"]})
_EVENTS_LIMIT = parameter(
    "limit",
    "most events to return; a page in json holds at most 1,000, whatever is asked",
    {"type": "integer", "minimum": 1, "maximum": 1_000_000},
)
_EVENTS_MEDIA = {
    "application/json": {"schema": _PAGE},
    "application/x-ndjson": {"schema": _TEXT},
    "text/csv": {"schema": _TEXT},
}

_FORGET = _object({"recipient": REFERENCE, "tenant": REFERENCE | {"description": "an operator names it"}}) | {
    "required": ["recipient"]
}

PATHS: dict[str, dict[str, Any]] = {
    "/v1/analytics/summary": _get("summary", "Totals, uniques, click-to-open, delays", _SUMMARY),
    "/v1/analytics/timeseries": _get(
        "timeseries",
        "Counts per calendar bucket",
        _SERIES,
        parameter("unit", "size of a bucket", {"type": "string", "enum": list(UNITS), "default": "day"}),
        parameter("zone", "IANA time zone the buckets follow", {"type": "string", "default": "UTC"}),
        parameter("uniques", "false: totals only, which is faster", {"type": "boolean", "default": True}),
    ),
    "/v1/analytics/top": _get(
        "top",
        "The groups with most events: clicks, unless `kind` names others",
        _TOP,
        parameter("by", "what to group by", {"type": "string", "enum": list(TOP), "default": "link"}),
        parameter("limit", "most groups", {"type": "integer", "minimum": 1, "maximum": 500, "default": 20}),
    ),
    "/v1/analytics/events": _get(
        "events", "The events, newest first", _PAGE, _EVENTS_LIMIT, _CURSOR, _FORMAT, media=_EVENTS_MEDIA
    ),
    "/v1/analytics/timeline": _get(
        "timeline", "Everything that happened to one message or recipient, oldest first", _PAGE, _LIMIT, _CURSOR
    ),
    "/v1/analytics/forget": _get(
        "forget",
        "Delete every event of a recipient, of all time, at once",
        _object({"deleted": _INT}),
        shared=(),
        method="post",
        rule=Rule(Scope.ADMIN),
        takes=_FORGET,
    ),
    "/v1/analytics/messages/{message}": _timeline("message"),
    "/v1/analytics/recipients/{recipient}": _timeline("recipient")
    | _get(
        "forget_recipient",
        "Delete every event of a recipient, of all time",
        _object({"deleted": _INT}),
        _in_path("recipient"),
        shared=("tenant",),
        method="delete",
        rule=Rule(Scope.ADMIN),
    ),
    "/v1/analytics/reclassify": _get(
        "reclassify",
        "Judge events again with the present machine rules (operator)",
        _object({"seen": _INT, "changed": _INT}),
        method="post",
        rule=Rule(Scope.ADMIN, operator=True),
    ),
    "/v1/analytics/backups": _get(
        "backup",
        "Copy all events into a new folder in the server's data directory (operator)",
        _object({"folder": _TEXT}),
        shared=(),
        method="post",
        rule=Rule(Scope.ADMIN, operator=True),
    ),
    "/v1/analytics/live": _get(
        "live",
        "New events as they arrive (server-sent events)",
        {},
        media={"text/event-stream": {}},
    ),
}
