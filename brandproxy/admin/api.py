"""What the command line can do, over HTTP: tenants, hosts, API keys, the kill list, the audit trail.

Isolation: a tenant's key reads and changes its own things only; another tenant's are not found. Adding and
removing tenants, signing keys and origins are the operator's. No answer holds a secret, but for the API key
that was just made, which is shown that once.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

from pydantic import TypeAdapter
from starlette.routing import BaseRoute

from brandproxy import access, blocks, bodies, limits, web
from brandproxy.admin import api_keys, assets, hosts, identities, senders
from brandproxy.admin.operations import Call, Operation, path_items
from brandproxy.admin.operations import routes as make_routes
from brandproxy.admin.views import (
    AuditEntry,
    AuditPage,
    KeyView,
    NewBlock,
    NewPublicKey,
    NewTenant,
    TenantChange,
    TenantView,
)
from brandproxy.context import Context
from brandproxy.core import names
from brandproxy.core.differences import difference
from brandproxy.errors import BadInput, NotFound
from brandproxy.model import Block, BlockKind, Tenant
from brandproxy.onboarding.dkim import PublicKey, PublicKeys
from brandproxy.storage import origins
from brandproxy.store import Entry, keys
from brandproxy.store.records import readable

_PAGE = 500
_CHANGEABLE = tuple(field.name for field in fields(TenantChange))
_AUDIT = TypeAdapter(AuditEntry)


def _view(tenant: Tenant) -> TenantView:
    signing = tuple(KeyView(key.number, key.created_at, key.revoked_at) for key in tenant.keys)
    return TenantView(
        tenant.slug, tenant.name, tenant.policy, tenant.origins, tenant.home,
        tenant.apple_app_site_association, tenant.assetlinks, tenant.created_at, signing,
    )  # fmt: skip


def _slug(call: Call) -> str:
    slug = names.slug(call.path["slug"])
    web.require_tenant(call.who, slug)
    return slug


async def list_tenants(call: Call) -> list[TenantView]:
    return [_view(tenant) for tenant in await call.registry.tenants() if call.who.sees(tenant.slug)]


async def add_tenant(call: Call) -> TenantView:
    return _view(await call.registry.add_tenant(call.body.slug, call.body.name, call.body.policy))


async def show_tenant(call: Call) -> TenantView:
    return _view(await call.registry.tenant(_slug(call)))


async def change_tenant(call: Call) -> TenantView:
    slug, patch = _slug(call), call.body
    if "origins" in patch:
        call.operator()  # an origin names what our own machines read

    def change(tenant: Tenant) -> Tenant:
        present = TenantChange(**{name: getattr(tenant, name) for name in _CHANGEABLE})
        wanted = bodies.merged(present, patch)
        for origin in wanted.origins if "origins" in patch else ():
            origins.check(origin, call.context.settings.assets.hosts)
        return replace(tenant, **{name: getattr(wanted, name) for name in _CHANGEABLE})

    what = f"tenant.change {', '.join(name for name in _CHANGEABLE if name in patch) or 'nothing'}"
    return _view(await call.registry.change_tenant(slug, change, what))


async def remove_tenant(call: Call) -> None:
    await call.registry.remove_tenant(_slug(call))


async def rotate_key(call: Call) -> TenantView:
    return _view(await call.registry.rotate_key(_slug(call)))


async def revoke_key(call: Call) -> TenantView:
    number = call.path["number"]
    if not (number.isascii() and number.isdigit() and len(number) <= 2):
        raise BadInput("a signing key's number is 0 to 63")
    return _view(await call.registry.revoke_key(_slug(call), int(number)))


async def list_dkim(call: Call) -> list[PublicKey]:
    return await PublicKeys(call.context, _slug(call), call.registry).all()


async def publish_dkim(call: Call) -> PublicKey:
    return (await _public_keys(call, call.body.domain).publish(call.path["selector"], call.body.key))[0]


async def withdraw_dkim(call: Call) -> None:
    await _public_keys(call, call.query.get("domain", "")).withdraw(call.path["selector"])


def _public_keys(call: Call, domain: str) -> PublicKeys:
    slug = _slug(call)
    return PublicKeys(call.context, names.hostname(domain) if domain else slug, call.registry, slug)


def _sees(call: Call, tenant: str | None) -> bool:
    return call.who.tenant is None or call.who.tenant == tenant


async def list_blocks(call: Call) -> list[Block]:
    return [block for block in await blocks.everything(call.context.store) if _sees(call, block.tenant)]


async def add_block(call: Call) -> Block:
    wanted = call.body
    if not wanted.tenant or wanted.kind is BlockKind.TENANT:
        call.operator()
    if wanted.tenant:
        web.require_tenant(call.who, names.slug(wanted.tenant))

    async def count() -> int:
        return sum(block.tenant == call.who.tenant for block in await blocks.everything(call.context.store))

    async with limits.room(call.context.settings, call.who, "blocks", count):
        block = await blocks.add(call.context.store, wanted.kind, wanted.value, wanted.tenant, wanted.reason)
    await call.registry.audit(
        "block.add", block.value[:200], tenant=block.tenant, id=block.id, **difference(None, block)
    )
    return block


async def remove_block(call: Call) -> None:
    block = await blocks.get(call.context.store, call.path["id"])
    if not _sees(call, block.tenant):
        raise NotFound("no such kill-list entry")
    await blocks.remove(call.context.store, block.id)
    await call.registry.audit(
        "block.remove", block.value[:200], tenant=block.tenant, id=block.id, **difference(block, None)
    )


async def audit(call: Call) -> AuditPage:
    before, subject = call.query.get("before", ""), call.query.get("subject", "")
    entries = readable(await call.context.store.list(keys.AUDIT), _entry)
    entries = [entry for entry in reversed(entries) if call.who.sees(entry.tenant)]
    if call.who.tenant is not None:
        entries = [_within(entry, call.who.tenant) for entry in entries]
    entries = [e for e in entries if (not before or e.id < before) and subject in ("", e.subject)]
    page = entries[:_PAGE]
    return AuditPage(page, page[-1].id if len(entries) > _PAGE else "")


def _within(entry: AuditEntry, tenant: str) -> AuditEntry:
    """An entry as a tenant's key sees it: whose a name was before is not theirs to know."""
    if not entry.what.endswith(".transfer"):
        return entry
    return replace(entry, details={name: value for name, value in entry.details.items() if value in ("", tenant)})


def _entry(entry: Entry) -> AuditEntry:
    record = json.loads(entry.value)
    at_us, actor, what, subject = (record.pop(name) for name in ("at_us", "actor", "what", "subject"))
    tenant = record.pop("tenant", subject if what.startswith("tenant.") else "")
    fields = {
        "id": entry.key.removeprefix(keys.AUDIT), "at_us": at_us, "actor": actor, "what": what, "subject": subject,
        "tenant": tenant, "details": record,
    }  # fmt: skip
    return _AUDIT.validate_json(json.dumps(fields))  # no lone surrogate gets through, also not in the details


_ONBOARD, _ADMIN = access.Scope.ONBOARD, access.Scope.ADMIN

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/v1/tenants", "List tenants", list_tenants, list[TenantView], scope=_ONBOARD),
    Operation(
        "POST", "/v1/tenants", "Add a tenant", add_tenant, TenantView, NewTenant, 201,
        scope=_ADMIN, operator=True,
    ),
    Operation("GET", "/v1/tenants/{slug}", "Show a tenant", show_tenant, TenantView, scope=_ONBOARD),
    Operation(
        "PATCH", "/v1/tenants/{slug}", "Change a tenant", change_tenant, TenantView, TenantChange,
        scope=_ADMIN,
    ),
    Operation(
        "DELETE", "/v1/tenants/{slug}", "Remove a tenant without hosts", remove_tenant,
        scope=_ADMIN, operator=True,
    ),
    Operation(
        "POST", "/v1/tenants/{slug}/rotate-key", "Make a new signing key", rotate_key, TenantView,
        scope=_ADMIN, operator=True,
    ),
    Operation(
        "POST", "/v1/tenants/{slug}/keys/{number}/revoke", "Revoke a leaked one", revoke_key, TenantView,
        scope=_ADMIN, operator=True,
    ),
    Operation(
        "GET", "/v1/tenants/{slug}/dkim", "Public DKIM keys in DNS", list_dkim, list[PublicKey],
        scope=_ONBOARD,
    ),
    Operation(
        "PUT", "/v1/tenants/{slug}/dkim/{selector}", "Publish the signer's public key", publish_dkim, PublicKey,
        NewPublicKey, scope=_ADMIN, operator=True,
    ),
    Operation(
        "DELETE", "/v1/tenants/{slug}/dkim/{selector}", "Withdraw an old key", withdraw_dkim,
        query=(("domain", "of this sender only"),), scope=_ADMIN, operator=True,
    ),
    Operation("GET", "/v1/blocks", "List the kill list", list_blocks, list[Block], scope=_ADMIN),
    Operation(
        "POST", "/v1/blocks", "Block from now on, at all edges in 2 s", add_block, Block, NewBlock, 201,
        scope=_ADMIN,
    ),
    Operation("DELETE", "/v1/blocks/{id}", "Take off the kill list", remove_block, scope=_ADMIN),
    Operation(
        "GET", "/v1/audit", "Who did what, newest first", audit, AuditPage,
        query=(("subject", "only about this"), ("before", "the page behind this id")), scope=_ADMIN,
    ),
    *hosts.OPERATIONS,
    *api_keys.OPERATIONS,
    *senders.OPERATIONS,
    *assets.OPERATIONS,
    *identities.OPERATIONS,
)  # fmt: skip

PATHS: dict[str, Any] = path_items(OPERATIONS, "admin")


def routes(context: Context) -> list[BaseRoute]:
    return make_routes(context, OPERATIONS)
