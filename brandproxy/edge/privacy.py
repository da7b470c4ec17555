"""What is kept of a client's address, by the tenant's choice; decided before anything is written down.

full       as it came
truncated  the network: /24 of IPv4, /48 of IPv6
hashed     a keyed hash: tells two clients apart within one tenant, and cannot be looked up without its key
none       nothing
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from functools import lru_cache

from brandproxy.model import Tenant


def stored_address(address: str, tenant: Tenant) -> str:
    mode = tenant.policy.address_privacy
    if mode == "full" or not address:
        return address
    if mode == "none":
        return ""
    return _hashed(address, tenant.keys[-1].secret) if mode == "hashed" and tenant.keys else _truncated(address)


@lru_cache(maxsize=4096)
def _truncated(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    network = ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False)
    return str(network.network_address)


def _hashed(address: str, secret: bytes) -> str:
    # The tenant's first key: it stays when keys are rotated, so one client keeps one hash.
    return hmac.digest(secret, b"brandproxy.address." + address.encode("utf-8"), hashlib.sha256)[:8].hex()
