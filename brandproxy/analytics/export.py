"""The event feed: pages in a stable order with cursors, as JSON, NDJSON or CSV.

A cursor is the place behind one event in the order (time, id). New events do not move what a cursor points at.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

from brandproxy.analytics.filters import Filter
from brandproxy.analytics.queries import iso
from brandproxy.engines import Engine
from brandproxy.errors import BadInput

# ruff: noqa: S608 (only constants and bound parameters become SQL)

PAGE = 100
MAX_PAGE = 1000
FIELDS = (
    "id", "kind", "at_us", "tenant", "host", "campaign", "message", "recipient", "link", "url", "sent_at",
    "address", "agent", "method", "machine", "device", "client", "country",
)  # fmt: skip
_CURSOR = re.compile(r"(\d{1,16})\.([0-9a-f]{1,64})")


def cursor_of(event: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(f"{event['at_us']}.{event['id']}".encode()).decode().rstrip("=")


def place(cursor: str) -> tuple[int, str]:
    """(microseconds, id) of a cursor. Raises BadInput."""
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        text = ""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise BadInput("the cursor is none of ours", "Send back `next` of the page before, unchanged.")
    return int(match[1]), match[2]


async def page(
    engine: Engine, f: Filter, limit: int, after: str = "", newest_first: bool = True
) -> tuple[list[dict[str, Any]], str]:
    """One page of events and the cursor of the next one ("": this was the last)."""
    where, params = f.where()
    order, sign = ("DESC", "<") if newest_first else ("ASC", ">")
    if after:
        params["at"], params["id"] = place(after)
        where += f" AND (at_us {sign} $at OR (at_us = $at AND id {sign} $id))"
    rows = await engine.query(
        f"SELECT {', '.join(FIELDS)} FROM events WHERE {where} AND {f.shown}"
        f" ORDER BY at_us {order}, id {order} LIMIT {int(limit) + 1}",
        params,
    )
    events = [event(row) for row in rows[:limit]]
    return events, cursor_of(events[-1]) if len(rows) > limit else ""


def event(row: Iterable[Any]) -> dict[str, Any]:
    """A row of FIELDS as it goes out."""
    found = dict(zip(FIELDS, row, strict=True))
    found["machine"] = list(found["machine"])
    return {"id": found.pop("id"), "kind": found.pop("kind"), "at": iso(found["at_us"]), **found}


async def ndjson(engine: Engine, f: Filter, after: str, limit: int) -> AsyncIterator[bytes]:
    """Up to `limit` events, one JSON object a line, read page by page."""
    async for events in _pages(engine, f, after, limit):
        lines = (json.dumps(e, ensure_ascii=False, separators=(",", ":")) + "\n" for e in events)
        yield "".join(lines).encode("utf-8", "replace")


async def as_csv(engine: Engine, f: Filter, after: str, limit: int) -> AsyncIterator[bytes]:
    """RFC 4180 with a header line; machine reasons are joined with `;`."""
    columns = ["id", "kind", "at", *FIELDS[2:]]
    yield (",".join(columns) + "\r\n").encode()
    async for events in _pages(engine, f, after, limit):
        text = io.StringIO()
        writer = csv.writer(text)
        for e in events:
            writer.writerow([_cell(e[name]) for name in columns])
        yield text.getvalue().encode("utf-8", "replace")


def _cell(value: object) -> object:
    """Spreadsheets run cells that begin like formulas; a leading quote keeps hostile URLs and agents text."""
    if isinstance(value, list):
        value = ";".join(value)
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


async def _pages(engine: Engine, f: Filter, after: str, limit: int) -> AsyncIterator[list[dict[str, Any]]]:
    while limit > 0:
        events, after = await page(engine, f, min(limit, MAX_PAGE), after)
        yield events
        limit -= len(events)
        if not after:
            return
