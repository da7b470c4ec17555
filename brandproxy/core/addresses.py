"""Which addresses outbound HTTP may reach. Pure; `fetch` asks it for every address it is about to connect to.

Invariant: an address is let through only when it, and every IPv4 address embedded in it, is a public unicast one,
or when the operator named its network.

The tables are the IANA special-purpose registries, not `ipaddress.is_global`: what that knows depends on the
Python release. Blocks that the registries call globally reachable (AS112, AMT, PCP and TURN anycast) are refused
as well: they lead to the nearest router or sink, never to somebody's server.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SPECIAL_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24",
            "192.88.99.0/24",  # 6to4 relay anycast, deprecated (RFC 7526)
            "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
            "224.0.0.0/4",  # multicast (RFC 5771)
            "240.0.0.0/4",  # reserved, limited broadcast
            "168.63.129.16/32",  # public by registry: the metadata and name server of Azure's virtual machines
        ),
    )
)  # fmt: skip
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")  # the only block global unicast is given out from (RFC 3587 §2)
_SPECIAL_V6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, AMT, ORCHID, DRIP (RFC 2928)
            "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
        ),
    )
)  # fmt: skip
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052; 64:ff9b:1::/48 (RFC 8215) is for local use
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291 §2.5.5.1
_ISATAP = (0x00005EFE, 0x02005EFE)  # upper half of the interface identifier (RFC 5214 §6.1)


def refusal(text: str, allowed: Iterable[Network] = ()) -> str | None:
    """Why an address may not be connected to, or None. `allowed` networks are let through whatever they are."""
    plain, zone, _ = text.partition("%")  # a zone belongs to this machine's links, not to the internet
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        return f"{text[:60]!r} is not an address"
    networks = tuple(allowed)
    embedded = _embedded(address)
    if _in(address, networks) or (embedded and all(_in(one, networks) for one in embedded)):
        return None
    if not zone and _public(address) and all(_public(one) or _in(one, networks) for one in embedded):
        return None
    return f"{text[:60]} is not a public address"


def _in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _public(address: Address) -> bool:
    if address.version == 4:
        return not _in(address, _SPECIAL_V4)
    return address in _NAT64 or (address in _UNICAST_V6 and not _in(address, _SPECIAL_V6))


def _embedded(address: Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses that a packet to this IPv6 address may end up at."""
    if address.version == 4:
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    number = int(address)
    if _in(address, (_NAT64, _LOCAL_NAT64, _COMPATIBLE)) or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        found.append(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    return [one for one in found if one is not None]
