"""Listening sockets of the filters, and leaving them gracefully.

Balancers (`mail.proxy_networks`) start each connection with a PROXY protocol header, before TLS: the client is who
it names. From them the header must come, and from nobody else is it read.

On cancellation the door closes first; idle conversations end at once, those with a message underway may end it,
for a bounded time; then everything goes. A mail server that finds the door closed tries again later.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Protocol

from brandproxy import sockets
from brandproxy.core import proxyprotocol
from brandproxy.errors import BadInput, BadSettings
from brandproxy.filters.peers import Address, Peers, address_of
from brandproxy.setting_values import ListenAddress
from brandproxy.sockets import remove_dead

log = logging.getLogger(__name__)

_HEADER = 5.0  # seconds a balancer has for its header
_AT_ONCE = 1000  # connections whose header or TLS handshake has not ended


@dataclass(frozen=True, slots=True)
class Client:
    """Who a connection comes from. `address` None and `by_tcp`: a balancer's own, or it does not know."""

    address: Address | None
    by_tcp: bool


def client_of(peer: Any) -> Client:
    """Of a socket's peer name, without a balancer between."""
    return Client(address_of(peer), isinstance(peer, tuple))


Factory = Callable[[Client | None], asyncio.BaseProtocol]  # None: as the socket's peer name says


class Conversation(Protocol):
    @property
    def idle(self) -> bool:
        """No message is underway."""

    def close(self) -> None:
        """End now; called when idle, or when the patience is over."""


def address(text: str) -> tuple[str, int] | Path:
    """`host:port`, `[::1]:port` or `unix:PATH`. Raises BadSettings."""
    try:
        where = ListenAddress(text)
    except ValueError as error:
        raise BadSettings(
            f"{text!r} is no address to listen at", "Use host:port, [::1]:port or unix:/path."
        ) from error
    return where.path or (where.host, where.port)


class Door(Protocol):
    def close(self) -> None:
        """Take no connection more."""


async def listen(
    factory: Factory, where: str, balancers: Peers | None = None, tls: ssl.SSLContext | None = None
) -> Door:
    """`tls`: from the first byte on. Raises BadSettings when the address is taken or not ours."""
    place = address(where)
    loop = asyncio.get_running_loop()
    try:
        if isinstance(place, Path):
            remove_dead(place)
            server = await loop.create_unix_server(lambda: factory(None), str(place), backlog=512, ssl=tls)
            place.chmod(0o660)  # the mail server reaches it through its group
            return server
        if balancers is not None and balancers.networks:
            return _Balanced(sockets.bind(where, 512), factory, balancers, tls)
        return await loop.create_server(lambda: factory(None), *place, backlog=512, ssl=tls)
    except OSError as error:
        raise BadSettings(f"cannot listen at {where}: {error.strerror or error}") from error


class _Balanced:
    """A listening socket that balancers connect to. Their header is read to its last byte and not beyond."""

    def __init__(
        self, listener: socket.socket, factory: Factory, balancers: Peers, tls: ssl.SSLContext | None
    ) -> None:
        self._listener, self._factory, self._balancers, self._tls = listener, factory, balancers, tls
        self._greeting: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        for task in (self._accepting, *self._greeting):
            task.cancel()
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._listener)
            except OSError as error:  # out of descriptors, or the client has gone
                log.warning("accept: %s", error)
                await asyncio.sleep(0.1)
                continue
            if len(self._greeting) >= _AT_ONCE:
                connection.close()
                continue
            task = loop.create_task(self._greet(connection, peer))
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)

    async def _greet(self, connection: socket.socket, peer: Any) -> None:
        connection.setblocking(False)
        try:
            client = None
            if address_of(peer) in self._balancers:
                client = Client(await asyncio.wait_for(_named(connection), _HEADER), True)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: self._factory(client), connection, ssl=self._tls)
        except (BadInput, OSError, TimeoutError) as error:
            log.warning("balancer %s: %s", peer[0], error or "no PROXY header came")
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise


async def _named(connection: socket.socket) -> IPv4Address | IPv6Address | None:
    """The client that the header names. Raises BadInput, ConnectionResetError."""
    head = await _exactly(connection, len(proxyprotocol.LINE))
    if head == proxyprotocol.LINE:
        while not head.endswith(b"\n") and len(head) < proxyprotocol.MAX_LINE:
            head += await _exactly(connection, 1)
        source = proxyprotocol.line_source(head)
    else:
        head += await _exactly(connection, proxyprotocol.FIXED - len(head))
        rest = await _exactly(connection, proxyprotocol.rest_length(head))
        source = proxyprotocol.source(head, rest)
    return None if source is None else ip_address(source)


async def _exactly(connection: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(connection, count - len(data))
        if not more:
            raise ConnectionResetError("closed within the PROXY protocol header")
        data += more
    return data


async def serve(server: Door, conversations: Collection[Conversation], patience: float) -> None:
    """Serve until cancelled, then leave within `patience` seconds."""
    try:
        await asyncio.Event().wait()
    finally:
        server.close()
        await _leave(conversations, patience)


async def _leave(conversations: Collection[Conversation], patience: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while conversations and loop.time() < deadline:
        for conversation in list(conversations):
            if conversation.idle:
                conversation.close()
        await asyncio.sleep(0.05)
    for conversation in list(conversations):
        conversation.close()
