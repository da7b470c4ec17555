"""Generated exchanges against our listeners, alone and behind real proxies that keep and share connections.

`HTTP_SOCKET_EXCHANGES` sets how many a listener gets. Hidden requests ask for links of their own, so that one that
is answered, for whomever, shows in the answers and in the records.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brandproxy.core.tokens import Click
from tests.conftest import free_port, need_program
from tests.edge.conftest import HOST, RunningEdge, eventually, prepare
from tests.edge.test_behind_nginx import told
from tests.exchanges import (
    Message,
    Reply,
    Site,
    converse,
    cuts,
    draw_exchange,
    draw_smuggling,
    replies,
    status_lines,
)

EXCHANGES = int(os.environ.get("HTTP_SOCKET_EXCHANGES", "100"))
SHOP = "https://shop.example/"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    running = prepare(tmp_path_factory.mktemp("differential"))
    running.start()
    yield running
    running.stop()


def site(edge: RunningEdge, number: int) -> Site:
    """Targets that lead to `number`, bodies that ask for a hidden link of it."""
    click = f"/c/{edge.token(Click(f'{SHOP}{number}', recipient=f'r{number}'))}"
    hidden = f"/c/{edge.token(Click(f'{SHOP}hidden', recipient='hidden'))}"
    request = f"GET {hidden} HTTP/1.1\r\nHost: {HOST}\r\nX: {'x' * (number % 3)}\r\n\r\n"
    return Site(HOST, (click, click, "/robots.txt", "/nothing", "/u/forged"), request.encode())


def connect(edge: RunningEdge, tls: bool) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", edge.https if tls else edge.http), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return edge.client_tls().wrap_socket(sock, server_hostname=HOST) if tls else sock


def leads(message: Message) -> bool:
    return message.target.startswith("/c/") and message.method in ("GET", "HEAD") and not message.status


def check(messages: list[Message], found: list[Reply], number: int) -> None:
    assert len(found) == len(messages), [message.data for message in messages]
    for message, reply in zip(messages, found, strict=True):
        if message.status:
            assert reply.status == message.status, message.data
        elif leads(message):
            assert (reply.status, reply.location) == (302, f"{SHOP}{number}".encode()), message.data
        else:
            assert (reply.status < 500, reply.location) == (True, b""), message.data


def clicked(edge: RunningEdge, recipient: str) -> int:
    return sum(event.recipient == recipient for event in edge.events())


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_each_message_to_the_edge_has_its_one_answer(edge: RunningEdge, tls: bool) -> None:
    draw, led = random.Random(5 + tls), 0
    before = sum(event.recipient.startswith("r") for event in edge.events())
    for number in range(EXCHANGES):
        messages = draw_exchange(draw, site(edge, number))
        data = b"".join(message.data for message in messages)
        with connect(edge, tls) as sock:
            answer = converse(sock, data, cuts(draw, len(data)))
        check(messages, replies(answer, [message.method for message in messages]), number)
        led += sum(map(leads, messages))
    assert clicked(edge, "hidden") == 0
    assert sum(event.recipient.startswith("r") for event in edge.events()) == before + led


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BRANDPROXY_")} | {
        "BRANDPROXY_DATA": str(tmp_path_factory.mktemp("control")),
        "BRANDPROXY_CONTROL_LISTEN": f"127.0.0.1:{port}",
    }
    process = subprocess.Popen([sys.executable, "-m", "brandproxy", "serve", "--role", "control"], env=environment)
    try:
        assert eventually(lambda: socket.create_connection(("127.0.0.1", port)).close() is None, 60)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def test_each_message_to_the_control_port_and_the_http_filter_has_its_one_answer(control: int) -> None:
    draw = random.Random(7)
    hidden = b"DELETE /v1/hosts/links.acme.example HTTP/1.1\r\nHost: control.example\r\n\r\n"
    asked = Site(
        "control.example", ("/openapi.json", "/v1/rewrite?tenant=acme", "/v1/tenants", "/nothing"), hidden
    )
    for _ in range(EXCHANGES):
        messages = draw_exchange(draw, asked)
        data = b"".join(message.data for message in messages)
        with socket.create_connection(("127.0.0.1", control), timeout=10) as sock:
            answer = converse(sock, data, cuts(draw, len(data)))
        found = replies(answer, [message.method for message in messages])
        assert len(found) == len(messages), data
        assert [reply.status for message, reply in zip(messages, found, strict=True) if message.status] == [
            message.status for message in messages if message.status
        ]


WEBSOCKET = """
map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
upstream edge {{ server 127.0.0.1:{edge}; keepalive 4; }}
server {{ listen 127.0.0.1:{port}; location / {{
  proxy_pass http://edge; proxy_http_version 1.1; proxy_set_header Host $host;
  proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
}} }}
"""
CADDY = """
{{
  admin off
  auto_https off
}}
http://:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{edge}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  http-reuse always
  retry-on conn-failure empty-response
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  server edge 127.0.0.1:{edge} pool-max-conn 4
"""


def nginx(folder: Path, port: int, edge: int, text: str) -> list[str]:
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    place = folder / "nginx.conf"
    place.write_text(
        f"{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 512; }}\nhttp {{ access_log off; client_body_temp_path {folder}/body;\n"
        f"{temporary}\n{text}\n}}\n"
    )
    return [need_program("nginx", "nginx"), "-c", str(place), "-e", str(folder / "error.log")]


def documented(folder: Path, port: int, edge: int) -> list[str]:
    upstream, location, rest = told("edge.md").partition("location /")
    upstream = upstream.replace("unix:/run/brandproxy/edge.sock", f"127.0.0.1:{edge}")
    return nginx(folder, port, edge, f"{upstream} server {{ listen 127.0.0.1:{port}; {location}{rest} }}")


def with_websockets(folder: Path, port: int, edge: int) -> list[str]:
    return nginx(folder, port, edge, WEBSOCKET.format(port=port, edge=edge))


def caddy(folder: Path, port: int, edge: int) -> list[str]:
    (folder / "Caddyfile").write_text(CADDY.format(port=port, edge=edge))
    return [need_program("caddy", "caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def haproxy(folder: Path, port: int, edge: int) -> list[str]:
    (folder / "haproxy.cfg").write_text(HAPROXY.format(port=port, edge=edge))
    return [need_program("haproxy", "haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


@pytest.mark.parametrize("proxy", [documented, with_websockets, caddy, haproxy], ids=lambda proxy: proxy.__name__)
def test_behind_a_proxy_nobody_gets_anothers_answer(
    edge: RunningEdge, proxy: Callable[[Path, int, int], list[str]], tmp_path: Path
) -> None:
    port = free_port()
    command = proxy(tmp_path, port, edge.http)
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment)
    try:
        assert eventually(lambda: socket.create_connection(("127.0.0.1", port)).close() is None, 20)
        attack_and_visit(edge, port)
    finally:
        process.terminate()
        process.wait(10)
    assert clicked(edge, "hidden") == 0


def attack_and_visit(edge: RunningEdge, port: int) -> None:
    """Visitors ask while and after somebody else's exchange, over the same connections to the edge."""
    draw = random.Random(port)
    served = 0
    for number in range(EXCHANGES):
        asked = site(edge, number)
        messages = (draw_exchange if number % 5 else draw_smuggling)(draw, asked)
        data = b"".join(message.data for message in messages)
        with contextlib.ExitStack() as opened:
            attacker, early = (
                opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(2)
            )
            head = data.find(b"\r\n\r\n") + 4
            first = cuts(draw, len(data)) if number % 5 else [(0, head), (head, len(data))]
            with contextlib.suppress(OSError):
                attacker.sendall(data[: first[0][1]])
            visit(edge, early, 10_000 + number)
            attacker.settimeout(0.1)  # proxies that repaired what they got wait for more
            answer = converse(attacker, data, first[1:])
            late = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            visit(edge, late, 20_000 + number)
        found = status_lines(answer)
        assert sum(reply.status < 400 for reply in found) <= len(messages), (
            data
        )  # proxies refuse things themselves
        assert {reply.location for reply in found} <= {b"", f"{SHOP}{number}".encode()}, data
        served += sum(bool(reply.location) for reply in found)
    assert served


def visit(edge: RunningEdge, sock: socket.socket, number: int) -> None:
    token = edge.token(Click(f"{SHOP}{number}", recipient=f"v{number}"))
    request = f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    (reply,) = replies(converse(sock, request, [(0, len(request))]), ["GET"])
    assert (reply.status, reply.location) == (302, f"{SHOP}{number}".encode())
