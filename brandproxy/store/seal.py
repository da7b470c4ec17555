"""Secrets at rest: what the store keeps of keys is sealed under the operator's master key (Fernet).

The master key comes from the settings (one or several keys separated by commas, the first seals, all open, so
that it can be rotated); with none set, one is made in the data directory, 0600.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from brandproxy.config import Settings
from brandproxy.errors import BadSettings
from brandproxy.store.base import Entry, Store

_TOKEN = re.compile(rb"gAAAA[A-Za-z0-9_-]{90,}={0,2}")


class Seal:
    def __init__(self, keys: str) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.split(",")])
        except ValueError as error:
            raise BadSettings(
                "the master key is not 32 bytes in base64url",
                'Make one: python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key())"',
            ) from error

    def seal(self, secret: bytes) -> bytes:
        return self._fernet.encrypt(secret)

    def open(self, sealed: bytes) -> bytes:
        """Raises BadSettings when no key in force opens it."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as error:
            raise BadSettings(
                "a sealed record cannot be opened with the master key in force",
                "Set BRANDPROXY_MASTER_KEY to the key it was sealed with (old keys behind a comma).",
            ) from error


def open_seal(settings: Settings) -> Seal:
    """The seal of this installation; makes `master.key` in the data directory when there is no key yet."""
    given = settings.master_key.get_secret_value()
    return Seal(given or _local_key(settings.data / "master.key"))


async def reseal(store: Store, seal: Seal) -> int:
    """Seal every secret in the store anew under the first master key; how many values changed.

    Afterwards the old keys can go. A secret is found by its shape (Fernet tokens begin with gAAAA), wherever it
    stands in a value. Raises BadSettings when one opens with no key in force.
    """

    def anew(match: re.Match[bytes]) -> bytes:
        return seal.seal(seal.open(match[0]))

    changed = 0
    for listed in await store.list(""):
        entry: Entry | None = listed
        while entry is not None and _TOKEN.search(entry.value):
            if await store.replace(entry.key, _TOKEN.sub(anew, entry.value), entry.version):
                changed += 1
                break
            entry = await store.get(entry.key)  # somebody wrote meanwhile
    return changed


def _local_key(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    if not path.exists():
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(Fernet.generate_key())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # atomic, and never over another process's key
        except FileExistsError:
            pass
        os.unlink(fresh)
    return path.read_text().strip()
