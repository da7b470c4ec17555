"""Certificates by SNI over real handshakes, and sessions that resume in every worker."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from brandproxy.certs import Vault
from brandproxy.certs.devca import DevCA
from brandproxy.context import Context
from brandproxy.core.tokens import Click
from brandproxy.store.seal import open_seal
from tests.conftest import need_program
from tests.edge.conftest import HOST, OTHER, RunningEdge, eventually, prepare, write_certificate

URL = "https://shop.example/"


def connect(
    edge: RunningEdge,
    name: str | None,
    context: ssl.SSLContext | None = None,
    session: ssl.SSLSession | None = None,
) -> ssl.SSLSocket:
    context = context or edge.client_tls()
    if name is None:
        context.check_hostname = False
    raw = socket.create_connection(("127.0.0.1", edge.https), timeout=5)
    try:
        return context.wrap_socket(raw, server_hostname=name, session=session)
    except BaseException:
        raw.close()
        raise


def get(sock: ssl.SSLSocket, path: str, host: str) -> bytes:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while chunk := sock.recv(65536):
        answer += chunk
    return answer


@pytest.mark.parametrize(("host", "tenant"), [(HOST, "acme"), (OTHER, "globex")])
def test_each_host_is_served_with_its_own_certificate(edge: RunningEdge, host: str, tenant: str) -> None:
    token = edge.token(Click(URL), tenant)
    with connect(edge, host) as sock:  # the client verifies chain and name
        assert sock.selected_alpn_protocol() is None
        assert get(sock, "/c/" + token, host).startswith(b"HTTP/1.1 302 ")


@pytest.mark.parametrize("name", [None, "unknown.example", "x%2f" + HOST, "a" * 60 + ".example"])
def test_an_unknown_name_is_refused_in_the_handshake(edge: RunningEdge, name: str | None) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(edge, name)


def test_old_protocol_versions_are_refused(edge: RunningEdge) -> None:
    context = edge.client_tls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(edge, HOST, context)


def test_a_client_that_speaks_no_http_1_is_refused_with_the_alert_that_says_so(edge: RunningEdge) -> None:
    context = edge.client_tls()
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        connect(edge, HOST, context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connect(edge, HOST, context) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize(
    ("group", "taken"),
    [("X25519", True), ("P-256", True), ("P-384", True), ("P-521", False), ("X448", False)],
)
def test_key_exchange_is_by_the_groups_of_mozillas_intermediate_configuration(
    edge: RunningEdge, group: str, taken: bool
) -> None:
    command = [need_program("openssl", "openssl"), "s_client", "-groups", group, "-servername", HOST]
    done = subprocess.run([*command, "-connect", f"127.0.0.1:{edge.https}"], input=b"", capture_output=True)
    assert (b"Cipher is TLS_" in done.stdout) == taken


def test_a_host_of_another_tenant_on_the_connection_is_misdirected(edge: RunningEdge) -> None:
    token = edge.token(Click(URL), "globex")
    with connect(edge, HOST) as sock:
        answer = get(sock, "/c/" + token, OTHER)
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert b"location" not in answer.lower()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_resume_whichever_worker_accepts(edge: RunningEdge, version: ssl.TLSVersion) -> None:
    context = edge.client_tls()
    context.minimum_version = context.maximum_version = version
    token = edge.token(Click(URL))
    with connect(edge, HOST, context) as sock:
        get(sock, "/c/" + token, HOST)
        session = sock.session
    resumed = 0
    for _ in range(60):
        with connect(edge, HOST, context, session) as sock:
            get(sock, "/c/" + token, HOST)
            resumed += bool(sock.session_reused)
            session = sock.session
    assert resumed == 60


def test_a_ticket_of_one_tenant_gives_nothing_on_the_other(edge: RunningEdge) -> None:
    context = edge.client_tls()
    token = edge.token(Click(URL), "acme")
    with connect(edge, HOST, context) as sock:
        get(sock, "/c/" + token, HOST)
        session = sock.session
    with connect(edge, OTHER, context, session) as sock:
        assert not sock.session_reused
        assert get(sock, "/c/" + token, HOST).startswith(b"HTTP/1.1 421 ")
    with connect(edge, OTHER, context, session) as sock:
        assert get(sock, "/c/" + token, OTHER).startswith(b"HTTP/1.1 404 ")


def test_a_renewed_certificate_serves_new_handshakes_while_open_connections_go_on(edge: RunningEdge) -> None:
    token = edge.token(Click(URL))
    with connect(edge, HOST) as kept:
        before = kept.getpeercert(binary_form=True)
        write_certificate(edge, HOST)

        def renewed() -> bool:
            with connect(edge, HOST) as sock:
                return sock.getpeercert(binary_form=True) != before

        assert eventually(renewed, 3.0)
        assert get(kept, "/c/" + token, HOST).startswith(b"HTTP/1.1 302 ")


def test_a_pair_that_does_not_match_never_replaces_one_that_serves(edge: RunningEdge) -> None:
    folder = edge.settings().certs_directory / OTHER
    good = (folder / "fullchain.pem").read_bytes()
    with connect(edge, OTHER) as sock:
        serving = sock.getpeercert(binary_form=True)
    (folder / "fullchain.pem").write_bytes((folder.parent / HOST / "fullchain.pem").read_bytes())
    try:
        assert not eventually(lambda: _peer(edge, OTHER) != serving, 1.5)
    finally:
        (folder / "fullchain.pem").write_bytes(good)


def _peer(edge: RunningEdge, host: str) -> bytes | None:
    with connect(edge, host) as sock:
        return sock.getpeercert(binary_form=True)


def torn(certificates: Path) -> None:
    (certificates / HOST / "privkey.pem").write_bytes(b"")


def impossible(certificates: Path) -> None:
    shutil.rmtree(certificates)
    certificates.write_text("a file where the folder should be")


@pytest.mark.parametrize("spoil", [torn, impossible])
def test_a_certificate_that_is_not_whole_on_disk_comes_from_the_nodes_copy_of_the_store(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    edge = prepare(tmp_path)
    ca = DevCA(tmp_path)

    async def keep(context: Context) -> None:
        await Vault(context.store, open_seal(context.settings)).put(ca.issue(HOST, time.time()))

    edge.change(keep)
    spoil(edge.settings().certs_directory)
    edge.start()
    try:
        served = set()
        for _ in range(2):
            with connect(edge, HOST, ssl.create_default_context(cafile=str(ca.path))) as sock:
                assert get(sock, "/c/" + edge.token(Click(URL)), HOST).startswith(b"HTTP/1.1 302 ")
                served.add(sock.getpeercert(binary_form=True))
            edge.change(keep)  # renewed
            time.sleep(1.1)
        assert len(served) == 2
    finally:
        edge.stop()
