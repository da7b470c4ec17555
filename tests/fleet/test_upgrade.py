"""Two versions side by side, in the documented order and back: the newest tag next to this checkout.

BRANDPROXY_UPGRADE_FROM names another commit than the newest tag.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest

from brandproxy.context import open_context
from tests.fleet.load import Load
from tests.fleet.test_drills import counted
from tests.fleet.topology import ROOT, TENANT, Process, Topology

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("fleet")]


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """A checkout of the version before this one."""
    tag = subprocess.run(["git", "describe", "--tags", "--abbrev=0"], cwd=ROOT, capture_output=True, text=True)
    name = os.environ.get("BRANDPROXY_UPGRADE_FROM") or tag.stdout.strip()
    if not name:
        pytest.skip("no tag yet, so there is no version before this one")
    folder = tmp_path / "previous"
    folder.mkdir()
    archive = subprocess.run(["git", "archive", name], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


async def switch(node: Process, code: Path) -> None:
    """Stop a node in good order and start it with another version."""
    node.down_since = time.monotonic()
    await asyncio.to_thread(node.stop)
    node.code = code
    node.start()
    await asyncio.to_thread(node.wait_until_up)


async def test_two_versions_serve_side_by_side(previous: Path, tmp_path: Path) -> None:
    topology = Topology(tmp_path / "fleet", edges=2, controls=1, collectors=1)
    for node in topology.nodes:
        node.code = previous
    try:
        await topology.start()
        async with open_context(topology.settings()) as context:
            ring = context.directory.ring(TENANT)
        assert ring is not None
        load, stop, engine = Load(topology.edges, ring, 30), asyncio.Event(), topology.engine()
        clicking = asyncio.create_task(load.run(stop))
        for node in (*topology.collectors, *topology.controls, *topology.edges):
            await switch(node, ROOT)
            await asyncio.sleep(1)
        for node in (*topology.edges[:1], *topology.collectors):
            await switch(node, previous)  # and back: old collectors read what new edges send
            await asyncio.sleep(1)
        stop.set()
        await clicking
        assert load.failed == []
        found: dict[str, int] = {}
        async with asyncio.timeout(60):
            while not load.answered <= found.keys():
                await asyncio.sleep(0.5)
                found = await counted(engine)
        assert set(found.values()) == {1}
        await engine.close()
    finally:
        topology.stop()
