"""The first message of a TLS connection is read as OpenSSL reads it, however it is cut, and nothing else is."""

from __future__ import annotations

import contextlib
import random
import ssl

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.clienthello import ClientHello, read
from brandproxy.errors import BadInput


def hello(name: str | None = "links.acme.example", protocols: tuple[str, ...] = ()) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = name is not None
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """The same handshake message in records of `size` bytes (RFC 8446 §5.1)."""
    body = data[5:]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (hello(), ClientHello("links.acme.example", None)),
        (hello("LINKS.Acme.Example"), ClientHello("links.acme.example", None)),
        (hello(None), ClientHello("", None)),
        (hello(protocols=("h2", "http/1.1")), ClientHello("links.acme.example", (b"h2", b"http/1.1"))),
    ],
    ids=["a name", "in capitals", "no name", "protocols"],
)
def test_name_and_protocols_are_what_the_client_asked_for(data: bytes, expected: ClientHello) -> None:
    assert read(data) == expected
    assert read(data + b"what comes behind it") == expected


def test_a_part_of_it_is_not_whole_and_more_records_are_one_message() -> None:
    data = hello()
    assert all(read(data[:at]) is None for at in range(len(data)))
    for size in (100, 200, 511):
        cut = in_records(data, size)
        assert read(cut) == read(data)
        assert all(read(cut[:at]) is None for at in range(len(cut)))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80\x2e\x01\x03\x01" + bytes(46),  # SSL 2's form
        b"\x16\x03\x01\x00\x00",  # an empty record
        b"\x16\x03\x01\x50\x01" + bytes(4),  # one longer than records are
        b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # a ServerHello
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",  # 16 MB announced
        in_records(hello(), 5),  # too many pieces
    ],
    ids=["HTTP", "SSL 2", "empty", "long", "alert", "ServerHello", "16 MB", "pieces"],
)
def test_what_is_no_hello_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(BadInput):
        read(data)


@given(st.binary(max_size=300))
def test_no_bytes_do_any_other_harm(data: bytes) -> None:
    with contextlib.suppress(BadInput):
        read(data)
        read(b"\x16\x03\x01" + len(data).to_bytes(2, "big") + data)


def _openssl_name(context: ssl.SSLContext, seen: list[str | None], data: bytes) -> str | None:
    """The name OpenSSL reads; raises ssl.SSLError when it refuses the message."""
    seen.clear()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(data)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return seen[0] if seen else None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ssl on names that are not ASCII
def test_what_openssl_takes_after_random_damage_is_read_with_the_same_name() -> None:
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("links.acme.example").configure_cert(context)
    context.sni_callback = lambda tls, name, _: seen.append(name)
    rnd, taken = random.Random(7), 0
    for _ in range(3000):
        data = bytearray(hello())
        for _ in range(rnd.randrange(1, 3)):
            data[rnd.randrange(len(data))] = rnd.randrange(256)
        try:
            theirs = _openssl_name(context, seen, bytes(data))
        except (ssl.SSLError, UnicodeDecodeError):
            continue
        if theirs is None:  # not whole, or no name in it
            continue
        ours = read(bytes(data))
        assert ours is not None
        assert ours.name in (theirs.lower(), "")  # "": a name that no host of ours can have
        taken += 1
    assert taken > 300
