"""Which addresses outbound HTTP may reach. Pure; `fetch` asks it for every address it is about to connect to.

Invariant: an address is let through only when every address hidden in it (IPv4 in IPv6, translations) is a
public unicast one, or when the operator named its network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Public by registry, private by use: metadata and name servers that cloud machines reach without a route.
_METADATA = frozenset(map(ipaddress.ip_address, ("168.63.129.16",)))
_PROTOCOLS = ipaddress.IPv4Network(
    "192.0.0.0/24"
)  # RFC 6890; `is_global` of older Pythons knows a part of it only
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")  # RFC 3879
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291 §2.5.5.1


def refusal(text: str, allowed: Iterable[Network] = ()) -> str | None:
    """Why an address may not be connected to, or None. `allowed` networks are let through whatever they are."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return f"{text[:60]!r} is not an address"
    seen = [address, *_hidden(address)]
    if any(one in network for one in seen for network in allowed if one.version == network.version):
        return None
    bad = next((one for one in seen if not _public(one)), None)
    return None if bad is None else f"{text} is not a public address"


def _public(address: Address) -> bool:
    if address.is_multicast or address.is_reserved or address in _METADATA:
        return address.version == 6 and any(address in network for network in _NAT64)
    return address.is_global and address not in (_SITE_LOCAL if address.version == 6 else _PROTOCOLS)


def _hidden(address: Address) -> list[Address]:
    """IPv4 addresses a packet to this IPv6 address may end up at."""
    if address.version == 4:
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    found += list(address.teredo or ())
    if any(address in network for network in (*_NAT64, _COMPATIBLE)):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]
