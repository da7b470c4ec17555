"""Two versions side by side, in the documented order and back, over one store, one stream and one engine.

The version before this one is the newest tag; while there is none, the commit BEFORE steps up the first parents
(the oldest there is, when the history is shorter). BRANDPROXY_UPGRADE_FROM names another.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brandproxy.context import open_context
from tests.fleet.load import Load, get
from tests.fleet.test_drills import counted
from tests.fleet.topology import ROOT, TENANT, Process, Topology

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("fleet")]

BEFORE = 40
MAIL = b"From: a@acme.example\nSubject: s\nContent-Type: text/html\n\n<a href='https://shop.example/'>shop</a>\n"


def version_before() -> str:
    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    if name := os.environ.get("BRANDPROXY_UPGRADE_FROM") or git("describe", "--tags", "--abbrev=0"):
        return name
    history = git("rev-list", "--first-parent", f"--max-count={BEFORE + 1}", "HEAD").split()
    if len(history) < 2:
        pytest.skip("no history here, so there is no version before this one")
    return history[-1]


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """A checkout of the version before this one."""
    folder = tmp_path / "previous"
    folder.mkdir()
    archive = subprocess.run(["git", "archive", version_before()], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


async def switch(node: Process, code: Path) -> None:
    """Stop a node in good order and start it with another version."""
    node.down_since = time.monotonic()
    await asyncio.to_thread(node.stop)
    node.code = code
    node.start()
    await asyncio.to_thread(node.wait_until_up)


async def command(topology: Topology, code: Path, *args: str, given: bytes = b"") -> bytes:
    """An operator's command of the version in `code`, against the fleet."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BRANDPROXY_")}
    environment |= topology.shared | {"BRANDPROXY_DATA": str(topology.folder / "operator")}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "brandproxy", *args,
        cwd=code, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, error = await child.communicate(given)
    assert child.returncode == 0, error.decode()
    return out


async def customer(topology: Topology, code: Path, slug: str) -> tuple[str, str]:
    """A tenant and its host made by the version in `code`, and the path of a link it wrote into a mail."""
    host = f"links.{slug}.example"
    await command(topology, code, "tenant", "add", slug)
    await command(topology, code, "host", "add", host, "--tenant", slug)
    mail = await command(topology, code, "rewrite", "--tenant", slug, "--host", host, given=MAIL)
    found = re.search(rb"https?://links\.[^/]+(/c/[A-Za-z0-9_-]+)", mail)
    assert found, mail
    return host, found[1].decode()


async def every_edge_opens(topology: Topology, host: str, path: str) -> None:
    async with asyncio.timeout(5):
        for edge in topology.edges:
            while not (await get(edge.port, path, host)).startswith("HTTP/1.1 302 "):
                await asyncio.sleep(0.05)


async def test_two_versions_serve_side_by_side(previous: Path, tmp_path: Path) -> None:
    topology = Topology(tmp_path / "fleet", edges=2, controls=1, collectors=1)
    [collector], [control], edges = topology.collectors, topology.controls, topology.edges
    for node in topology.nodes:
        node.code = previous
    try:
        await topology.start()
        async with open_context(topology.settings()) as context:
            ring = context.directory.ring(TENANT)
        assert ring is not None
        load, stop, engine = Load(edges, ring, 30), asyncio.Event(), topology.engine()
        clicking = asyncio.create_task(load.run(stop))
        for node in (collector, control, edges[0]):
            await switch(node, ROOT)
        # an old edge with a new control, and what each version wrote opened by both
        await every_edge_opens(topology, *await customer(topology, previous, "made-by-old"))
        await every_edge_opens(topology, *await customer(topology, ROOT, "made-by-new"))
        await switch(edges[1], ROOT)
        for node in (control, collector, edges[0]):  # and back: an old collector reads what a new edge sends
            await switch(node, previous)
        await every_edge_opens(topology, *await customer(topology, previous, "made-by-old-again"))
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
