"""A load client that keeps its own log of what it was answered."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

from brandproxy.core.tokens import Click, KeyRing
from tests.fleet.topology import HOST, Process

_PATIENCE = 10.0  # seconds a recipient waits


@dataclass
class Load:
    """`rate` clicks a second over the living edges, each with a recipient of its own."""

    edges: list[Process]
    ring: KeyRing
    rate: float
    answered: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    interrupted: int = 0  # asked of an edge that was killed meanwhile: no answer, no promise

    async def run(self, stop: asyncio.Event) -> None:
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in itertools.count():
                await asyncio.sleep(max(0.0, started + number / self.rate - time.monotonic()))
                if stop.is_set():
                    return
                living = [edge for edge in self.edges if edge.down_since is None]
                tasks.create_task(self._click(living[number % len(living)], f"r{number}"))

    async def _click(self, edge: Process, recipient: str) -> None:
        token = self.ring.mint(Click(f"https://shop.example/{recipient}", "drill", "m", recipient, 1))
        asked = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await get(edge.port, f"/c/{token}")
        except (OSError, TimeoutError, EOFError) as error:
            answer = f"{type(error).__name__}: {error}"
        if answer.startswith("HTTP/1.1 302 "):
            self.answered.add(recipient)
            self.seconds.append(time.monotonic() - asked)
        elif edge.down_since is not None or edge.up_since > asked:
            self.interrupted += 1
        else:
            self.failed.append(f"{edge.name} {recipient}: {answer[:80]!r}")


async def get(port: int, path: str, host: str = HOST) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n".encode()
        )
        return (await reader.readuntil(b"\r\n")).decode()
    finally:
        writer.close()
