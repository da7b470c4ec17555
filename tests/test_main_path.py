"""The main path, end to end, as a newcomer runs it: demo, real TLS, kill -9 behind an answered click."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from brandproxy.demo.server import Ports, Server
from tests.conftest import free_port


@pytest.fixture
def demo(tmp_path: Path) -> dict[str, str]:
    """An environment with its own data directory and ports, furnished with the demo's tenant."""
    ports = Ports(free_port(), free_port(), free_port())
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BRANDPROXY_")}
    return clean | ports.environment() | {"BRANDPROXY_DATA": str(tmp_path / "data"), "COLUMNS": "200"}


def brandproxy(demo: dict[str, str], *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    call = [sys.executable, "-m", "brandproxy", *words]
    return subprocess.run(call, env=demo, input=stdin, capture_output=True, timeout=120)


def test_the_demo_holds_every_step_and_can_be_repeated(demo: dict[str, str]) -> None:
    for _ in range(2):
        walked = brandproxy(demo, "demo", "--once")
        assert walked.returncode == 0, walked.stdout.decode() + walked.stderr.decode()
        assert b"3 clicks in analytics, each once" in walked.stdout


def test_the_demo_says_when_a_mail_holds_no_link(demo: dict[str, str], tmp_path: Path) -> None:
    mail = tmp_path / "plain.eml"
    mail.write_bytes(b"From: a@b.example\n\nnothing to see\n")
    walked = brandproxy(demo, "demo", "--once", "--message", str(mail))
    assert walked.returncode == 0
    assert b"no link" in walked.stdout


def test_the_demo_names_the_step_that_fails(demo: dict[str, str], tmp_path: Path) -> None:
    walked = brandproxy(demo, "demo", "--once", "--message", str(tmp_path / "missing.eml"))
    assert walked.returncode == 1
    assert b"missing.eml" in walked.stdout
    assert b"Traceback" not in walked.stderr


def test_a_second_server_on_the_same_data_is_refused_with_the_way_out(demo: dict[str, str]) -> None:
    server = start(demo)
    try:
        second = brandproxy(demo, "serve")
        assert second.returncode == 1
        assert b"BRANDPROXY_DATA" in second.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def start(demo: dict[str, str]) -> subprocess.Popen[bytes]:
    """`brandproxy serve`, answering on all its ports."""
    data = Path(demo["BRANDPROXY_DATA"])
    ports = Ports(*(int(demo[name].rpartition(":")[2]) for name in (
        "BRANDPROXY_EDGE_HTTP", "BRANDPROXY_EDGE_HTTPS", "BRANDPROXY_CONTROL_LISTEN",
    )))  # fmt: skip
    server = Server(data, ports, demo)
    return server.__enter__().child
