"""Whose address is recorded: behind proxies, behind TCP balancers, and by the tenant's privacy mode."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.context import Context
from brandproxy.core import proxyprotocol
from brandproxy.core.tokens import Click
from brandproxy.edge.app import client_address
from brandproxy.edge.privacy import stored_address
from brandproxy.errors import BadInput
from brandproxy.model import Policy, SigningKey, Tenant
from tests.edge.conftest import HOST, RunningEdge, eventually, prepare
from tests.edge.test_drills import workers

TRUSTED = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


def keep_whole_addresses(running: RunningEdge) -> None:
    async def full(context: Context) -> None:
        policy = Policy(address_privacy="full")
        await context.registry.change_tenant("acme", lambda t: replace(t, policy=policy), "tenant.change")

    running.change(full)


@pytest.mark.parametrize(
    ("peer", "told", "client"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # not a proxy of ours: not believed
        ("10.1.1.1", "198.51.100.1", "198.51.100.1"),
        ("10.1.1.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),  # what the client wrote itself comes first
        ("10.1.1.1", "1.1.1.1, 198.51.100.1, 10.2.2.2", "198.51.100.1"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "nonsense", "10.1.1.1"),
        ("10.1.1.1", "198.51.100.1, <script>", "10.1.1.1"),
        ("10.1.1.1", "10.2.2.2", "10.2.2.2"),
        ("fd00::1", "2001:db8::7", "2001:db8::7"),
    ],
)
def test_forwarded_addresses_are_believed_from_our_proxies_only(peer: str, told: str, client: str) -> None:
    assert client_address(peer, told.encode(), TRUSTED) == client
    assert client_address(peer, told.encode(), ()) == peer


@given(st.one_of(st.binary(max_size=200), st.text("0123456789abcdef:.,% ", max_size=120).map(str.encode)))
def test_no_header_makes_the_address_anything_but_an_address(told: bytes) -> None:
    ipaddress.ip_address(client_address("10.0.0.1", told, TRUSTED))


@pytest.mark.parametrize(
    ("mode", "address", "kept"),
    [
        ("full", "203.0.113.9", "203.0.113.9"),
        ("truncated", "203.0.113.9", "203.0.113.0"),
        ("truncated", "::ffff:203.0.113.9", "203.0.113.0"),
        ("truncated", "2001:db8:1:2::9", "2001:db8:1::"),
        ("none", "203.0.113.9", ""),
    ],
)
def test_addresses_are_kept_as_the_tenant_chose(mode: str, address: str, kept: str) -> None:
    tenant = Tenant("t", (SigningKey(0, b"k" * 32, 0),), policy=Policy(address_privacy=mode))
    assert stored_address(address, tenant) == kept


def test_hashed_addresses_differ_by_tenant_and_survive_key_rotation() -> None:
    def tenant(*secrets: bytes) -> Tenant:
        keys = tuple(SigningKey(n, secret, 0) for n, secret in enumerate(secrets))
        return Tenant("t", keys, policy=Policy(address_privacy="hashed"))

    one = stored_address("203.0.113.9", tenant(b"a" * 32))
    assert one == stored_address("203.0.113.9", tenant(b"new" * 11, b"a" * 32))
    assert one != stored_address("203.0.113.9", tenant(b"b" * 32))
    assert "203" not in one


def header(address: str, command: int = 0x21) -> bytes:
    ip = ipaddress.ip_address(address)
    body = ip.packed + ip.packed + struct.pack(">HH", 4000, 443) + b"\x04\x00\x01x"  # with a TLV behind
    family = 0x11 if ip.version == 4 else 0x21
    return b"\r\n\r\n\x00\r\nQUIT\n" + bytes([command, family]) + struct.pack(">H", len(body)) + body


@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::7"])
def test_proxy_protocol_headers_are_read(address: str) -> None:
    data = header(address)
    assert proxyprotocol.rest_length(data[:16]) == len(data) - 16
    assert proxyprotocol.source(data[:16], data[16:]) == address
    assert proxyprotocol.source(header(address, 0x20)[:16], data[16:]) is None


@given(st.binary(max_size=40), st.binary(max_size=60))
def test_a_damaged_proxy_header_is_refused_not_crashed_on(fixed: bytes, rest: bytes) -> None:
    for head in (fixed, (header("1.2.3.4")[:12] + fixed)[:16]):
        try:
            proxyprotocol.rest_length(head)
            proxyprotocol.source(head, rest)
        except BadInput:
            pass


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    data = tmp_path_factory.mktemp("balanced")
    running = prepare(data, BRANDPROXY_EDGE_PROXY_PROTOCOL="true")
    keep_whole_addresses(running)
    running.start()
    yield running
    running.stop()


def test_behind_a_tcp_balancer_the_clients_address_is_the_announced_one(balanced: RunningEdge) -> None:
    token = balanced.token(Click("https://shop.example/"))
    request = f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    for port, tls in ((balanced.http, False), (balanced.https, True)):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            raw.sendall(header("203.0.113.77"))
            sock = balanced.client_tls().wrap_socket(raw, server_hostname=HOST) if tls else raw
            sock.sendall(request)
            assert sock.recv(65536).startswith(b"HTTP/1.1 302 ")
            sock.close()
        assert balanced.events()[-1].address == "203.0.113.77"


def test_behind_a_tcp_balancer_a_connection_without_header_is_closed(balanced: RunningEdge) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{balanced.http}/", headers={"host": HOST}, trust_env=False)
    with (
        socket.create_connection(("127.0.0.1", balanced.https), timeout=5) as raw,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        balanced.client_tls().wrap_socket(raw, server_hostname=HOST)


def test_a_trusted_proxys_word_is_recorded(tmp_path) -> None:
    running = prepare(tmp_path, BRANDPROXY_EDGE_TRUSTED_PROXIES="127.0.0.0/8, ::1")
    running.start()
    try:
        token = running.token(Click("https://shop.example/"))
        headers = {"host": HOST, "x-forwarded-for": "9.9.9.9, 203.0.113.7"}
        httpx.get(f"http://127.0.0.1:{running.http}/c/{token}", headers=headers, trust_env=False)
        assert eventually(lambda: running.events()[-1].address == "203.0.113.0")
    finally:
        running.stop()


def test_a_proxy_on_a_unix_socket_is_believed_and_the_socket_is_its_groups_alone(tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    with socket.socket(socket.AF_UNIX) as dead:  # left by an edge that was killed
        dead.bind(str(path))
    running = prepare(tmp_path, BRANDPROXY_EDGE_HTTP=f"unix:{path}")
    keep_whole_addresses(running)
    running.start()
    try:
        assert path.stat().st_mode & 0o777 == 0o660
        token = running.token(Click("https://shop.example/"))
        for told, parsed in (
            ("9.9.9.9, 203.0.113.7", ""),
            ("203.0.113.7", "te: x\r\n"),
            ("nonsense", ""),
            ("", ""),
        ):
            forwarded = f"X-Forwarded-For: {told}\r\n" if told else ""
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                sock.sendall(f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\n{forwarded}{parsed}\r\n".encode())
                assert sock.recv(65536).startswith(b"HTTP/1.1 302 ")
        assert [event.address for event in running.events()] == ["203.0.113.7", "203.0.113.7", "", ""]
    finally:
        running.stop()


@pytest.mark.parametrize(("http", "policy"), [("unix:{}/e.sock", os.SCHED_BATCH), ("", os.SCHED_OTHER)])
def test_only_behind_a_proxy_on_this_machine_does_a_worker_wait_for_it(
    tmp_path: Path, http: str, policy: int
) -> None:
    running = prepare(tmp_path)
    running.environment |= {"BRANDPROXY_EDGE_HTTP": http.format(tmp_path)} if http else {}
    running.start()
    try:
        (worker,) = workers(running)
        assert os.sched_getscheduler(worker.pid) == policy
    finally:
        running.stop()


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_a_burst_of_connections_waits_for_a_busy_worker_and_none_is_refused(
    tmp_path: Path, family: socket.AddressFamily
) -> None:
    running = prepare(tmp_path)
    path = str(tmp_path / "edge.sock")
    address = ("127.0.0.1", running.http) if family == socket.AF_INET else path
    running.environment |= {"BRANDPROXY_EDGE_HTTP": f"unix:{path}"} if family == socket.AF_UNIX else {}
    running.start()
    request = f"GET /c/{running.token(Click('https://shop.example/'))} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    (worker,) = workers(running)
    with contextlib.ExitStack() as stack:
        stack.callback(running.stop)
        worker.suspend()
        stack.callback(worker.resume)
        burst = [stack.enter_context(socket.socket(family)) for _ in range(400)]
        for sock in burst:
            sock.setblocking(False)  # as a proxy does
            with contextlib.suppress(BlockingIOError) if family == socket.AF_INET else contextlib.nullcontext():
                sock.connect(address)
        for sock in burst:
            sock.settimeout(10)
            sock.sendall(request)
        worker.resume()
        started = time.monotonic()
        assert all(sock.recv(65536).startswith(b"HTTP/1.1 302 ") for sock in burst)
        assert time.monotonic() - started < 1.0  # nobody's SYN was dropped, to be sent again


def test_a_tcp_balancer_on_a_unix_socket_tells_the_clients_address(tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    running = prepare(
        tmp_path,
        BRANDPROXY_EDGE_HTTP=f"unix:{path}",
        BRANDPROXY_EDGE_PROXY_PROTOCOL="true",
        BRANDPROXY_EDGE_TRUSTED_PROXIES="10.0.0.0/8",
    )
    running.start()
    try:
        token = running.token(Click("https://shop.example/"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(header("203.0.113.77") + f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            assert sock.recv(65536).startswith(b"HTTP/1.1 302 ")
        assert [event.address for event in running.events()] == ["203.0.113.0"]
    finally:
        running.stop()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_one_address_takes_both_families_and_ipv4_clients_keep_their_own(tmp_path: Path) -> None:
    running = prepare(tmp_path, BRANDPROXY_EDGE_TRUSTED_PROXIES="127.0.0.0/8")
    running.environment["BRANDPROXY_EDGE_HTTP"] = f"[::]:{running.http}"
    keep_whole_addresses(running)
    running.start()
    try:
        token = running.token(Click("https://shop.example/"))
        for address, parsed in (("127.0.0.1", ""), ("127.0.0.1", "te: x\r\n"), ("::1", "")):
            forwarded = "X-Forwarded-For: 203.0.113.7\r\n"
            with socket.create_connection((address, running.http), timeout=5) as sock:
                sock.sendall(f"GET /c/{token} HTTP/1.1\r\nHost: {HOST}\r\n{forwarded}{parsed}\r\n".encode())
                assert sock.recv(65536).startswith(b"HTTP/1.1 302 ")
        assert [event.address for event in running.events()] == ["203.0.113.7", "203.0.113.7", "::1"]
    finally:
        running.stop()
