"""The store's certificates on local disk, where the edge (and nginx or HAProxy) reads them.

    <certs>/<host>                       a symbolic link, swapped atomically, to
    <certs>/.versions/<host>.<digest>/   fullchain.pem and privkey.pem (0600), never changed once there

Invariant: a chain and a key in one folder belong together, at every instant and after every crash. A reader
that must not mix two versions resolves the link once (`pair`) and reads both files of the folder it got; the
version before stays until the next one. A version is named after its chain, whose leaf names the key, so what is
there already is known without opening a seal. A real folder under a host's name is the operator's own: left alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

from brandproxy.certs.vault import Certificate, Vault, chain_of
from brandproxy.context import Context
from brandproxy.errors import BrandproxyError, Retryable
from brandproxy.store import Store, keys, local_file
from brandproxy.store.base import CursorLost
from brandproxy.store.files import Reader
from brandproxy.store.seal import open_seal

log = logging.getLogger(__name__)

_BATCH = 5000  # certificates of one sync
_RETRY = 5.0  # seconds until a failed copy (disk full, store away) is tried again
CHAIN, KEY = "fullchain.pem", "privkey.pem"


async def mirror(context: Context, changed: Callable[[str], None] | None = None) -> None:
    """Keep the folder like the store, for ever. `changed(host)` is called after each swap or removal.

    Starts with a full copy; then follows the change feed. A store that is away or a full disk leaves what is
    there as it is and is tried again.
    """
    vault = Vault(context.store, open_seal(context.settings))
    folder = Folder(context.settings.certs_directory, changed or (lambda host: None))
    while True:
        try:
            cursor = await context.store.cursor()
            await copy(vault, folder)
            await _follow(context.store, cursor, vault, folder)
        except CursorLost:
            continue
        except (Retryable, OSError) as error:
            log.warning("certificates: copy failed, serving what is there: %s", error)
            await asyncio.sleep(_RETRY)


def spare(context: Context) -> Callable[[str], bytes | None]:
    """Chain and key (PEM) of a host from this node's own copy of the store, for a handshake that finds no file:
    on a new node, after a move, or after a power cut that tore one. Never waits for more than the local disk."""
    settings = context.settings
    reader = Reader(local_file(settings.store, settings.data))
    vault = Vault(context.store, open_seal(settings))

    def look(host: str) -> bytes | None:
        try:
            value = reader.get(keys.cert(host))
            found = vault.decode(host, value) if value else None
        except BrandproxyError as error:
            log.warning("certificates: %s cannot be taken from the local copy: %s", host, error)
            return None
        return found.chain.encode() + found.key if found else None

    return look


async def copy(vault: Vault, folder: Folder) -> None:
    """One full copy, removals too. Raises OSError, Retryable."""
    records = await vault.everything()
    for at in range(0, len(records), _BATCH):
        await asyncio.to_thread(_apply_many, vault, folder, records[at : at + _BATCH])
    await asyncio.to_thread(folder.keep_only, {host for host, _ in records})


def _apply_many(vault: Vault, folder: Folder, records: Sequence[tuple[str, bytes]]) -> None:
    certificates = []
    for host, value in records:
        try:
            if not folder.has(host, chain_of(value)):
                certificates.append(vault.decode(host, value))
        except BrandproxyError:
            log.exception("certificates: unreadable record of %s, serving what is there", host)
    folder.write_all(certificates)


async def _follow(store: Store, cursor: str, vault: Vault, folder: Folder) -> None:
    async for change in store.watch(keys.CERT, cursor):
        await _apply(vault, folder, change.key.removeprefix(keys.CERT), change.value)


async def _apply(vault: Vault, folder: Folder, host: str, value: bytes | None) -> None:
    try:
        if value is None:
            await asyncio.to_thread(folder.remove, host)
        else:
            await asyncio.to_thread(folder.write, vault.decode(host, value))
    except BrandproxyError:
        log.exception("certificates: unreadable record of %s, serving what is there", host)


def pair(directory: Path, host: str) -> tuple[Path, Path]:
    """The two files of one version: (fullchain.pem, privkey.pem). Raises FileNotFoundError."""
    folder = (directory / host).resolve(strict=True)
    return folder / CHAIN, folder / KEY


class Folder:
    """The local copy. Its methods block (file system); call them off the event loop."""

    def __init__(self, directory: Path, changed: Callable[[str], None]) -> None:
        self._directory = directory
        self._versions = directory / ".versions"
        self._changed = changed

    def has(self, host: str, chain: str) -> bool:
        """Whether this version is in place already."""
        try:
            return os.readlink(f"{self._directory}/{host}") == f".versions/{_name(host, chain)}" and (
                os.path.isdir(f"{self._directory}/{host}")
            )
        except OSError:
            return False

    def write(self, certificate: Certificate) -> None:
        self.write_all([certificate])

    def write_all(self, certificates: Sequence[Certificate]) -> None:
        """Put versions beside the present ones, then swap the links. Nothing is done for those there already.

        Many share one sync of the disk: a new node with 100,000 certificates would wait half an hour for theirs.
        """
        wanted = [c for c in certificates if not self.has(c.host, c.chain) and not self._operators_own(c.host)]
        if not wanted:
            return
        self._versions.mkdir(parents=True, exist_ok=True, mode=0o700)
        alone = len(wanted) == 1
        names = [self._prepare(certificate, alone) for certificate in wanted]
        if not alone:
            os.sync()
        for certificate, name in zip(wanted, names, strict=True):
            self._swap(certificate.host, name)

    def _operators_own(self, host: str) -> bool:
        link = self._directory / host
        if link.is_symlink() or not link.is_dir():
            return False
        log.error("certificates: %s is a real folder, so it is left alone", link)
        return True

    def _prepare(self, certificate: Certificate, sync: bool) -> str:
        """The name of the version to swap to, written."""
        name = _name(certificate.host, certificate.chain)
        version = self._versions / name
        if not version.is_dir():
            self._make(version, certificate, sync)
        return name

    def _swap(self, host: str, name: str) -> None:
        link = f"{self._directory}/{host}"
        try:
            before = os.readlink(link)
        except OSError:
            before = ""
        fresh = f"{self._directory}/.{uuid4().hex}"
        os.symlink(f".versions/{name}", fresh)
        os.replace(fresh, link)
        if before:  # looking through all versions is not free
            self._forget(host, {name, Path(before).name})
        self._changed(host)

    def remove(self, host: str) -> None:
        link = self._directory / host
        if link.is_symlink():
            link.unlink()
            self._changed(host)
        self._forget(host, set())

    def keep_only(self, hosts: set[str]) -> None:
        if not self._directory.is_dir():
            return
        for path in self._directory.iterdir():
            if path.is_symlink() and not path.name.startswith(".") and path.name not in hosts:
                self.remove(path.name)

    def _make(self, version: Path, certificate: Certificate, sync: bool) -> None:
        fresh = f"{self._versions}/.{uuid4().hex}"
        os.mkdir(fresh, 0o700)
        try:
            _write(f"{fresh}/{CHAIN}", certificate.chain.encode(), sync)
            _write(f"{fresh}/{KEY}", certificate.key, sync)
            os.link(f"{fresh}/{KEY}", f"{fresh}/{CHAIN}.key")  # where HAProxy looks for the key of a chain
            if sync:
                _sync(fresh)
            os.rename(fresh, version)
            if sync:
                _sync(self._versions)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            if not version.is_dir():  # another process of this machine made the same one meanwhile
                raise

    def _forget(self, host: str, kept: set[str]) -> None:
        for path in self._versions.glob(f"{host}.*"):
            if path.name not in kept and path.name.rpartition(".")[0] == host:
                shutil.rmtree(path, ignore_errors=True)


def _name(host: str, chain: str) -> str:
    return f"{host}.{hashlib.sha256(chain.encode()).hexdigest()[:24]}"


def _write(path: str, content: bytes, sync: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: str | Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
