"""Private links to a host's onboarding page: sealed by the operator's master key, so nobody can make or guess
one. A link names the host's own CNAME target: removing or transferring the host ends it."""

from __future__ import annotations

import json

from brandproxy.config import Settings
from brandproxy.errors import BrandproxyError, NotFound
from brandproxy.model import Host
from brandproxy.store.seal import Seal
from brandproxy.tenants import Registry


def make(seal: Seal, host: Host) -> str:
    return seal.seal(json.dumps(["onboarding", host.name, host.target]).encode()).decode()


async def open_link(seal: Seal, registry: Registry, token: str) -> Host:
    """The host a link leads to. Raises NotFound for anything else, whatever the reason."""
    try:
        purpose, name, target = json.loads(seal.open(token.encode("ascii")))
        host = await registry.host(name)
    except (BrandproxyError, ValueError, TypeError) as error:
        raise NotFound("this link does not lead anywhere (any more)", "Ask for a new link.") from error
    if purpose != "onboarding" or host.target != target:
        raise NotFound("this link does not lead anywhere (any more)", "Ask for a new link.")
    return host


def url(settings: Settings, token: str) -> str:
    """The address of a page, for people. Raises BadSettings where none could be opened."""
    return f"{settings.control.pages_url}/onboarding/{token}"
