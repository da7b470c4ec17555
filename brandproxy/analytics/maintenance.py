"""Changes to events over HTTP: forgetting a recipient, judging again, backups. Each is audited.

The embedded engine belongs to the control process, so commands ask it for these too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from brandproxy import bodies
from brandproxy.access import Principal
from brandproxy.analytics import export, upkeep
from brandproxy.analytics.filters import Filter, named_tenant, of_request, tenant_of
from brandproxy.context import Context
from brandproxy.core.neighbours import Neighbours
from brandproxy.engines import Engine
from brandproxy.guard import Handler
from brandproxy.model import Event
from brandproxy.values import Text
from brandproxy.web import single

_EVENT = tuple(Event.__dataclass_fields__)

Work = Callable[[Context, Engine, Request, Principal], Awaitable[dict[str, Any]]]


def handlers(context: Context, engine: Engine) -> dict[str, dict[str, Handler]]:
    """Path below /v1/analytics -> method -> handler."""

    def handler(work: Work) -> Handler:
        return partial(_answer, work, context, engine)

    return {
        "/forget": {"POST": handler(_forget)},
        "/recipients/{recipient}": {"DELETE": handler(_forget_in_path)},
        "/reclassify": {"POST": handler(_reclassify)},
        "/backups": {"POST": handler(_backup)},
    }


async def _answer(work: Work, context: Context, engine: Engine, request: Request, who: Principal) -> Response:
    return JSONResponse(await work(context, engine, request, who), headers={"Cache-Control": "no-store"})


@dataclass(frozen=True, slots=True)
class Forget:
    """A recipient reference may be any text; in a path `list/4711` and `..` would be something else."""

    recipient: Annotated[str, Field(min_length=1), Text(512, r"[^\x00]*")]
    tenant: Annotated[str, Text(63)] = ""


async def _forget(context: Context, engine: Engine, request: Request, who: Principal) -> dict[str, Any]:
    """A tenant's key forgets its own recipients; an operator says whose."""
    single(request, ())
    wanted: Forget = bodies.parse(Forget, await bodies.read(request))
    return await _gone(context, engine, who, named_tenant(wanted.tenant, who), wanted.recipient)


async def _forget_in_path(context: Context, engine: Engine, request: Request, who: Principal) -> dict[str, Any]:
    return await _gone(context, engine, who, tenant_of(request, who), request.path_params["recipient"])


async def _gone(context: Context, engine: Engine, who: Principal, tenant: str, recipient: str) -> dict[str, Any]:
    gone = await upkeep.forget_recipient(engine, tenant, recipient)
    registry = context.registry.acting(f"key {who.key_id}")
    await registry.audit("events.forget", tenant, deleted=gone)  # not whom: that would remember them
    return {"deleted": gone}


async def _reclassify(context: Context, engine: Engine, request: Request, who: Principal) -> dict[str, Any]:
    f = of_request(request, who)
    seen, changed = await reclassify(engine, f)
    await context.registry.acting(f"key {who.key_id}").audit(
        "events.reclassify", f.tenant or "all", changed=changed
    )
    return {"seen": seen, "changed": changed}


async def _backup(context: Context, engine: Engine, request: Request, who: Principal) -> dict[str, Any]:
    single(request, set())
    folder = context.settings.data / "backups" / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    await engine.backup(folder)
    await context.registry.acting(f"key {who.key_id}").audit("events.backup", str(folder))
    return {"folder": str(folder)}


async def reclassify(engine: Engine, f: Filter) -> tuple[int, int]:
    """Judge stored events again with the present rules; how many were looked at and how many changed."""
    neighbours, seen, after = Neighbours(), 0, ""
    changed: set[str] = set()
    where, params = replace(f, machines="include").where()
    while True:
        at, last = export.place(after) if after else (0, "")
        rows = await engine.query(
            f"SELECT {', '.join(_EVENT)} FROM events WHERE {where}"  # noqa: S608 - constants and parameters
            f" AND (at_us > $at OR (at_us = $at AND id > $id)) ORDER BY at_us, id LIMIT 5000",
            params | {"at": at, "id": last},
        )
        if not rows:
            return seen, len(changed)
        before = [Event(**dict(zip(_EVENT, row, strict=True)) | {"machine": tuple(row[14])}) for row in rows]
        known = {e.id: e for e in before}
        after = export.cursor_of({"at_us": before[-1].at_us, "id": before[-1].id})
        verdicts = {e.id: e for event in before for e in neighbours.judged(event)}
        different = [e for e in verdicts.values() if e != known.get(e.id)]
        await engine.reclassify(different)
        changed |= {e.id for e in different if e.id not in known or e.machine != known[e.id].machine}
        seen += len(rows)
