"""The whole main path (the demo's checked walk) on every home of the store, unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from brandproxy.demo.server import Ports
from tests.conftest import free_port
from tests.redis_servers import FULL, Cluster, Sentinels


@pytest.mark.skipif(not FULL, reason="a demo takes its time: BRANDPROXY_DRILL=full")
@pytest.mark.parametrize("kind", [Sentinels, Cluster])
def test_the_demo_holds_every_step_on_redis(kind: type[Sentinels] | type[Cluster], tmp_path: Path) -> None:
    farm = kind(tmp_path / "redis")
    try:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("BRANDPROXY_")}
        ports = Ports(free_port(), free_port(), free_port())
        place = {"TMPDIR": str(tmp_path), "BRANDPROXY_DEMO_STORE": farm.url}
        walked = subprocess.run(
            [sys.executable, "-m", "brandproxy", "demo", "--once"],
            env=clean | ports.environment() | place, capture_output=True, timeout=150,
        )  # fmt: skip
        assert walked.returncode == 0, walked.stdout.decode() + walked.stderr.decode()
        assert b"3 clicks in analytics, each once" in walked.stdout
    finally:
        farm.kill()
