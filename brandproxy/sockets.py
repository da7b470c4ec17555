"""Floor 3: listening sockets, at `host:port`, `[::1]:port` or `unix:PATH`; `[::]:port` takes IPv4 as well."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from brandproxy.errors import BadSettings
from brandproxy.setting_values import UNIX as UNIX
from brandproxy.setting_values import ListenAddress


def plain(address: str) -> str:
    """An IPv4 client's address as such, where a socket for both families shows it as `::ffff:192.0.2.1`."""
    return address.removeprefix("::ffff:")


def bind(address: str, backlog: int) -> socket.socket:
    """A listening socket that does not block. Raises BadSettings when the address is taken, or none of ours."""
    try:
        return _bind(address, backlog)
    except (OSError, ValueError) as error:
        raise BadSettings(f"cannot listen at {address}: {error}") from error


def _bind(address: str, backlog: int) -> socket.socket:
    where = ListenAddress(address)
    if where.path is not None:
        bound = _bind_unix(where.path, backlog)
    else:
        host, port = where.host, where.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()
        bound = socket.create_server((host, port), family=family, backlog=backlog, dualstack_ipv6=both)
    bound.setblocking(False)
    return bound


def remove_dead(path: Path) -> None:
    """Remove the socket file a killed process left; one that is answered at stays, and listening there fails."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _bind_unix(path: Path, backlog: int) -> socket.socket:
    remove_dead(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o117)  # 0660: who connects is trusted, and reaches it through its group
        try:
            bound.bind(str(path))
        finally:
            os.umask(before)
        bound.listen(backlog)
    except OSError:
        bound.close()
        raise
    return bound
