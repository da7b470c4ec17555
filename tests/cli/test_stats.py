"""`brandproxy stats` and `events`: the same answers with a server and without one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from brandproxy import spool
from brandproxy.core.events import encode
from tests.analytics.conftest import event
from tests.conftest import free_port


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    own = {"BRANDPROXY_DATA": str(tmp_path / "var"), "BRANDPROXY_CONTROL_LISTEN": f"127.0.0.1:{free_port()}"}
    return {k: v for k, v in os.environ.items() if not k.startswith("BRANDPROXY_")} | own


def command(environment: dict[str, str], *words: str) -> list[str]:
    return [sys.executable, "-m", "brandproxy", *words]


def run(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        command(environment, *words), env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def happen(environment: dict[str, str], *events: Any) -> None:
    async def append() -> None:
        writing = spool.Spool(Path(environment["BRANDPROXY_DATA"]) / "spool", "w", "os")
        for e in events:
            await writing.append(encode(e))
        await writing.close()

    asyncio.run(append())


@contextmanager
def control(environment: dict[str, str]) -> Iterator[None]:
    """A running control process."""
    server = subprocess.Popen(command(environment, "serve", "--role", "control"), env=environment)
    address = Path(environment["BRANDPROXY_DATA"]) / "control.json"
    deadline = time.monotonic() + 30
    while not address.exists():
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert address.stat().st_mode & 0o777 == 0o600
    time.sleep(0.5)  # it is announced just before it listens
    try:
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
    assert not address.exists()


def test_stats_are_the_same_with_a_server_and_without(environment: dict[str, str]) -> None:
    happen(environment, *(event(campaign="spring", recipient=f"r{n % 3}", link=n % 3 % 2) for n in range(7)))
    alone = json.loads(run(environment, "stats", "--json"))
    assert (alone["summary"]["clicks"], alone["summary"]["unique_clicks"]) == (7, 3)
    assert [i["events"] for i in alone["top"]["items"]] == [5, 2]
    with control(environment):
        served = json.loads(run(environment, "stats", "--json"))
        assert served["top"]["items"] == alone["top"]["items"]
        follow = subprocess.Popen(
            command(environment, "events", "tail", "-f", "--json"),
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert follow.stdout is not None
        assert [json.loads(follow.stdout.readline())["campaign"] for _ in range(7)] == ["spring"] * 7
        time.sleep(1)
        begun = time.monotonic()
        happen(environment, event(campaign="just-now"))
        assert json.loads(follow.stdout.readline())["campaign"] == "just-now"
        assert time.monotonic() - begun < 5
        follow.kill()
        follow.wait()
        follow.stdout.close()
        assert json.loads(run(environment, "stats", "--json"))["summary"]["clicks"] == 8
        folder = run(environment, "events", "backup").strip()
        assert json.loads(run(environment, "events", "forget", "--tenant", "acme", "r1", "--json")) == {
            "deleted": 2
        }
    environment = environment | {"BRANDPROXY_DATA": environment["BRANDPROXY_DATA"] + "2"}
    run(environment, "events", "restore", folder)
    assert json.loads(run(environment, "stats", "--json"))["summary"]["clicks"] == 8


def test_following_without_a_server_says_what_to_do(environment: dict[str, str]) -> None:
    words = command(environment, "events", "tail", "-f")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 75
    assert "brandproxy serve" in done.stderr


def test_a_terminal_is_not_obeying_what_a_client_sent(environment: dict[str, str]) -> None:
    happen(environment, event(recipient="\x1b[2Jr", url="https://x.example/\x9b31m"))
    told = run(environment, "events", "tail")
    assert "\x1b" not in told
    assert "\x9b" not in told
    assert "x.example" in told
