"""The main path, end to end, as a newcomer runs it: demo, real TLS, kill -9 behind an answered click."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brandproxy.demo.client import Analyst, Recipient
from brandproxy.demo.server import Ports, Server
from tests.conftest import free_port

HTML = b"""From: a@acme.example\r\nTo: b@example.net\r\nSubject: x\r\nMIME-Version: 1.0\r\n\
Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
<a href="https://acme.example/p?b=2&amp;a=1&copy=2@x%20y&q=\xc3\xa4#frag?z">x</a>\r\n"""
MEANT = "https://acme.example/p?b=2&a=1&copy=2@x%20y&q=%C3%A4#frag?z"


@pytest.fixture
def demo(tmp_path: Path) -> dict[str, str]:
    """An environment with its own data directory and ports, furnished with the demo's tenant."""
    ports = Ports(free_port(), free_port(), free_port())
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BRANDPROXY_")}
    data = str(tmp_path / "data")
    return clean | ports.environment() | {"BRANDPROXY_DATA": data, "BRANDPROXY_CERTS_CA": "dev"}


def brandproxy(demo: dict[str, str], *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    call = [sys.executable, "-m", "brandproxy", *words]
    return subprocess.run(call, env=demo, input=stdin, capture_output=True, timeout=120)


def test_the_demo_holds_every_step_and_can_be_repeated(demo: dict[str, str]) -> None:
    for _ in range(2):
        walked = brandproxy(demo, "demo", "--once")
        assert walked.returncode == 0, walked.stdout.decode() + walked.stderr.decode()
        assert b"3 clicks in analytics, each once" in walked.stdout


def test_the_demo_leaves_nothing_and_takes_no_setting(demo: dict[str, str], tmp_path: Path) -> None:
    """Neither its operator's key nor anything else is in the data directory that the next command uses."""
    (tmp_path / "tmp").mkdir()
    walked = brandproxy(
        demo | {"TMPDIR": str(tmp_path / "tmp"), "BRANDPROXY_STORE": "redis://127.0.0.1:1"}, "demo", "--once"
    )
    assert walked.returncode == 0, walked.stdout.decode() + walked.stderr.decode()
    assert not Path(demo["BRANDPROXY_DATA"]).exists()
    assert not list((tmp_path / "tmp").glob("brandproxy-demo-*"))


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


def test_an_answered_click_survives_kill_9_and_counts_once(demo: dict[str, str], tmp_path: Path) -> None:
    rewritten = brandproxy(demo, "rewrite", "--tenant", "demo", "--message", "kill-9", stdin=HTML)
    assert rewritten.returncode == 0, rewritten.stderr.decode()
    link = rewritten.stdout.split(b'href="')[1].split(b'"')[0].decode()
    data = Path(demo["BRANDPROXY_DATA"])
    key = brandproxy(demo, "key", "create").stdout.decode().strip()
    recipient = Recipient(data / "dev-ca.pem")

    server = start(demo)
    answer = recipient.get(link)
    server.kill()
    server.wait()
    wait_until_silent(int(demo["BRANDPROXY_EDGE_HTTPS"].rpartition(":")[2]))
    assert (answer.status_code, answer.headers["location"]) == (302, MEANT)

    again = start(demo)
    try:
        analyst = Analyst("http://" + demo["BRANDPROXY_CONTROL_LISTEN"], key)
        events = analyst.wait_for_events("kill-9", 1)
        time.sleep(1)  # a second delivery of the same segment would show up now
        assert len(analyst.wait_for_events("kill-9", 1)) == 1
        assert events[0]["url"] == "https://acme.example/p?b=2&a=1&copy=2@x%20y&q=ä#frag?z"
        flipped = link[:-1] + ("A" if link[-1] != "A" else "B")
        refused = recipient.get(flipped)
        assert refused.status_code == 404
        assert "location" not in refused.headers
    finally:
        again.send_signal(signal.SIGTERM)
        again.wait(20)


def test_a_second_server_on_the_same_data_is_refused_with_the_way_out(demo: dict[str, str]) -> None:
    server = start(demo)
    try:
        second = brandproxy(demo, "serve")
        assert second.returncode == 1
        assert b"BRANDPROXY_DATA" in second.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_a_token_can_be_looked_into(demo: dict[str, str]) -> None:
    rewritten = brandproxy(demo, "rewrite", "--tenant", "demo", "--campaign", "autumn", stdin=HTML)
    link = rewritten.stdout.split(b'href="')[1].split(b'"')[0].decode()
    shown = json.loads(brandproxy(demo, "token", "show", link, "--json").stdout)
    assert shown["url"] == "https://acme.example/p?b=2&a=1&copy=2@x%20y&q=ä#frag?z"
    assert shown["campaign"] == "autumn"
    forged = brandproxy(demo, "token", "show", link[:-1] + ("A" if link[-1] != "A" else "B"))
    assert forged.returncode == 1


def wait_until_silent(port: int) -> None:
    """Until the killed server's workers, which finish what they had accepted, have let go of the port."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise AssertionError("the workers outlive their server")


def start(demo: dict[str, str]) -> subprocess.Popen[bytes]:
    """`brandproxy serve`, answering on all its ports."""
    data = Path(demo["BRANDPROXY_DATA"])
    ports = Ports(*(int(demo[name].rpartition(":")[2]) for name in (
        "BRANDPROXY_EDGE_HTTP", "BRANDPROXY_EDGE_HTTPS", "BRANDPROXY_CONTROL_LISTEN",
    )))  # fmt: skip
    server = Server(data, ports, demo)
    return server.__enter__().child
