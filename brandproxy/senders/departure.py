"""What goes when a tenant goes, so that a namesake inherits nothing; and older installations brought up to it.

A removed tenant's slug is never given out again: archives, figures, settings of mail servers and records in
customers' DNS may name it for years. Its tombstone is made before the tenant's record is deleted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from brandproxy import access
from brandproxy.core import dkim
from brandproxy.errors import Conflict, NotFound
from brandproxy.model import Host
from brandproxy.senders.claims import Audit, Senders
from brandproxy.senders.publication import Record
from brandproxy.storage import purge
from brandproxy.store import Entry, Store, keys
from brandproxy.store.records import readable

_UPGRADE = keys.upgraded("senders")


async def refuse_former(store: Store, slug: str, made: bool = False) -> None:
    """Raises Conflict for the slug of a tenant that was removed. `made`: one of that slug was just made, which
    goes again: the other may have been removed since this was asked first."""
    if await store.get(keys.former_tenant(slug)) is not None:
        if made:
            await store.delete(keys.tenant(slug))
        raise Conflict(
            f"slug {slug!r} was a tenant's that was removed: its mail, figures and DNS records still name it",
            f"Take another, e.g. {slug}-2.",
        )


async def bury(store: Store, slug: str) -> None:
    await store.create(keys.former_tenant(slug), b"")


async def remove(store: Store, senders: Senders, slug: str, audit: Audit, gone: Mapping[str, Any]) -> None:
    """A tenant without hosts, with all that is its. Begun again where it was broken off.

    `gone`: what the trail says of it. Raises NotFound."""
    await bury(store, slug)
    await senders.leave(slug)
    await forget(store, slug, audit)
    if not await store.delete(keys.tenant(slug)):
        raise NotFound(f"no tenant {slug!r}")
    await audit("tenant.remove", slug, **gone)
    await senders.leave(slug)  # what was claimed meanwhile


async def forget(store: Store, slug: str, audit: Audit) -> None:
    """API keys, webhooks and campaigns' pages of a tenant go; edges forget its objects. Events stay as long as
    events are kept, the audit trail for ever."""
    for key in await access.list_keys(store):
        if key.tenant == slug:
            await access.revoke_key(store, key.id)
            await audit("key.revoke", key.id, tenant=slug, before=access.shown(key))
    hooks = readable(await store.list(keys.WEBHOOK), lambda e: (e.key, json.loads(e.value)["tenant"]))
    for hook in [name.removeprefix(keys.WEBHOOK) for name, tenant in hooks if tenant == slug]:
        await _drop_webhook(store, hook)
        await audit("webhook.remove", hook, tenant=slug)
    for entry in await store.list(keys.mailing(slug, "")):
        await store.delete(entry.key)
    await purge.give(store, purge.Purge(slug, time.time()))


async def _drop_webhook(store: Store, hook: str) -> None:
    await store.delete(keys.webhook(hook))
    lanes = [keys.webhook_place(hook, lane) for lane in ("events", "changes")]
    dead = [entry.key for entry in await store.list(keys.webhook_dead(hook, ""))]
    for key in (*lanes, *dead):
        await store.delete(key)


async def bring_up(store: Store, senders: Senders, hosts: Callable[[], Awaitable[list[Host]]]) -> None:
    """Once in an installation older than senders, told by its audit trail:

    1. slugs of removed tenants are taken for ever, their keys in DNS revoked
    2. each host gets its sender; where the slug was never another tenant's, records that lead to targets by slug
       stay right
    """
    if await store.get(_UPGRADE) is not None:
        return
    removed, published = await _told(store)
    for slug in removed:
        if await store.get(keys.tenant(slug)) is None:
            await bury(store, slug)
    for (slug, name), at in published.items():
        selector, record = name.partition(".")[0], Record(name, slug, "")
        await senders.publication.note(slug, selector, record)
        if at <= removed.get(slug, 0):  # the one who published it left
            await senders.publication.plan(slug, selector, Record(name, slug, "", dkim.REVOKED))
    for host in await hosts():
        await senders.add_default(host, by_slug=host.tenant not in removed)
    await store.create(_UPGRADE, b"")


async def _told(store: Store) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """When each removed slug went last, and when each key by slug was published last, in microseconds."""
    removed, published = dict[str, int](), dict[tuple[str, str], int]()

    def told(entry: Entry) -> tuple[str, str, str, int]:
        found = json.loads(entry.value)
        return str(found["what"]), str(found.get("tenant", "")), str(found["subject"]), int(found["at_us"])

    for what, tenant, subject, at_us in readable(await store.list(keys.AUDIT), told):
        if what == "tenant.remove":
            removed[subject] = at_us
        elif what == "dkim.publish":
            published[tenant, subject] = at_us
    return removed, published
