"""What each role of a fleet shows to its orchestrator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.conftest import free_addresses, free_port


def test_a_new_edge_without_its_store_says_so_once_and_ends_when_told(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BRANDPROXY_")}
    environment |= free_addresses("EDGE_HTTP", "EDGE_HTTPS")
    environment |= {"BRANDPROXY_DATA": str(tmp_path / "var"), "BRANDPROXY_EDGE_WORKERS": "2"}
    environment |= {"BRANDPROXY_STORE": f"redis://127.0.0.1:{free_port()}/0"}
    log = tmp_path / "log"
    with log.open("wb") as file:
        call = [sys.executable, "-m", "brandproxy", "serve", "--role", "edge"]
        process = subprocess.Popen(call, env=environment, stderr=file)
    try:
        until = time.monotonic() + 60
        while "no copy of it yet" not in log.read_text():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        time.sleep(1.5)  # it asks again meanwhile
        process.terminate()
        assert process.wait(12) == 0  # it would be killed after 15
    finally:
        process.kill()
        process.wait()
    said = log.read_text()
    assert said.count("no copy of it yet") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize("role", ["edge", "control", "milter", "all"])
def test_metrics_answer_once_the_process_serves_and_it_ends_on_sigterm(role: str, tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("EDGE_HTTP", "EDGE_HTTPS", "CONTROL_LISTEN", "MAIL_MILTER")}
    ports["METRICS_LISTEN"] = free_port(behind=2)  # `all` is three processes, with a port each
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BRANDPROXY_")}
    environment |= {f"BRANDPROXY_{name}": f"127.0.0.1:{port}" for name, port in ports.items()}
    environment |= {"BRANDPROXY_DATA": str(tmp_path), "BRANDPROXY_EDGE_WORKERS": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "brandproxy", "serve", "--role", role], env=environment, stderr=log
        )
    try:
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None
            assert time.monotonic() < until
            try:
                with urlopen(f"http://127.0.0.1:{ports['METRICS_LISTEN']}/metrics", timeout=2) as answer:
                    assert b"# HELP" in answer.read()
                if role == "all":  # its control process answers beside its edge
                    with urlopen(f"http://127.0.0.1:{ports['METRICS_LISTEN'] + 1}/metrics", timeout=2) as answer:
                        assert b"# HELP" in answer.read()
                break
            except OSError:  # refused, or reset by a process that is not ready
                time.sleep(0.1)
    finally:
        process.terminate()
        assert process.wait(20) in (0, -signal.SIGTERM)  # uvicorn raises the signal again when it is done
    assert b"Traceback" not in (tmp_path / "log").read_bytes()
