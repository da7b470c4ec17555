"""Listening behind a TCP load balancer: each connection starts with a PROXY protocol v2 header, before TLS.

The header is read to its last byte and not beyond, so that the TLS handshake behind it stays in the socket.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable

from brandproxy.core import proxyprotocol
from brandproxy.errors import BadInput
from brandproxy.sockets import plain

log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds for the header
_AT_ONCE = 1000  # connections whose header has not come yet

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Balanced:
    """Accepts on `listener`; `make(address)` gives the protocol of a connection from that client.

    With `trusted` networks set, connections from elsewhere are closed: they could claim any address.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: Callable[[str | None], asyncio.Protocol],
        trusted: tuple[Network, ...],
    ) -> None:
        self._listener, self._make, self._trusted = listener, make, trusted
        self._greeting: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        self._accepting.cancel()
        for task in self._greeting:
            task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._listener)
            except OSError as error:  # out of descriptors, or the client has gone
                log.warning("edge: accept: %s", error)
                await asyncio.sleep(0.1)
                continue
            if len(self._greeting) >= _AT_ONCE or not self._admits(peer):
                connection.close()
                continue
            task = loop.create_task(self._greet(connection))
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)

    def _admits(self, peer: str | tuple[str, int]) -> bool:
        if isinstance(peer, str) or not self._trusted:  # a string: a unix socket, which is ours alone
            return True
        address = ipaddress.ip_address(plain(peer[0]))
        return any(address in network for network in self._trusted)

    async def _greet(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            address = await asyncio.wait_for(_client(connection), _PATIENCE)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self._make(address), connection)
        except (BadInput, OSError, TimeoutError, asyncio.CancelledError):
            connection.close()


async def _client(connection: socket.socket) -> str | None:
    fixed = await _exactly(connection, proxyprotocol.FIXED)
    rest = await _exactly(connection, proxyprotocol.rest_length(fixed))
    return proxyprotocol.source(fixed, rest)


async def _exactly(connection: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(connection, count - len(data))
        if not more:
            raise ConnectionResetError("closed within the PROXY protocol header")
        data += more
    return data
