"""The certificate book: SNI name to certificate, from local disk, inside the handshake.

Invariants: a handshake never waits for the network; a name from the wire is looked up in the
directory before it is part of a path, so only names of hosts we have are ever read; an unknown name is refused
(there is no default certificate); a pair that cannot be read never replaces one that serves.

What is not on disk yet, or was torn there by a power cut, is taken from the node's own copy of the store
(`spare`): a new node answers for a hundred thousand hosts before a file of theirs is written.

A context costs about 24 KiB and 0.7 ms to build, so `capacity` of them are kept, the least recently used going
first. Files are looked at again at most once a second per name: a renewed certificate serves new handshakes
within that second, connections that are open go on. Tickets are the base context's, made before the fork, and so
resume in every worker (RFC 8446 §2.2).
"""

from __future__ import annotations

import logging
import os
import ssl
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_AGAIN = 1.0  # seconds between looks at the files of one name
_MISSING = 0.2  # seconds a name without a readable certificate is refused unseen
_MAX_MISSING = 10_000  # names without a readable certificate that are remembered
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # forward secret and authenticated; TLS 1.3 has its own list

_SPARE = "spare"  # in place of the folder, for a certificate that came from no file

SNI = "brandproxy_sni"  # attribute of the SSLObject that carries the accepted name


@dataclass(slots=True)
class _Kept:
    context: ssl.SSLContext
    version: tuple[str, int]
    looked: float


def base_context() -> ssl.SSLContext:
    """The context a listener is opened with; holds the ticket keys, no certificate. Make it before the fork."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 1  # a click opens one connection; OpenSSL's two cost 15 us more a handshake
    # Every cipher offered is good; the client knows which one its processor is fast at.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Python refuses a name that is not ASCII before it asks us, and prints so: a line for anybody who likes."""
    if not (isinstance(what.object, bytes) and isinstance(what.exc_value, UnicodeDecodeError)):
        sys.__unraisablehook__(what)


class Book:
    """`knows` says whether a name is a host of ours; `spare` has chain and key (PEM) of one not on disk."""

    def __init__(
        self,
        directory: Path,
        knows: Callable[[str], bool],
        capacity: int = 5000,
        spare: Callable[[str], bytes | None] = lambda name: None,
    ) -> None:
        self._directory = directory
        self._knows = knows
        self._spare = spare
        self._capacity = capacity
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._missing: dict[str, float] = {}

    def attach(self, base: ssl.SSLContext) -> None:
        base.sni_callback = self._choose
        sys.unraisablehook = _unraisable

    def context(self, name: str) -> ssl.SSLContext | None:
        """The context of a host of ours, or None."""
        now = time.monotonic()
        kept = self._kept.get(name)
        if kept is not None and now - kept.looked < _AGAIN:
            self._kept.move_to_end(name)
            return kept.context
        if not self._knows(name) or self._missing.get(name, 0.0) > now:
            return None
        return self._look(name, kept, now)

    def _choose(
        self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext
    ) -> int | None:  # called by OpenSSL
        try:
            found = self.context(name.lower()) if name else None
        except Exception:
            log.exception("tls: certificate of %.100r", name)
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        if found is None or name is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = found
        setattr(connection, SNI, name.lower())
        return None

    def _look(self, name: str, kept: _Kept | None, now: float) -> ssl.SSLContext | None:
        try:
            folder = (self._directory / name).resolve(strict=True)
            version = (str(folder), (folder / "fullchain.pem").stat().st_mtime_ns)
            if kept is None or kept.version != version:
                context = base_context()
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
        return kept.context

    def _from_copy(self, name: str, kept: _Kept | None, now: float) -> _Kept | None:
        pem = self._spare(name)
        if pem is None or (kept is not None and kept.version == (_SPARE, hash(pem))):
            return kept
        return _Kept(_from_memory(pem), (_SPARE, hash(pem)), now)


def _from_memory(pem: bytes) -> ssl.SSLContext:
    """Python reads certificates from files only, so they are given a file that is nowhere but in memory."""
    context = base_context()
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
