"""The demo's tenant: `demo` on `links.acme.localhost`, with a folder of pictures as its origin."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from brandproxy import access
from brandproxy.certs import Vault
from brandproxy.certs.devca import DevCA
from brandproxy.context import Context
from brandproxy.demo.mail import IMAGES, draw_pictures
from brandproxy.errors import Conflict, NotFound
from brandproxy.model import HostState, Origin, Tenant
from brandproxy.store.seal import open_seal

SLUG = "demo"
HOST = "links.acme.localhost"


async def ensure_demo_tenant(context: Context) -> Tenant:
    """The demo's tenant with a live host; makes what is missing, whatever was there before."""
    folder = (context.settings.data / "demo" / "media").resolve()
    draw_pictures(folder)
    try:
        tenant = await context.registry.tenant(SLUG)
    except NotFound:
        tenant = await _add(context, folder)
    vault = Vault(context.store, open_seal(context.settings))
    if await vault.get(HOST) is None:
        await vault.put(DevCA(context.settings.data).issue(HOST, time.time()))
    state = (await context.registry.host(HOST)).state
    if state is HostState.SUSPENDED:
        await context.registry.set_host_state(HOST, HostState.PENDING, "the demo begins")
    if state is not HostState.LIVE:  # no DNS will ever prove a name under localhost
        await context.registry.accept_host(HOST, "a name of this machine's own", certified=True)
    await context.directory.load(context.store)
    return tenant


async def retire_certificate(context: Context) -> str:
    """Put the host back to where a new one starts, for a CA to bring it alive; its CNAME target."""
    await Vault(context.store, open_seal(context.settings)).remove(HOST)
    host = await context.registry.set_host_state(HOST, HostState.PENDING, "the demo begins")
    return host.target


async def _add(context: Context, folder: Path) -> Tenant:
    try:
        await context.registry.add_tenant(SLUG, "Acme Outdoor")
        await context.registry.add_host(HOST, SLUG)
    except Conflict:
        pass  # another process is making it at this moment
    origin = Origin("media", folder.as_uri() + "/", (IMAGES,))

    def furnish(tenant: Tenant) -> Tenant:
        # Mails given to the demo may be signed already: it shows the rewriting all the same.
        policy = replace(tenant.policy, opens=True, signed="strip")
        return replace(tenant, policy=policy, origins=(origin,))

    return await context.registry.change_tenant(SLUG, furnish, "tenant.set")


async def make_demo_key(context: Context) -> str:
    """An operator's key of this demo, which ends with it."""
    return (await access.create_key(context.store, None, "demo"))[1]
