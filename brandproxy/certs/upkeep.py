"""Issue and renew, for ever: what the control role runs. Nothing is ever issued inside a handshake."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from brandproxy.certs.devca import DevCA
from brandproxy.certs.vault import Vault
from brandproxy.context import Context
from brandproxy.errors import BrandproxyError
from brandproxy.model import Host, HostState
from brandproxy.store.seal import open_seal

log = logging.getLogger(__name__)

_TICK = 0.5  # seconds between looks at the hosts in memory


async def maintain(context: Context, now: Callable[[], float] = time.time) -> None:
    """Certificates for verified and live hosts by the CA in `settings.certs.ca`, until cancelled."""
    if context.settings.certs.ca == "none":
        return
    vault = Vault(context.store, open_seal(context.settings))
    ca = await asyncio.to_thread(DevCA, context.settings.data)
    while True:
        for host in context.directory.hosts():
            if host.state is HostState.VERIFIED:
                await _issue(context, vault, ca, host, now())
        await asyncio.sleep(_TICK)


async def _issue(context: Context, vault: Vault, ca: DevCA, host: Host, now: float) -> None:
    try:
        if await vault.get(host.name) is None:
            await vault.put(ca.issue(host.name, now))
        await context.registry.set_host_state(host.name, HostState.LIVE, "certificate by the development CA")
    except BrandproxyError:
        log.exception("certificates: %s", host.name)
