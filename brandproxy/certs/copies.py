"""The store's certificates on local disk, where the edge (and nginx or HAProxy) reads them.

    <certs>/<host>                       a symbolic link, swapped atomically, to
    <certs>/.versions/<host>.<digest>/   fullchain.pem and privkey.pem (0600), never changed once there

Invariant: a chain and a key in one folder belong together, at every instant and after every crash. A reader
that must not mix two versions resolves the link once (`pair`) and reads both files of the folder it got; the
version before stays until the next one. A real folder under a host's name is the operator's own: left alone.
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

from brandproxy.certs.vault import Certificate, Vault
from brandproxy.context import Context
from brandproxy.errors import BrandproxyError, Retryable
from brandproxy.store import Store, keys
from brandproxy.store.base import CursorLost
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


async def first_copy(context: Context, patience: float = 45.0) -> None:
    """What an edge does before it answers: after a restart or a move, no handshake finds its certificate missing.

    Ends after `patience` seconds, or with the store away, all the same: `mirror` goes on from what is there.
    """
    vault = Vault(context.store, open_seal(context.settings))
    try:
        async with asyncio.timeout(patience):
            await copy(vault, Folder(context.settings.certs_directory, lambda host: None))
    except (Retryable, OSError) as error:
        log.warning("certificates: no first copy, serving what is there: %s", error)


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

    def write(self, certificate: Certificate) -> None:
        self.write_all([certificate])

    def write_all(self, certificates: Sequence[Certificate]) -> None:
        """Put versions beside the present ones, then swap the links. Nothing is done for those there already.

        Many share one sync of the disk: a new node with 100,000 certificates would wait half an hour for theirs.
        """
        alone = len(certificates) == 1
        names = [self._prepare(certificate, alone) for certificate in certificates]
        if not alone and any(names):
            os.sync()
        for certificate, name in zip(certificates, names, strict=True):
            if name:
                self._swap(certificate.host, name)

    def _prepare(self, certificate: Certificate, sync: bool) -> str:
        """The name of the version to swap to, written; empty when there is nothing to do."""
        text = certificate.chain.encode() + certificate.key
        name = f"{certificate.host}.{hashlib.sha256(text).hexdigest()[:24]}"
        link, version = self._directory / certificate.host, self._versions / name
        if link.is_dir() and not link.is_symlink():
            log.error("certificates: %s is a real folder, so it is left alone", link)
            return ""
        if link.is_symlink() and os.readlink(link) == f".versions/{name}" and version.is_dir():
            return ""
        self._versions.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not version.is_dir():
            self._make(version, certificate, sync)
        return name

    def _swap(self, host: str, name: str) -> None:
        link = self._directory / host
        before = os.readlink(link) if link.is_symlink() else ""
        fresh = self._directory / f".{uuid4().hex}"
        fresh.symlink_to(f".versions/{name}")
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
        fresh = self._versions / f".{uuid4().hex}"
        fresh.mkdir(mode=0o700)
        try:
            _write(fresh / CHAIN, certificate.chain.encode(), sync)
            _write(fresh / KEY, certificate.key, sync)
            (fresh / f"{CHAIN}.key").symlink_to(KEY)  # where HAProxy looks for the key of a chain
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


def _write(path: Path, content: bytes, sync: bool) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
