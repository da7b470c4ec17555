"""Forgetting cached objects over HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass

from brandproxy import web
from brandproxy.access import Scope
from brandproxy.admin.operations import Call, Operation
from brandproxy.core import names
from brandproxy.storage import purge


@dataclass(frozen=True)
class NewPurge:
    """`url`: one object by its public URL, in all its forms; empty: all of the tenant's objects."""

    tenant: str
    url: str = ""


async def purge_assets(call: Call) -> None:
    slug = names.slug(call.body.tenant)
    web.require_tenant(call.who, slug)
    tenant = await call.registry.tenant(slug)
    now = time.time()
    order = purge.of_url(tenant, call.body.url, now) if call.body.url else purge.Purge(slug, now)
    await purge.give(call.context.store, order)
    await call.registry.audit("asset.purge", call.body.url[:200] or slug, tenant=slug)


OPERATIONS = (
    Operation(
        "POST",
        "/v1/assets/purge",
        "Forget cached objects, at all edges",
        purge_assets,
        None,
        NewPurge,
        scope=Scope.ADMIN,
    ),
)
