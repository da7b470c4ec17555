"""The open connections of one edge worker: how many there may be, and what ends them."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from email.utils import formatdate
from math import ceil
from typing import Protocol

from uvicorn.config import Config
from uvicorn.server import ServerState

from brandproxy.edge.app import Edge, is_trusted
from brandproxy.edge.gathering import Gathering
from brandproxy.sockets import UNIX

log = logging.getLogger(__name__)

_SPARE = 256  # descriptors that are no recipients' connections


class Open(Protocol):
    def idle(self) -> bool: ...
    def overdue(self, now: float) -> bool: ...
    def abort(self) -> None: ...
    def shutdown(self) -> None: ...
    def hurry(self, now: float) -> bool: ...


class Front:
    """What the connections of one worker share. `tick` once a second.

    Beyond `limit` the oldest that waits for no answer of ours makes room, so that who holds many connections open
    holds off nobody; beyond `limit_of_network` the oldest of the client's own network does. The limit leaves
    descriptors for files and for storage.
    """

    def __init__(self, edge: Edge) -> None:
        settings = edge.context.settings.edge
        self.edge = edge
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.limit = min(settings.max_connections, descriptors - min(_SPARE, descriptors // 2))
        self.limit_of_network = min(settings.max_connections_network, self.limit)
        self.patience = settings.patience  # seconds for a request, and between two
        self.state = ServerState()
        self.connections: dict[Open, str] = {}  # oldest first; "" or the network it comes from
        self._networks: dict[str, dict[Open, str]] = {}
        local = settings.http.startswith(UNIX) and not settings.proxy_protocol
        self.gathering = Gathering(edge.spool, self.connections, self.state.tasks if local else None)
        self.now = 0.0
        self.date = b""
        self.config = Config(
            edge,
            lifespan="off",
            ws="none",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_keep_alive=ceil(self.patience),
        )
        self.config.load()
        self.tick()

    def tick(self) -> None:
        """Set the clock, the Date header, and end what is overdue."""
        self.now = asyncio.get_running_loop().time()
        stamp = formatdate(usegmt=True).encode("ascii")
        self.date = b"date: " + stamp + b"\r\n"
        self.state.default_headers = [(b"date", stamp)]
        hurried = 0
        for connection in list(self.connections):
            if connection.overdue(self.now):
                connection.abort()
            else:
                hurried += connection.hurry(self.now)
        if hurried:
            log.error("edge: the disk does not follow; %d answered before their record was written", hurried)

    def admit(self, connection: Open, address: str) -> bool:
        """Count a new connection from `address`. False: there is no room for it; it is to be closed."""
        network = self._network_of(address)
        neighbours = self._networks.setdefault(network, {}) if network else {}
        if len(neighbours) >= self.limit_of_network and not self._make_room(neighbours):
            return False
        if len(self.connections) >= self.limit and not self._make_room(self.connections):
            return False
        self._enter(connection, network)
        return True

    def replace(self, before: Open, after: Open) -> None:
        """`after` goes on with the connection of `before`."""
        network = self.connections.get(before, "")
        self.leave(before)
        self._enter(after, network)

    def leave(self, connection: Open) -> None:
        network = self.connections.pop(connection, "")
        if network:
            neighbours = self._networks[network]
            del neighbours[connection]
            if not neighbours:
                del self._networks[network]

    def _enter(self, connection: Open, network: str) -> None:
        self.connections[connection] = network
        if network:
            self._networks.setdefault(network, {})[connection] = network

    def _make_room(self, among: dict[Open, str]) -> bool:
        victim = next((connection for connection in among if connection.idle()), None)
        if victim is None:
            return False
        victim.abort()
        self.leave(victim)
        return True

    def _network_of(self, address: str) -> str:
        """The /24 or /48 around a client; "" for proxies of ours and this machine: they bring many clients."""
        if address.startswith("127.") or not address or is_trusted(address, self.edge.trusted):
            return ""
        if ":" not in address:
            return address.rpartition(".")[0]
        try:
            packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
        except OSError:  # a unix socket's peer, which is this machine
            return ""
        return packed[:6].hex() if any(packed[:15]) else ""
