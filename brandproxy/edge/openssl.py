"""What OpenSSL can and Python's `ssl` has no call for: ticket keys, key exchange groups, the session cache.

Each is one documented `SSL_CTX_ctrl` (its numbers are part of OpenSSL's ABI), on the library that Python's own
`_ssl` is linked with; the context is the first field behind the object header of `ssl.SSLContext`. Where a Python
is built so that this cannot be reached, `available` is False, and contexts then give out no tickets at all.
"""

from __future__ import annotations

import ctypes
import logging
import os
import ssl

log = logging.getLogger(__name__)

TICKET_KEYS = 80  # bytes: name 16, HMAC key 32, AES key 32 (SSL_CTX_set_tlsext_ticket_keys)
# What Mozilla's "intermediate" configuration lists, with its post-quantum hybrid where OpenSSL knows it (3.5).
_GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
_CACHE_MODE, _SET_KEYS, _GET_KEYS, _SET_GROUPS = 44, 59, 58, 92


def _control() -> ctypes._NamedFuncPointer | None:
    try:
        import _ssl

        function = ctypes.CDLL(_ssl.__file__).SSL_CTX_ctrl
    except (ImportError, AttributeError, OSError):
        return None
    function.restype = ctypes.c_long
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p]
    return function


_ctrl = _control()


def _ask(context: ssl.SSLContext, command: int, number: int, data: bytes | ctypes.Array[ctypes.c_char]) -> int:
    assert _ctrl is not None
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    return int(_ctrl(pointer, command, number, data))


def set_ticket_keys(context: ssl.SSLContext, keys: bytes) -> None:
    """Encrypt new tickets with `keys` (80 bytes), and take only those that were encrypted with them."""
    _ask(context, _SET_KEYS, TICKET_KEYS, keys)


def harden(context: ssl.SSLContext) -> None:
    """Groups, and no session cache of its own; no tickets either where that is impossible."""
    if not available:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        return
    if not any(_ask(context, _SET_GROUPS, 0, groups) == 1 for groups in _GROUPS):
        log.warning("tls: OpenSSL takes no list of groups; its own stays")
    _ask(context, _CACHE_MODE, 0, b"")


def _works() -> bool:
    """Whether keys that are set come back: the proof that the context is where we think it is."""
    if _ctrl is None:
        return False
    context, keys = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), os.urandom(TICKET_KEYS)
    back = ctypes.create_string_buffer(TICKET_KEYS)
    set_ticket_keys(context, keys)
    return _ask(context, _GET_KEYS, TICKET_KEYS, back) == 1 and back.raw == keys


available = _works()
