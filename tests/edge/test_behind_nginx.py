"""nginx in front, set up as docs/edge.md and docs/hosts.md say."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from brandproxy.core.tokens import Click
from tests.conftest import free_port, need_program
from tests.edge.conftest import HOST, OTHER, RunningEdge, eventually, prepare, write_certificate
from tests.edge.test_clients import keep_whole_addresses
from tests.edge.test_drills import workers

URL = "https://shop.example/"
DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Behind:
    edge: RunningEdge
    port: int  # nginx's, plain
    secure: int  # with TLS

    def get(self, path: str, **headers: str) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.get(url, headers={"host": HOST, **headers}, trust_env=False, timeout=20)


def told(page: str) -> str:
    (configuration,) = re.findall(r"```nginx\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return str(configuration)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    program = need_program("nginx", "nginx")
    folder = tmp_path_factory.mktemp("behind")
    edge = prepare(folder / "data", BRANDPROXY_EDGE_HTTP=f"unix:{folder}/edge.sock")
    upstream, location, rest = told("edge.md").replace("/run/brandproxy", str(folder)).partition("location /")
    pair = told("hosts.md").replace("/var/lib/brandproxy", str(folder / "data"))
    port, secure = free_port(), free_port()
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""  # who may open the socket
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 4096; }}\nhttp {{ access_log off; client_body_temp_path {folder}/body;\n"
        f"{temporary}\n{upstream}\n"
        f"server {{ listen 127.0.0.1:{port}; listen 127.0.0.1:{secure} ssl;\n{pair}\n{location}{rest}}} }}\n"
    )

    keep_whole_addresses(edge)
    edge.start()
    nginx = subprocess.Popen([program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    running = Behind(edge, port, secure)
    try:
        assert eventually(lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
        yield running
    finally:
        nginx.terminate()
        nginx.wait(10)
        edge.stop()


def test_a_click_is_answered_and_recorded_with_the_address_nginx_saw(behind: Behind) -> None:
    token = behind.edge.token(Click(URL, recipient="r-address"))
    answer = behind.get(f"/c/{token}", **{"x-forwarded-for": "203.0.113.7"})
    assert (answer.status_code, answer.headers["location"]) == (302, URL)
    (event,) = [event for event in behind.edge.events() if event.recipient == "r-address"]
    assert event.address == "127.0.0.1"


def test_clicks_that_all_come_at_once_are_all_answered(behind: Behind) -> None:
    token = behind.edge.token(Click(URL))
    (worker,) = workers(behind.edge)
    found: list[int] = []
    asking = [
        threading.Thread(target=lambda: found.append(behind.get(f"/c/{token}").status_code)) for _ in range(250)
    ]
    worker.suspend()
    try:
        for thread in asking:
            thread.start()
        assert not eventually(lambda: bool(found), 1.0)  # nobody is told that we are busy
    finally:
        worker.resume()
    for thread in asking:
        thread.join()
    assert found == [302] * len(asking)


def handshake(behind: Behind, name: str) -> bytes:
    """The certificate nginx shows for a name, in DER."""
    with (
        socket.create_connection(("127.0.0.1", behind.secure), timeout=10) as sock,
        behind.edge.client_tls().wrap_socket(sock, server_hostname=name) as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


def test_every_host_has_its_certificate_from_the_edges_files_also_a_renewed_one(behind: Behind) -> None:
    before = [handshake(behind, HOST), handshake(behind, OTHER)]
    write_certificate(behind.edge, HOST)
    after = [handshake(behind, HOST), handshake(behind, OTHER)]
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)
    with pytest.raises(ssl.SSLError):
        handshake(behind, "unknown.example")
