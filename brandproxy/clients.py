"""What is known of a client of the control port: its address and whether it came over TLS, past the proxies that
`control.trusted_proxies` names, and which session cookie that means.

Only a trusted proxy is believed. X-Forwarded-For grows at its end, so the client is the last entry that is not a
proxy of ours; what stands before it is its own word.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.requests import Request

from brandproxy.config import Settings

_SESSION = "brandproxy_session"


def address(settings: Settings, request: Request) -> str:
    """The client's address; of IPv6 its /64, which is what one customer of a provider has."""
    peer = request.client.host if request.client else ""
    hops = [hop.strip() for line in request.headers.getlist("x-forwarded-for") for hop in line.split(",")]
    found = _parsed(peer)
    while found is not None and _is_trusted(settings, found) and hops:
        following = _parsed(hops.pop())
        if following is None:  # a proxy of ours wrote no address there
            break
        found = following
    if isinstance(found, IPv6Address):
        return str(ip_network((found, 64), strict=False))
    return str(found) if found else peer[:64]


def is_secure(settings: Settings, request: Request) -> bool:
    """Whether the client's browser speaks TLS with us or with the gateway before us."""
    if request.url.scheme == "https" or settings.control.public.lower().startswith("https://"):
        return True
    peer = _parsed(request.client.host if request.client else "")
    if peer is None or not _is_trusted(settings, peer):
        return False
    told = request.headers.getlist("x-forwarded-proto")
    return bool(told) and told[-1].rpartition(",")[2].strip().lower() == "https"


def cookie_name(settings: Settings, request: Request) -> str:
    """`__Host-` (RFC 6265bis §4.1.3.2): no other host of the domain, and no plain HTTP, can set or see it."""
    return ("__Host-" if is_secure(settings, request) else "") + _SESSION


def _is_trusted(settings: Settings, found: IPv4Address | IPv6Address) -> bool:
    return any(found in network for network in settings.control.proxies)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
