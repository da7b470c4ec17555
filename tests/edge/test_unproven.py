"""A host that is not proven for its tenant is answered as a name that nobody here has."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from brandproxy.context import Context
from brandproxy.core.tokens import Asset, Click, Open, Unsubscribe
from brandproxy.model import HostState, Origin
from brandproxy.store import keys
from tests.edge.conftest import HOST, RunningEdge, eventually, prepare, write_certificate

PENDING, FAILED, GIVEN, AGAIN, LIFTED, HELD = (
    f"{label}.acme.example" for label in ("pending", "failed", "given", "again", "lifted", "held")
)
UNPROVEN = (PENDING, FAILED, GIVEN, AGAIN, LIFTED, HELD)
UNKNOWN = "unknown.acme.example"


async def _unproven(context: Context) -> None:
    """One host for each way of not being proven, for the tenant that has everything to show."""
    registry = context.registry
    await registry.add_host(PENDING, "acme")
    await registry.add_host(FAILED, "acme")
    await registry.set_host_state(FAILED, HostState.BROKEN, "never right")
    await registry.add_host(GIVEN, "globex", HostState.LIVE)
    await registry.transfer_host(GIVEN, "acme")
    await registry.add_host(AGAIN, "acme", HostState.LIVE)
    await registry.remove_host(AGAIN)
    await registry.add_host(AGAIN, "acme")
    await registry.add_host(LIFTED, "acme", HostState.LIVE)
    await registry.set_host_state(LIFTED, HostState.SUSPENDED, "abuse")
    await registry.set_host_state(LIFTED, HostState.PENDING, "resumed")
    await registry.add_host(HELD, "acme")
    await registry.set_host_state(HELD, HostState.SUSPENDED, "a claim only")
    for host in UNPROVEN:
        await context.store.put(keys.challenge(host, "tok"), b"tok.thumb")
    origin = Origin("media", (context.settings.data / "media").as_uri() + "/", ("https://img.example/",))
    everything = {
        "home": "https://acme.example/", "assetlinks": "[]", "apple_app_site_association": "{}",
        "origins": (origin,),
    }  # fmt: skip
    await registry.change_tenant("acme", lambda tenant: replace(tenant, **everything), "tenant.set")


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    data: Path = tmp_path_factory.mktemp("unproven")
    running = prepare(data)
    (data / "media").mkdir()
    (data / "media" / "a.css").write_text("a{}")
    running.change(_unproven)
    for host in (*UNPROVEN, UNKNOWN):
        write_certificate(running, host)
    running.start()
    yield running
    running.stop()


def exchange(edge: RunningEdge, path: str, host: str, method: str = "GET", body: str = "") -> bytes:
    """The whole answer but for its date."""
    more = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n" if body else ""
    request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n{body}"
    with socket.create_connection(("127.0.0.1", edge.http), timeout=10) as sock:
        sock.sendall(request.encode())
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.lower().startswith(b"date:"))


def requests(edge: RunningEdge) -> list[tuple[str, str, str]]:
    """Method, path and body of every route that says something under a host that is served."""
    click = edge.token(Click("https://shop.example/"))
    unsubscribe = edge.token(Unsubscribe("https://esp.example/u", "https://esp.example/page"))
    return [
        ("GET", f"/c/{click}", ""),
        ("HEAD", f"/c/{click}", ""),
        ("POST", f"/c/{click}", ""),
        ("GET", "/c/nonsense", ""),
        ("GET", f"/o/{edge.token(Open('c', 'm', 'r'))}.gif", ""),
        ("GET", f"/a/{edge.token(Asset('media', 'a.css'))}/a.css", ""),
        ("GET", f"/u/{unsubscribe}", ""),
        ("POST", f"/u/{unsubscribe}", "List-Unsubscribe=One-Click"),
        ("GET", "/", ""),
        ("GET", "/robots.txt", ""),
        ("GET", "/.well-known/assetlinks.json", ""),
        ("GET", "/.well-known/apple-app-site-association", ""),
        ("GET", "/.well-known/acme-challenge/tok", ""),
        ("GET", "/.well-known/acme-challenge/none", ""),
        ("GET", "/anything/else", ""),
        ("DELETE", "/", ""),
    ]


@pytest.mark.parametrize("host", UNPROVEN)
def test_on_port_80_it_is_answered_byte_for_byte_as_an_unknown_name(edge: RunningEdge, host: str) -> None:
    for method, path, body in requests(edge):
        unknown = exchange(edge, path, UNKNOWN, method, body)
        assert exchange(edge, path, host, method, body) == unknown, path
        assert unknown.startswith(b"HTTP/1.1 404 "), path
        assert b"ocation" not in unknown
        assert exchange(edge, path, HOST, method, body) != unknown or path == "/anything/else"


def alert(edge: RunningEdge, host: str) -> str:
    with socket.create_connection(("127.0.0.1", edge.https), timeout=10) as sock, pytest.raises(OSError) as failed:
        edge.client_tls().wrap_socket(sock, server_hostname=host).close()
    error = failed.value
    return f"{type(error).__name__} {getattr(error, 'reason', '')}"


@pytest.mark.parametrize("host", UNPROVEN)
def test_its_certificate_is_not_served(edge: RunningEdge, host: str) -> None:
    assert alert(edge, host) == alert(edge, UNKNOWN)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _tls(edge, host)
    assert b" 302 " in _tls(edge, HOST)


def _tls(edge: RunningEdge, sni: str, host: str = "") -> bytes:
    with (
        socket.create_connection(("127.0.0.1", edge.https), timeout=10) as sock,
        edge.client_tls().wrap_socket(sock, server_hostname=sni) as secured,
    ):
        secured.sendall(f"GET / HTTP/1.1\r\nHost: {host or sni}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := secured.recv(65536):
            answer += piece
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.lower().startswith(b"date:"))


def test_inside_a_connection_for_a_served_name_it_is_unknown_as_well(edge: RunningEdge) -> None:
    for host in UNPROVEN:
        assert _tls(edge, HOST, host) == _tls(edge, HOST, UNKNOWN)


def test_no_record_is_made_of_a_click_under_it(edge: RunningEdge) -> None:
    before = len(edge.events())
    for host in UNPROVEN:
        for method, path, body in requests(edge):
            exchange(edge, path, host, method, body)
    assert len(edge.events()) == before


def test_it_takes_no_longer_than_for_an_unknown_name(edge: RunningEdge) -> None:
    def quickest(host: str) -> float:
        times = []
        for _ in range(60):
            begun = time.perf_counter()
            exchange(edge, "/", host)
            times.append(time.perf_counter() - begun)
        return min(times)

    ratios = [quickest(PENDING) / quickest(UNKNOWN) for _ in range(5)]
    assert sorted(ratios)[2] < 1.5


def test_the_operators_word_serves_it_and_a_break_later_does_not_end_that(edge: RunningEdge) -> None:
    async def vouched(context: Context) -> None:
        await context.registry.add_host("vouched.acme.example", "acme")
        await context.registry.accept_host("vouched.acme.example", "internal DNS")

    def status() -> bytes:
        return exchange(edge, "/", "vouched.acme.example").split(b" ")[1]

    edge.change(vouched)
    assert eventually(lambda: status() == b"302", 2.0)

    async def broken(context: Context) -> None:
        await context.registry.set_host_state("vouched.acme.example", HostState.BROKEN, "gone")

    edge.change(broken)
    time.sleep(0.5)
    assert status() == b"302"


def test_a_suspended_host_says_so_on_every_route_but_robots(edge: RunningEdge) -> None:
    async def suspended(context: Context) -> None:
        await context.registry.add_host("off.acme.example", "acme", HostState.LIVE)
        await context.registry.set_host_state("off.acme.example", HostState.SUSPENDED, "abuse")
        await context.store.put(keys.challenge("off.acme.example", "tok"), b"tok.thumb")

    edge.change(suspended)
    assert eventually(lambda: b" 410 " in exchange(edge, "/", "off.acme.example"), 2.0)
    for method, path, body in requests(edge):
        answer = exchange(edge, path, "off.acme.example", method, body)
        if path not in ("/robots.txt", "/c/nonsense") and method in ("GET", "HEAD"):
            assert answer.split(b" ")[1] in (b"410", b"404"), path
        assert b"ocation" not in answer, path
        assert b"tok.thumb" not in answer


def test_records_from_before_the_proof_was_kept_are_told_by_their_state(edge: RunningEdge) -> None:
    old = {
        "old-live.acme.example": ("live", "", b"302"),
        "old-verified.acme.example": ("verified", "", b"302"),
        "old-broken.acme.example": ("broken", "live", b"302"),
        "old-pending.acme.example": ("pending", "", b"404"),
        "old-off.acme.example": ("suspended", "live", b"410"),
        "old-off-claim.acme.example": ("suspended", "pending", b"404"),
    }

    async def put(context: Context) -> None:
        for name, (state, before, _) in old.items():
            record = {
                "name": name, "tenant": "acme", "target": f"{name}.edge.invalid", "state": state, "reason": "old",
                "since": 1, "created_at": 1, "zone": "", "before": before, "change": "",
            }  # fmt: skip
            await context.store.put(keys.host(name), json.dumps(record).encode())

    edge.change(put)
    for name, (_, _, expected) in old.items():
        assert eventually(
            lambda name=name, expected=expected: exchange(edge, "/", name).split(b" ")[1] == expected
        )
