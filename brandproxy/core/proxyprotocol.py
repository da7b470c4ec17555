"""PROXY protocol, version 2 (haproxy.org, proxy-protocol.txt §2.2): what a TCP load balancer says of a client."""

from __future__ import annotations

import ipaddress
import struct

from brandproxy.errors import BadInput

FIXED = 16  # bytes of the fixed part
MAX_REST = 2048  # bytes behind it that are accepted: addresses and TLVs

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_BYTES = {0x11: 4, 0x21: 16}  # TCP over IPv4, TCP over IPv6


def rest_length(fixed: bytes) -> int:
    """How many bytes follow the fixed 16. Raises BadInput when they are no header of version 2."""
    if len(fixed) != FIXED or not fixed.startswith(_SIGNATURE) or fixed[12] not in (_LOCAL, _PROXY):
        raise BadInput("no PROXY protocol version 2 header")
    (length,) = struct.unpack_from(">H", fixed, 14)
    if length > MAX_REST:
        raise BadInput(f"a PROXY protocol header of {length} bytes")
    return int(length)


def source(fixed: bytes, rest: bytes) -> str | None:
    """The client's address; None when the connection is the balancer's own (health check). Raises BadInput."""
    if fixed[12] == _LOCAL:
        return None
    size = _ADDRESS_BYTES.get(fixed[13])
    if size is None or len(rest) < 2 * size + 4:
        raise BadInput("a PROXY protocol header without TCP addresses")
    return str(ipaddress.ip_address(rest[:size]))
