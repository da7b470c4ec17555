"""Session tickets: for one host, for twelve hours at most, the same in every worker and on every node."""

from __future__ import annotations

import contextlib
import copy
import ssl
from pathlib import Path

import pytest
import trustme

from brandproxy.config import Settings
from brandproxy.edge.tickets import PERIOD, FleetSecrets, TicketSecrets, make_secrets
from brandproxy.edge.tls import Book, Refused
from brandproxy.store import Change, keys
from brandproxy.store.files import FileStore
from brandproxy.store.seal import open_seal

NOW = 1_800_000_000.0
ONE, TWO = "links.acme.example", "go.acme.example"
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificates(ca: trustme.CA, tmp_path: Path) -> Path:
    for name in (ONE, TWO):
        folder = tmp_path / "certs" / name
        folder.mkdir(parents=True)
        pair = ca.issue_cert(ONE, TWO)  # one pair for both would do for a client that cares for names only
        (folder / "fullchain.pem").write_bytes(b"".join(pem.bytes() for pem in pair.cert_chain_pems))
        (folder / "privkey.pem").write_bytes(pair.private_key_pem.bytes())
    return tmp_path / "certs"


def book(certificates: Path, secrets: TicketSecrets) -> Book:
    return Book(certificates, lambda name: name in (ONE, TWO), secrets)


class Client:
    def __init__(self, ca: trustme.CA, version: ssl.TLSVersion) -> None:
        self.context = ssl.create_default_context()
        self.context.minimum_version = self.context.maximum_version = version
        ca.configure_trust(self.context)

    def connect(
        self, server: Book, name: str = ONE, session: ssl.SSLSession | None = None
    ) -> tuple[bool, ssl.SSLSession | None]:
        """A whole connection in memory; whether it was resumed, and the session to resume next."""
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.context.wrap_bio(down, up, server_hostname=name, session=session)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        incoming = ssl.MemoryBIO()
        tls = server.begin(up.read(), incoming, down)
        assert tls is not None
        for _ in range(3):
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            incoming.write(up.read())
        tls.write(b"answer")
        assert client.read(100) == b"answer"
        assert bool(client.session_reused) == bool(tls.session_reused)
        return bool(client.session_reused), client.session


@VERSIONS
def test_a_session_resumes_in_every_worker(ca: trustme.CA, certificates: Path, version: ssl.TLSVersion) -> None:
    secrets, client = TicketSecrets(NOW), Client(ca, version)
    workers = [book(certificates, copy.deepcopy(secrets)) for _ in range(2)]
    _, session = client.connect(workers[0])
    assert client.connect(workers[1], session=session)[0]


@VERSIONS
def test_a_ticket_of_one_host_is_none_for_another(
    ca: trustme.CA, certificates: Path, version: ssl.TLSVersion
) -> None:
    server, client = book(certificates, TicketSecrets(NOW)), Client(ca, version)
    _, session = client.connect(server, ONE)
    assert client.connect(server, ONE, session)[0]
    assert not client.connect(server, TWO, session)[0]


@VERSIONS
def test_a_ticket_outlives_one_change_of_keys_and_not_two(
    ca: trustme.CA, certificates: Path, version: ssl.TLSVersion
) -> None:
    secrets, client = TicketSecrets(NOW), Client(ca, version)
    server = book(certificates, secrets)
    _, first = client.connect(server)
    secrets.advance(NOW + PERIOD)
    resumed, second = client.connect(server, session=first)
    assert resumed
    secrets.advance(NOW + 2 * PERIOD)
    assert not client.connect(server, session=first)[0]
    if version is ssl.TLSVersion.TLSv1_3:  # 1.2 goes on with the ticket it had
        assert client.connect(server, session=second)[0], "its new ticket was of the old keys"


def test_keys_of_the_past_cannot_be_had_from_those_of_now() -> None:
    secrets = TicketSecrets(NOW)
    old = secrets.of(ONE, 80)[0]
    secrets.advance(NOW + PERIOD)
    assert secrets.of(ONE, 80)[1] == old
    secrets.advance(NOW + 2 * PERIOD)
    assert old not in secrets.of(ONE, 80)
    before = secrets.of(ONE, 80)
    secrets.advance(NOW + 500 * PERIOD)  # asleep for months
    assert not set(before) & set(secrets.of(ONE, 80))
    assert secrets.of(ONE, 80)[1] is None


def test_a_clock_that_is_set_back_brings_no_old_keys_back() -> None:
    secrets = TicketSecrets(NOW)
    secrets.advance(NOW + PERIOD)
    now = secrets.of(ONE, 80)
    secrets.advance(NOW)
    assert secrets.of(ONE, 80) == now


async def test_a_fleet_shares_its_secrets_through_the_store_sealed(tmp_path: Path) -> None:
    seal = open_seal(Settings(data=tmp_path))
    store = FileStore(tmp_path / "store.db")
    nodes = [TicketSecrets(NOW), TicketSecrets(NOW)]
    assert nodes[0].of(ONE, 80) != nodes[1].of(ONE, 80)
    for at in (NOW, NOW + PERIOD, NOW + 2 * PERIOD, NOW + 3 * PERIOD):
        await make_secrets(store, seal, at)
        await make_secrets(store, seal, at)
        for node in nodes:
            await FleetSecrets(node, seal).load(store)
            node.advance(at)
        assert nodes[0].of(ONE, 80)[0] == nodes[1].of(ONE, 80)[0]
    assert nodes[0].of(ONE, 80) == nodes[1].of(ONE, 80)
    entries = await store.list(keys.TICKET)
    assert len(entries) == 3, "secrets of dead periods are kept"
    assert all(entry.value.startswith(b"gAAAA") for entry in entries)
    await store.close()


def test_an_unreadable_secret_of_the_store_keeps_nobody_from_serving(tmp_path: Path) -> None:
    secrets = TicketSecrets(NOW)
    before = secrets.of(ONE, 80)
    fleet = FleetSecrets(secrets, open_seal(Settings(data=tmp_path)))
    for key, value in ((keys.TICKET + "x", b"1"), (keys.ticket(int(NOW // PERIOD)), b"forged" * 20)):
        fleet.apply(Change("1", key, value))
    assert secrets.of(ONE, 80) == before


@pytest.mark.parametrize(
    ("protocols", "alert"), [(["h2"], 120), (["h2", "spdy/3"], 120), (["h2", "http/1.1"], 0), (["http/1.1"], 0)]
)
def test_without_a_protocol_in_common_the_handshake_ends(
    certificates: Path, protocols: list[str], alert: int
) -> None:
    context = ssl.create_default_context()
    context.set_alpn_protocols(protocols)
    up = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), up, server_hostname=ONE)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    server, data = book(certificates, TicketSecrets(NOW)), up.read()
    if alert:
        with pytest.raises(Refused) as refused:
            server.begin(data, ssl.MemoryBIO(), ssl.MemoryBIO())
        assert refused.value.alert == bytes((21, 3, 3, 0, 2, 2, alert))
    else:
        assert server.begin(data, ssl.MemoryBIO(), ssl.MemoryBIO()) is not None
