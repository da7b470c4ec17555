"""PROXY protocol (haproxy.org, proxy-protocol.txt): what a TCP load balancer says of a client.

Version 2 (§2.2) for all listeners, version 1 (§2.1, a line of text) for those of mail.
"""

from __future__ import annotations

import ipaddress
import struct

from brandproxy.errors import BadInput

FIXED = 16  # bytes of the fixed part
MAX_REST = 2048  # bytes behind it that are accepted: addresses and TLVs

MAX_LINE = 107  # bytes of a version 1 header, its line end included (§2.1)
LINE = b"PROXY "  # how it starts

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


def line_source(line: bytes) -> str | None:
    """The client's address in a version 1 line, CRLF included; None when it is not known. Raises BadInput."""
    words = line.removesuffix(b"\r\n").split(b" ")
    if not line.endswith(b"\r\n") or len(line) > MAX_LINE or words[0] != b"PROXY":
        raise BadInput("no PROXY protocol version 1 header")
    if len(words) > 1 and words[1] == b"UNKNOWN":
        return None
    kinds = {b"TCP4": ipaddress.IPv4Address, b"TCP6": ipaddress.IPv6Address}
    try:
        kind = kinds[words[1]]
        source, _ = kind(words[2].decode("ascii")), kind(words[3].decode("ascii"))
        if len(words) != 6 or not all(port.isdigit() and int(port) < 1 << 16 for port in words[4:]):
            raise ValueError("ports")
    except (KeyError, IndexError, ValueError) as error:
        raise BadInput("a PROXY protocol line without TCP addresses") from error
    return str(source)
