"""Which events a question is about.

Invariant: every question over HTTP gets its filter from `of_request`, and that filter's tenant is decided here
by the key alone: a tenant's key sees its own tenant whatever it asks for. There is no other gate to forget.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request

from brandproxy.access import Principal
from brandproxy.engines import Engine
from brandproxy.errors import BadInput
from brandproxy.web import require_tenant, single

DEFAULT_DAYS = 30
KINDS = ("click", "open", "unsubscribe")
MACHINES = {"exclude": "person", "only": "NOT person", "include": "TRUE"}
_TEXT = ("tenant", "campaign", "message", "recipient", "host")
_TIME = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d))?")


@dataclass(frozen=True, slots=True)
class Filter:
    """`since_us` ≤ time < `until_us`, microseconds. An empty text or None: not asked for."""

    since_us: int
    until_us: int
    tenant: str = ""
    campaign: str = ""
    message: str = ""
    recipient: str = ""
    host: str = ""
    link: int | None = None
    kind: str = ""
    machines: str = "include"

    def where(self) -> tuple[str, dict[str, Any]]:
        """The condition and its parameters, but for `machines`: answers show people beside machines."""
        conditions, params = (
            ["at_us >= $since", "at_us < $until"],
            {"since": self.since_us, "until": self.until_us},
        )
        for name in (*_TEXT, "kind", "link"):
            value = getattr(self, name)
            if value != "" and value is not None:
                conditions.append(f"{name} = ${name}")
                params[name] = value
        return " AND ".join(conditions), params

    @property
    def shown(self) -> str:
        """The condition of `machines`."""
        return MACHINES[self.machines]


def of_request(
    request: Request, who: Principal, also: Sequence[str] = (), lenient: bool = False, **fixed: str
) -> Filter:
    """The filter that a request asks for and its key allows.

    `also` names the further parameters of the operation, `fixed` comes from its path. Raises BadInput for
    values and parameters that mean nothing, NotFound for another tenant. `lenient` is for pages: forms send
    empty fields, and mailed addresses of pages grow parameters on their way.
    """
    if lenient:
        given = {name: value for name, value in request.query_params.items() if value and name in _NAMES}
        asked = {"machines": "exclude"} | given  # a page is about people, and says how many machines it left out
    else:
        asked = single(request, {*_NAMES, *also} - set(fixed)) | fixed
    tenant = asked.get("tenant", "")
    if tenant:
        require_tenant(who, tenant)
    return replace(_parse(asked, datetime.now(UTC)), tenant=who.tenant or tenant)


def tenant_of(request: Request, who: Principal) -> str:
    """The one tenant a change is about: the key's own, or the one an operator names. Raises BadInput, NotFound."""
    return named_tenant(single(request, {"tenant"}).get("tenant", ""), who)


def named_tenant(tenant: str, who: Principal) -> str:
    """The same for a tenant named in a body; empty: not named."""
    tenant = tenant or who.tenant or ""
    require_tenant(who, tenant)
    return _text("tenant", tenant)


def _parse(asked: Mapping[str, str], now: datetime) -> Filter:
    until = moment(asked["until"]) if "until" in asked else now + timedelta(minutes=5)  # clocks differ
    since = moment(asked["since"]) if "since" in asked else _earlier(until, DEFAULT_DAYS)
    kind, machines = asked.get("kind", ""), asked.get("machines", "include")
    if "kind" in asked and kind not in KINDS:
        raise BadInput(f"kind {kind[:40]!r} is none of {', '.join(KINDS)}")
    if machines not in MACHINES:
        raise BadInput(f"machines {machines[:40]!r} is none of {', '.join(MACHINES)}")
    text = {name: _text(name, asked[name]) for name in _TEXT if name in asked}
    link = number("link", asked["link"], 0, 2**31 - 1) if "link" in asked else None
    return Filter(micros(since), micros(until), link=link, kind=kind, machines=machines, **text)


def _text(name: str, value: str) -> str:
    if not value or "\0" in value or len(value) > 512:
        raise BadInput(f"{name} is not a reference", "Give 1–512 characters, or leave the parameter out.")
    return value


def number(name: str, text: str, least: int, most: int) -> int:
    """An integer parameter. Raises BadInput."""
    if not re.fullmatch(r"-?[0-9]{1,12}", text) or not least <= int(text) <= most:
        raise BadInput(f"{name} {text[:40]!r} is not a number from {least} to {most}")
    return int(text)


def moment(text: str) -> datetime:
    """A date (its first moment, UTC) or RFC 3339 date-time. Raises BadInput."""
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        found = datetime.fromisoformat(text.replace(" ", "T").upper())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{text[:40]!r} is no time", "Write 2026-11-23 or 2026-11-23T17:00:00Z.") from error


def micros(when: datetime) -> int:
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _earlier(when: datetime, days: int) -> datetime:
    return when - timedelta(days=days) if when.year > 1 else when


async def total(engine: Engine, f: Filter) -> int:
    where, params = f.where()
    [(count,)] = await engine.query(f"SELECT count(*) FROM events WHERE {where} AND {f.shown}", params)  # noqa: S608
    return int(count)


def parameter(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": dict(schema)}


REFERENCE = {"type": "string", "minLength": 1, "maxLength": 512, "pattern": r"^[^\u0000]+$"}
_MOMENT = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]}

PARAMETERS = (
    parameter("tenant", "one tenant; a tenant's key always sees its own only", REFERENCE),
    parameter("campaign", "campaign reference", REFERENCE),
    parameter("message", "message reference", REFERENCE),
    parameter("recipient", "recipient reference", REFERENCE),
    parameter("host", "host name of the link", REFERENCE),
    parameter("link", "position of the link in its mail", {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}),
    parameter("kind", "only events of this kind", {"type": "string", "enum": list(KINDS)}),
    parameter("since", f"first moment; {DEFAULT_DAYS} days before `until` when left out", _MOMENT),
    parameter("until", "first moment no longer asked for; now when left out", _MOMENT),
    parameter(
        "machines",
        "events that scanners, prefetchers and crawlers made",
        {"type": "string", "enum": list(MACHINES), "default": "include"},
    ),
)
_NAMES = frozenset(p["name"] for p in PARAMETERS)
