"""Work that one node does for all (brandproxy/leading.py)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from brandproxy import leading
from brandproxy.leading import lead
from brandproxy.store import open_store


async def test_one_node_leads_and_another_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "RETRY", 0.05)
    working: set[int] = set()
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        working.add(number)
        most = max(most, len(working))
        try:
            await asyncio.sleep(60)
        finally:
            working.discard(number)

    async with AsyncExitStack() as stack:
        stores = [open_store("files:", tmp_path) for _ in range(3)]
        for store in stores:
            stack.push_async_callback(store.close)
        nodes = {n: asyncio.create_task(lead(store, "w", lambda n=n: work(n))) for n, store in enumerate(stores)}
        led: list[int] = []
        while nodes:
            async with asyncio.timeout(5):
                while not working:
                    await asyncio.sleep(0.01)
            [leader] = working
            led.append(leader)
            node = nodes.pop(leader)
            node.cancel()
            await asyncio.gather(node, return_exceptions=True)
        assert sorted(led) == [0, 1, 2]
        assert most == 1
