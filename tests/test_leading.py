"""Work that one node does for all (brandproxy/leading.py)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from brandproxy import leading
from brandproxy.leading import keep, lead
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


async def test_work_that_fails_is_begun_again_and_counted_until_only_a_new_process_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leading, "PAUSES", (0.001, 0.002))
    failures = leading.FAILURES.labels("w")
    before, begun = failures._value.get(), 0

    async def fails(times: int) -> None:
        nonlocal begun
        begun += 1
        if begun <= times:
            raise ValueError("no")

    await keep("w", lambda: fails(2))
    assert begun == 3
    begun = 0
    with pytest.raises(ValueError, match="no"):
        await keep("w", lambda: fails(99))
    assert begun == 3
    assert failures._value.get() == before + 5
    monkeypatch.setattr(leading, "CALM", 0.0)  # every failure comes after a long calm: the first again
    begun = 0
    await keep("w", lambda: fails(9))
    assert begun == 10
