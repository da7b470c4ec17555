"""Listening sockets of the filters, and leaving them gracefully.

On cancellation the door closes first; idle conversations end at once, those with a message underway may end it,
for a bounded time; then everything goes. A mail server that finds the door closed tries again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from brandproxy.errors import BadSettings
from brandproxy.sockets import remove_dead


class Conversation(Protocol):
    @property
    def idle(self) -> bool:
        """No message is underway."""

    def close(self) -> None:
        """End now; called when idle, or when the patience is over."""


def address(text: str) -> tuple[str, int] | Path:
    """`host:port`, `[::1]:port` or `unix:PATH`. Raises BadSettings."""
    if text.startswith("unix:"):
        return Path(text.removeprefix("unix:"))
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise BadSettings(f"{text!r} is no address to listen at", "Use host:port, [::1]:port or unix:/path.")
    return host.strip("[]"), int(port)


async def listen(factory: Callable[[], asyncio.BaseProtocol], where: str) -> asyncio.Server:
    """Raises BadSettings when the address is taken or not ours."""
    place = address(where)
    loop = asyncio.get_running_loop()
    try:
        if isinstance(place, Path):
            remove_dead(place)
            server = await loop.create_unix_server(factory, str(place), backlog=512)
            place.chmod(0o660)  # the mail server reaches it through its group
            return server
        return await loop.create_server(factory, *place, backlog=512)
    except OSError as error:
        raise BadSettings(f"cannot listen at {where}: {error.strerror or error}") from error


async def serve(server: asyncio.Server, conversations: Collection[Conversation], patience: float) -> None:
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
