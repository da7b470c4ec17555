"""The first message of a TLS connection, read as far as a server must know it before OpenSSL does.

Invariant: `read` never answers for a message that is not whole; what it raises for, OpenSSL would refuse as well.
The name and the protocols are what the client *asks for*: nothing here is authenticated yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from brandproxy.errors import BadInput

MAX_BYTES = 32 * 1024  # of one hello, record headers included; post-quantum key shares make it about 2 KiB
_MAX_RECORDS = 32  # it may be cut into several records (RFC 8446 §5.1)
_MAX_FRAGMENT = 16 * 1024  # RFC 8446 §5.1
_HANDSHAKE, _CLIENT_HELLO, _HOST_NAME = 22, 1, 0
_SERVER_NAME, _ALPN = _WANTED = 0, 16  # extension types: RFC 6066 §3, RFC 7301 §3.1
_NAME = re.compile(rb"[A-Za-z0-9._-]{1,255}")


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`name`: the host asked for, in lower case; "" when none, or none that DNS could have.

    `protocols`: application protocols offered (ALPN), None without that extension.
    """

    name: str
    protocols: tuple[bytes, ...] | None


def read(data: bytes) -> ClientHello | None:
    """The hello at the start of `data`, or None while a part of it is missing. Raises BadInput."""
    message = _message(data)
    if message is None:
        if len(data) > MAX_BYTES:
            raise BadInput("the ClientHello is too long")
        return None
    name = protocols = None
    for kind, body in _extensions(message):
        if kind == _SERVER_NAME:
            if name is not None:
                raise BadInput("an extension stands twice")  # RFC 8446 §4.2; OpenSSL sees to the others
            name = body
        elif kind == _ALPN:
            if protocols is not None:
                raise BadInput("an extension stands twice")
            protocols = body
    return ClientHello(_name(name), _protocols(protocols))


def _extensions(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each extension. Every new connection passes here: plain indexing, no objects."""
    end = len(message)
    try:
        at = 2 + 32  # legacy_version, random
        at += 1 + message[at]  # legacy_session_id
        at += 2 + (message[at] << 8 | message[at + 1])  # cipher_suites
        at += 1 + message[at]  # legacy_compression_methods
        if at == end:
            return
        if end - at - 2 != (message[at] << 8 | message[at + 1]):
            raise BadInput("the ClientHello's extensions do not end with it")
        at += 2
        while at < end:
            kind, size = message[at] << 8 | message[at + 1], message[at + 2] << 8 | message[at + 3]
            at += 4 + size
            if at > end:
                raise BadInput("an extension is cut off")
            if kind in _WANTED:
                yield kind, message[at - size : at]
    except IndexError as error:
        raise BadInput("the ClientHello ends too early") from error


def _message(data: bytes) -> bytes | None:
    """The body of the handshake message that the records at the start of `data` carry; None: not whole."""
    at, message = 0, b""
    for _ in range(_MAX_RECORDS):
        if len(data) < at + 5:
            if data[at : at + 1] not in (b"", b"\x16"):
                raise BadInput("not a TLS handshake")
            return None
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != _HANDSHAKE or data[at + 1] != 3 or not 0 < size <= _MAX_FRAGMENT:
            raise BadInput("not a TLS handshake")
        message += data[at + 5 : at + 5 + size]
        if message and message[0] != _CLIENT_HELLO:
            raise BadInput("not a ClientHello")
        if len(message) >= 4:
            length = int.from_bytes(message[1:4], "big")
            if length > MAX_BYTES:
                raise BadInput("the ClientHello is too long")
            if len(message) >= 4 + length:
                return message[4 : 4 + length]
        if len(data) < at + 5 + size:
            return None
        at += 5 + size
    raise BadInput("the ClientHello is cut into too many records")


def _name(extension: bytes | None) -> str:
    if extension is None:
        return ""
    whole = _Reader(extension)
    names = _Reader(whole.vector(2))
    kind, name = names.number(1), names.vector(2)
    if kind != _HOST_NAME or names.left or whole.left:  # one name of a kind (RFC 6066 §3), and one kind exists
        raise BadInput("not one server name")
    return name.decode("ascii").lower() if _NAME.fullmatch(name) else ""


def _protocols(extension: bytes | None) -> tuple[bytes, ...] | None:
    if extension is None:
        return None
    whole = _Reader(extension)
    names, found = _Reader(whole.vector(2)), []
    while names.left:
        found.append(names.vector(1))
    if not found or whole.left or not all(found):
        raise BadInput("not a list of protocols")
    return tuple(found)


class _Reader:
    """Big-endian numbers and length-prefixed vectors (RFC 8446 §3). Raises BadInput past the end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if self.left < count:
            raise BadInput("the ClientHello ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))
