"""Private links to a host's onboarding page: sealed by the operator's master key, so nobody can make or guess
one. A link names the host's own CNAME target: removing or transferring the host ends it."""

from __future__ import annotations

import json

from brandproxy.config import Control, Settings
from brandproxy.errors import BadSettings, BrandproxyError, NotFound
from brandproxy.model import Host
from brandproxy.store.seal import Seal
from brandproxy.tenants import Registry

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EVERYWHERE = ("0.0.0.0", "::", "*")  # noqa: S104 - what a link cannot name


def make(seal: Seal, host: Host) -> str:
    return seal.seal(json.dumps(["onboarding", host.name, host.target]).encode()).decode()


async def open_link(seal: Seal, registry: Registry, token: str) -> Host:
    """The host a link leads to. Raises NotFound for anything else, whatever the reason."""
    try:
        purpose, name, target = json.loads(seal.open(token.encode("ascii")))
        host = await registry.at_target(name, target)
    except (BrandproxyError, ValueError, TypeError, AttributeError) as error:
        raise NotFound("this link does not lead anywhere (any more)", "Ask for a new link.") from error
    if purpose != "onboarding" or host is None:
        raise NotFound("this link does not lead anywhere (any more)", "Ask for a new link.")
    return host


def pages_at(control: Control) -> str:
    """Where customers' pages are served: an address of their own, else a control port that only this machine
    reaches, else nowhere ("")."""
    return control.public_listen or (control.listen if _host(control.listen) in _LOOPBACK else "")


def url(settings: Settings, token: str) -> str:
    """The address of a page, for people. Raises BadSettings where no browser could open it, naming the setting."""
    control, at = settings.control, pages_at(settings.control)
    if not at:
        raise BadSettings(
            f"customers' pages are served nowhere, since others than this machine reach {control.listen}",
            "Set control.public_listen to an address for them, control.public to the URL that leads to it.",
        )
    if not control.public and (not _host(at) or _host(at) in _EVERYWHERE):
        raise BadSettings(
            f"no browser opens {at}", "Set control.public to the URL under which customers reach it."
        )
    return f"{(control.public or f'http://{at}').rstrip('/')}/onboarding/{token}"


def _host(address: str) -> str:
    """The host of an address to listen at; "" for a socket file."""
    return "" if address.startswith("unix:") else address.rpartition(":")[0].strip("[]").lower()
