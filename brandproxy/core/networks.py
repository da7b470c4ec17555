"""Sets of networks that tell in a few look-ups whether an address is in one of thousands."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from brandproxy.errors import BadInput


class Networks:
    """One network a line; blank lines and what follows `#` are skipped. Raises BadInput naming the line."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            try:
                network = ipaddress.ip_network(text)
            except ValueError as error:
                raise BadInput(f"line {number}: {error}") from error
            bits = network.max_prefixlen - network.prefixlen
            self._by_length.setdefault((network.version, bits), set()).add(int(network.network_address) >> bits)

    def __contains__(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        value = int(ip)
        return any(
            value >> bits in found for (version, bits), found in self._by_length.items() if version == ip.version
        )
