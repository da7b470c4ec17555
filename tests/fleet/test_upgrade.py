"""Two versions side by side, in the documented order and back, over one store, one stream and one engine.

The version before this one is the newest tag; while there is none, the commit BEFORE steps up the first parents
(the oldest there is, when the history is shorter). BRANDPROXY_UPGRADE_FROM names another.
"""

from __future__ import annotations

import asyncio
import json
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

BEFORE = 100
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


_COMMANDS = """
import json, sys
from brandproxy.cli import main
for args in json.loads(sys.argv[1]):
    sys.argv = ["brandproxy", *args]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


async def customer(topology: Topology, code: Path, slug: str) -> tuple[str, str]:
    """A tenant's host, made by commands of the version in `code`, and the path of a link it wrote into a mail."""
    host = f"links.{slug}.example"
    commands = [
        ["tenant", "add", slug],
        ["host", "add", host, "--tenant", slug],
        ["rewrite", "--tenant", slug, "--host", host],
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BRANDPROXY_")}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _COMMANDS, json.dumps(commands),
        cwd=code, env=environment | topology.shared | {"BRANDPROXY_DATA": str(topology.folder / "operator")},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, error = await child.communicate(MAIL)
    assert child.returncode == 0, error.decode()
    async with open_context(topology.settings()) as context:  # a host that is not proven is served by no new edge
        await context.registry.accept_host(host, "there is no DNS in this drill")
    found = re.search(rb"https?://links\.[^/]+(/c/[A-Za-z0-9_-]+)", out)
    assert found, out
    return host, found[1].decode()


async def every_edge_opens(topology: Topology, host: str, path: str) -> None:
    async with asyncio.timeout(5):
        for edge in topology.edges:
            while not (await get(edge.port, path, host)).startswith("HTTP/1.1 302 "):
                await asyncio.sleep(0.05)


async def test_two_versions_serve_side_by_side(previous: Path, tmp_path: Path) -> None:
    topology = Topology(tmp_path / "fleet", edges=2, controls=1, collectors=1)
    [collector], [control], edges = topology.collectors, topology.controls, topology.edges
    edges[0].code = control.code = previous
    try:
        await topology.start()
        async with open_context(topology.settings()) as context:
            ring = context.directory.ring(TENANT)
        assert ring is not None
        load, stop, engine = Load(edges, ring, 30), asyncio.Event(), topology.engine()
        clicking = asyncio.create_task(load.run(stop))
        # a new edge with an old control, a new collector that reads what an old edge sends
        await every_edge_opens(topology, *await customer(topology, previous, "made-by-old"))
        await switch(control, ROOT)
        await switch(collector, previous)
        # an old edge with a new control, an old collector that reads what a new edge sends
        await every_edge_opens(topology, *await customer(topology, ROOT, "made-by-new"))
        await switch(edges[0], ROOT)  # upgraded, on the disk it had
        await switch(edges[1], previous)  # and back
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
