"""Certificates in and out: what operators bring, and lists for those who keep their own terminator."""

from __future__ import annotations

from pathlib import Path

from brandproxy.certs.copies import CHAIN
from brandproxy.certs.vault import Certificate, Vault, certificate
from brandproxy.context import Context
from brandproxy.model import HostState
from brandproxy.store.seal import open_seal


async def bring(context: Context, host: str, chain: str, key: bytes) -> Certificate:
    """Store an existing certificate (PEM) under a host; a verified one is live with it. Raises BadInput."""
    record = await context.registry.host(host)
    found = certificate(record.name, chain, key, "import")
    await Vault(context.store, open_seal(context.settings)).put(found)
    await context.registry.audit("cert.import", record.name, tenant=record.tenant, serial=found.serial)
    if record.state is HostState.VERIFIED:
        await context.registry.set_host_state(record.name, HostState.LIVE, "certificate imported", seen=record)
    return found


def crt_list(directory: Path) -> str:
    """HAProxy's crt-list (`bind … ssl crt-list FILE`): one line a host, the file and the name it is for.

    HAProxy finds the key beside the chain, as `fullchain.pem.key` (`ssl-load-extra-files`, on by default).
    """
    lines = []
    for folder in sorted(path for path in directory.glob("*") if (path / CHAIN).exists()):
        lines.append(f"{folder.absolute() / CHAIN} {folder.name}\n")
    return "".join(lines)
