"""The certificate book: SNI name to certificate, from local disk, before the handshake.

Invariants: a handshake never waits for the network; a name from the wire is looked up in the
directory before it is part of a path, so only names of hosts we have are ever read; an unknown name is refused
(there is no default certificate); a pair that cannot be read never replaces one that serves; a session resumes
under the name it was made for, and no other (RFC 6066 §3).

How a connection begins (`Book.begin`):
1. The ClientHello is read by us, so that everything OpenSSL needs is the host's own: certificate and ticket keys.
2. No name, or no host of ours: alert `unrecognized_name` (RFC 6066 §3).
3. Protocols are offered and HTTP/1.1 is none of them: alert `no_application_protocol` (RFC 7301 §3.2).
4. OpenSSL goes on. A ticket made with the keys of the period before is opened with those.

What is not on disk yet, or was torn there by a power cut, is taken from the node's own copy of the store
(`spare`): a new node answers for a hundred thousand hosts before a file of theirs is written.

A context costs about 24 KiB and 0.7 ms to build, so `capacity` of them are kept, the least recently used going
first. Files are looked at again at most once a second per name: a renewed certificate serves new handshakes
within that second, connections that are open go on. Ticket keys come from secrets that all workers share, so that
sessions resume in every worker (RFC 8446 §2.2).
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from brandproxy.core import clienthello
from brandproxy.edge import openssl
from brandproxy.edge.tickets import TicketSecrets
from brandproxy.errors import BadInput

log = logging.getLogger(__name__)

_AGAIN = 1.0  # seconds between looks at the files of one name
_MISSING = 0.2  # seconds a name without a readable certificate is refused unseen
_MAX_MISSING = 10_000  # names without a readable certificate that are remembered
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # forward secret and authenticated; TLS 1.3 has its own list

_SPARE = "spare"  # in place of the folder, for a certificate that came from no file

SNI = "brandproxy_sni"  # attribute of the SSLObject that carries the accepted name
_HTTP = "http/1.1"

# Alert descriptions (RFC 8446 §6)
_DECODE_ERROR, _INTERNAL_ERROR, _UNRECOGNIZED_NAME, _NO_APPLICATION_PROTOCOL = 50, 80, 112, 120
_KEY_NAME = 16  # bytes at the start of ticket keys; every ticket begins with them in clear (RFC 5077 §4)


class Refused(Exception):
    """The connection ends before its handshake; `alert` is the record that says why."""

    def __init__(self, description: int) -> None:
        super().__init__(f"alert {description}")
        self.alert = bytes((21, 3, 3, 0, 2, 2, description))  # fatal


@dataclass(slots=True)
class _Kept:
    context: ssl.SSLContext
    version: tuple[str, int]
    looked: float
    tickets: int = -1  # version of the secrets its keys come from
    keys: bytes = b""
    keys_before: bytes | None = None


def new_context() -> ssl.SSLContext:
    """A context without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols([_HTTP])
    context.num_tickets = 1  # a click opens one connection; OpenSSL's two cost 15 us more a handshake
    # Every cipher offered is good; the client knows which one its processor is fast at.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION
    openssl.harden(context)
    return context


class Book:
    """`knows` says whether a name is a host of ours; `spare` has chain and key (PEM) of one not on disk."""

    def __init__(
        self,
        directory: Path,
        knows: Callable[[str], bool],
        secrets: TicketSecrets,
        capacity: int = 5000,
        spare: Callable[[str], bytes | None] = lambda name: None,
    ) -> None:
        self._directory = directory
        self._knows = knows
        self._secrets = secrets
        self._spare = spare
        self._capacity = capacity
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._missing: dict[str, float] = {}

    def begin(self, data: bytes, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject | None:
        """The connection that begins with `data`; None while its hello is not whole. Raises Refused, ssl.SSLError.

        `data` has gone into `incoming` when there is a connection.
        """
        try:
            hello = clienthello.read(data)
        except BadInput as error:
            raise Refused(_DECODE_ERROR) from error
        if hello is None:
            return None
        kept = self._of(hello.name)
        if hello.protocols is not None and _HTTP.encode() not in hello.protocols:
            raise Refused(_NO_APPLICATION_PROTOCOL)
        connection = kept.context.wrap_bio(incoming, outgoing, server_side=True)
        setattr(connection, SNI, hello.name)
        incoming.write(data)
        if kept.keys_before is not None and kept.keys_before[:_KEY_NAME] in data:
            self._open_with(kept.keys_before, kept, connection)
        return connection

    def _of(self, name: str) -> _Kept:
        try:
            kept = self._find(name) if name else None
        except Exception as error:
            log.exception("tls: certificate of %.100r", name)
            raise Refused(_INTERNAL_ERROR) from error
        if kept is None:
            raise Refused(_UNRECOGNIZED_NAME)
        if kept.tickets != self._secrets.version and openssl.available:
            kept.keys, kept.keys_before = self._secrets.of(name, openssl.TICKET_KEYS)
            openssl.set_ticket_keys(kept.context, kept.keys)
            kept.tickets = self._secrets.version
        return kept

    def _open_with(self, keys: bytes, kept: _Kept, connection: ssl.SSLObject) -> None:
        """The handshake's first step, which opens the ticket; the new ticket is made later, with the new keys."""
        openssl.set_ticket_keys(kept.context, keys)
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            pass
        finally:
            openssl.set_ticket_keys(kept.context, kept.keys)

    def context(self, name: str) -> ssl.SSLContext | None:
        """The context of a host of ours, or None."""
        kept = self._find(name)
        return None if kept is None else kept.context

    def _find(self, name: str) -> _Kept | None:
        now = time.monotonic()
        kept = self._kept.get(name)
        if kept is not None and now - kept.looked < _AGAIN:
            self._kept.move_to_end(name)
            return kept
        if not self._knows(name) or self._missing.get(name, 0.0) > now:
            return None
        return self._look(name, kept, now)

    def _look(self, name: str, kept: _Kept | None, now: float) -> _Kept | None:
        try:
            folder = (self._directory / name).resolve(strict=True)
            version = (str(folder), (folder / "fullchain.pem").stat().st_mtime_ns)
            if kept is None or kept.version != version:
                context = new_context()
                context.load_cert_chain(folder / "fullchain.pem", folder / "privkey.pem")
                kept = _Kept(context, version, now)
        except (OSError, ssl.SSLError) as error:
            if kept is None or kept.version[0] == _SPARE:
                kept = self._from_copy(name, kept, now)
            if kept is None:
                if len(self._missing) >= _MAX_MISSING:
                    self._missing.clear()
                self._missing[name] = now + _MISSING
                return None
            if kept.version[0] != _SPARE:
                log.warning("tls: %s: cannot read the certificate, serving the one before: %s", name, error)
        kept.looked = now
        self._kept[name] = kept
        self._kept.move_to_end(name)
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return kept

    def _from_copy(self, name: str, kept: _Kept | None, now: float) -> _Kept | None:
        pem = self._spare(name)
        if pem is None or (kept is not None and kept.version == (_SPARE, hash(pem))):
            return kept
        return _Kept(_from_memory(pem), (_SPARE, hash(pem)), now)


def _from_memory(pem: bytes) -> ssl.SSLContext:
    """Python reads certificates from files only, so they are given a file that is nowhere but in memory."""
    context = new_context()
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
