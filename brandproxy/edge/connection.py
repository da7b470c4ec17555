"""One connection of a recipient: uvicorn's HTTP/1.1 protocol, with the bounds it does not set itself."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from brandproxy.edge.tls import SNI


class Connection(HttpToolsProtocol):
    """The app finds the accepted SNI name (None without TLS) in `scope["state"]["sni"]`."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        tls = transport.get_extra_info("ssl_object")
        self.app_state = {"sni": getattr(tls, SNI, "") if tls is not None else None}
        super().connection_made(transport)
