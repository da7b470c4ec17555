"""What `config check` looks at beyond the settings' own form: files they name, addresses they listen at."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from brandproxy import data_directory
from brandproxy.config import Settings
from brandproxy.core.networks import Networks
from brandproxy.errors import BadInput, BadSettings
from brandproxy.grants import listener
from brandproxy.setting_sources import source
from brandproxy.setting_values import ListenAddress


def check(settings: Settings) -> None:
    """Raises BadSettings for what a role would refuse at its start."""
    data_directory.check(settings.data)
    _reads(
        "edge.machine_networks",
        settings.edge.machine_networks,
        lambda path: Networks(path.read_text().splitlines()),
    )
    _reads("mail.certificate", settings.mail.certificate, _certificate)
    _reads("certs.acme_trust", settings.certs.acme_trust, lambda path: ssl.create_default_context(cafile=path))
    _reads("analytics.geoip", settings.analytics.geoip, _geoip)
    for name, address in _addresses(settings):
        _listens(name, ListenAddress(address))


def _addresses(settings: Settings) -> list[tuple[str, str]]:
    edge, control, mail = settings.edge, settings.control, settings.mail
    named = {
        "edge.http": edge.http, "edge.https": edge.https, "control.listen": control.listen,
        "control.public_listen": control.public_listen, "metrics.listen": settings.metrics.listen,
        "mail.milter": mail.milter, "mail.smtp": mail.smtp, "mail.smtps": mail.smtps, "mail.lmtp": mail.lmtp,
    }  # fmt: skip
    found = [*named.items(), *(("mail.listeners", listener(name)[1]) for name in mail.listeners)]
    return [(name, address) for name, address in found if address]


def _reads(name: str, path: Path | None, read: Callable[[Path], object]) -> None:
    if path is None:
        return
    if not path.is_file():
        raise BadSettings(f"{name} ({source(name)}): no file {path}")
    try:
        read(path)
    except (OSError, ValueError, BadInput) as error:
        raise BadSettings(f"{name} ({source(name)}): {path}: {error}") from error


def _certificate(path: Path) -> None:
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)


def _geoip(path: Path) -> None:
    import maxminddb

    try:
        with path.open("rb") as file:  # handed over by us, since a file that is none of its would stay open
            maxminddb.open_database(file, maxminddb.MODE_FD).close()
    except maxminddb.InvalidDatabaseError as error:
        raise ValueError(str(error)) from error


def _listens(name: str, where: ListenAddress) -> None:
    """Whether the address is this machine's; the port may be in use, by the very server that is checked."""
    try:
        if where.path is not None:
            if not where.path.parent.is_dir() or not os.access(where.path.parent, os.W_OK):
                raise OSError(f"{where.path.parent} is no directory that we may write to")
            return
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.bind((where.host, 0))
    except OSError as error:
        raise BadSettings(
            f"{name} ({source(name)}): cannot listen at {where}: {error.strerror or error}",
            "Write an address of this machine, or 0.0.0.0 for all.",
        ) from error
