"""Real storage on loopback: nginx over a folder, and an S3 service."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import free_port, need_program


class Nginx:
    """nginx over `folder`. `limit_rate` in bytes a second; `requests` counts what it was asked."""

    def __init__(self, place: Path, folder: Path, limit_rate: int = 0) -> None:
        self.place, self.folder, self.port = place, folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        place.mkdir(parents=True, exist_ok=True)
        (place / "nginx.conf").write_text(
            f"""
            daemon off; master_process off; pid {place}/pid; error_log {place}/error.log warn;
            events {{ worker_connections 1024; }}
            http {{
                types {{ image/png png; image/svg+xml svg; text/css css; text/html html; }}
                default_type application/octet-stream;
                client_body_temp_path {place}/t1; proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3;
                uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5;
                log_format plain '$request_method $uri $status'; access_log {place}/access.log plain;
                server {{
                    listen 127.0.0.1:{self.port} backlog=4096; listen 127.0.0.2:{self.port};
                    location /moved/ {{ return 302 http://127.0.0.2:{self.port}/logo.png; }}
                    root {folder}; gzip on; gzip_min_length 1; gzip_types image/svg+xml text/css;
                    limit_rate {limit_rate};
                }}
            }}"""
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def requests(self) -> list[str]:
        log = self.place / "access.log"
        return log.read_text().splitlines() if log.exists() else []

    def start(self) -> None:
        program = need_program("nginx", "nginx")
        command = [program, "-p", str(self.place), "-c", str(self.place / "nginx.conf")]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for_port(self.port)

    def kill(self) -> None:
        """As a power cut: nothing is said to clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@contextlib.contextmanager
def nginx(place: Path, folder: Path, limit_rate: int = 0) -> Iterator[Nginx]:
    server = Nginx(place, folder, limit_rate)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def s3(place: Path) -> Iterator[str]:
    """The endpoint of an S3 service: moto's server, since Debian's Swift needs a ring, three daemons and a
    file system with extended attributes."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with (place / "moto.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def wait_for_port(port: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
