"""Hosts as the dashboard shows them: state with its reason, the record the customer makes, the certificate."""

from __future__ import annotations

import time
from dataclasses import dataclass

from brandproxy.certs.vault import Vault
from brandproxy.context import Context
from brandproxy.errors import BrandproxyError
from brandproxy.model import Host, HostState

MOST = 300  # on one page: each certificate is unsealed and read
_URGENCY = {
    HostState.BROKEN: 0, HostState.SUSPENDED: 1, HostState.PENDING: 2, HostState.VERIFIED: 3, HostState.LIVE: 4,
}  # fmt: skip
_SOON = 14 * 86400  # seconds before its end when a certificate wants attention

NEXT = {
    HostState.PENDING: "Waiting for the CNAME record",
    HostState.VERIFIED: "Waiting for the certificate",
    HostState.LIVE: "Answering",
    HostState.BROKEN: "The CNAME record is gone: links in sent mail fail",
    HostState.SUSPENDED: "Suspended by the operator",
}


@dataclass(frozen=True, slots=True)
class HostView:
    host: Host
    means: str
    certificate: str  # a sentence
    tone: str  # good, waiting, bad


async def states(context: Context, tenant: str) -> tuple[list[HostView], int]:
    """The hosts of a tenant (or of all: ""), those that need attention first, and how many were left out."""
    vault = Vault(context.store, context.registry.codec.seal)
    found = [host for host in await context.registry.everything() if tenant in ("", host.tenant)]
    found.sort(key=lambda host: (_URGENCY[host.state], host.tenant, host.name))
    views = [await _view(vault, host) for host in found[:MOST]]
    views.sort(key=lambda v: ("bad", "waiting", "good").index(v.tone))
    return views, len(found) - len(views)


async def _view(vault: Vault, host: Host) -> HostView:
    tone = {HostState.LIVE: "good", HostState.BROKEN: "bad", HostState.SUSPENDED: "bad"}.get(host.state, "waiting")
    try:
        certificate = await vault.get(host.name) if host.proven else None
    except BrandproxyError as error:
        return HostView(host, NEXT[host.state], f"unreadable: {error}", "bad")
    if certificate is None:
        return HostView(host, NEXT[host.state], "none yet", tone)
    left = certificate.not_after - time.time()
    issuer = "local test CA" if certificate.ca == "dev" else certificate.ca
    if left <= 0:
        return HostView(host, NEXT[host.state], f"ended, from {issuer}", "bad")
    sentence = f"{left / 86400:.0f} days left, from {issuer}"
    return HostView(host, NEXT[host.state], sentence, "waiting" if left < _SOON and tone == "good" else tone)
