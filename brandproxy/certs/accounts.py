"""Accounts at CAs, shared by all control nodes: the key lies sealed in the store, made once under a lock.

A key roll-over survives a crash at any point: the next key is stored before the CA hears of it, and whichever
of the two the CA knows is the one that is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import TypeAdapter

from brandproxy.acme import Account, AcmeRefused, key_pem, new_key
from brandproxy.config import Certs
from brandproxy.errors import Locked
from brandproxy.store import Store, keys
from brandproxy.store.records import Unreadable
from brandproxy.store.seal import Seal

_RECORD = TypeAdapter(dict[str, str])


class Accounts:
    def __init__(self, store: Store, seal: Seal, settings: Certs) -> None:
        self._store, self._seal, self._settings = store, seal, settings
        self._open: dict[str, tuple[dict[str, str], Account]] = {}  # with the record it was opened by
        self._opening = asyncio.Lock()

    async def open(self, url: str) -> Account:
        """The account at this CA, made there and kept here when there is none. Raises AcmeAway, AcmeRefused."""
        async with self._opening:
            known = self._open.get(url)
            if known is None or known[0] != await self._record(url):  # another process gave it a new key
                known = self._open[url] = await self._opened(url)
            return known[1]

    def forget(self, url: str) -> None:
        """Open it anew next time: the CA no longer knows the account."""
        self._open.pop(url, None)

    async def roll_over(self, url: str) -> None:
        """Give the account a new key."""
        account = await self.open(url)
        async with self._locked(url):
            fresh = new_key()
            record = await self._record(url)
            await self._write(url, {"key": record["key"], "next": self._sealed(fresh)})
            await account.roll_over(fresh)
            await self._write(url, {"key": self._sealed(fresh)})

    def close(self) -> None:
        for _, account in self._open.values():
            account.close()

    async def _opened(self, url: str) -> tuple[dict[str, str], Account]:
        async with self._locked(url):
            account = await self._open_locked(url)
            return await self._record(url), account

    @asynccontextmanager
    async def _locked(self, url: str) -> AsyncIterator[None]:
        while True:
            try:
                async with self._store.lock(f"acme-account/{digest(url)}", ttl=60):
                    yield
                    return
            except Locked:
                await asyncio.sleep(0.2)  # another node is at it

    async def _open_locked(self, url: str) -> Account:
        record = await self._record(url)
        if not record:
            record = {"key": self._sealed(new_key())}
            await self._write(url, record)
        for name in ("next", "key"):
            if name in record:
                account = self._account(url, record[name])
                try:
                    await account.open(self._settings.contact, self._binding(), existing=name == "next")
                except AcmeRefused:
                    account.close()
                    if name == "next":  # the CA never heard of it
                        continue
                    raise
                if name == "next":
                    await self._write(url, {"key": record["next"]})
                return account
        raise AssertionError("a stored account has a key")

    def _account(self, url: str, sealed: str) -> Account:
        key = serialization.load_pem_private_key(self._seal.open(sealed.encode()), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        own = self._settings.acme_trust if url in (self._settings.ca, self._settings.fallback) else None
        return Account(url, key, own, threads=self._settings.parallel)

    def _binding(self) -> tuple[str, str] | None:
        key = self._settings.eab_key.get_secret_value()
        return (self._settings.eab_id, key) if self._settings.eab_id and key else None

    def _sealed(self, key: ec.EllipticCurvePrivateKey) -> str:
        return self._seal.seal(key_pem(key)).decode()

    async def _record(self, url: str) -> dict[str, str]:
        entry = await self._store.get(keys.acme("account", digest(url)))
        try:
            return {} if entry is None else _RECORD.validate_json(entry.value)
        except ValueError as error:
            raise Unreadable(f"the account at {url} cannot be read: {error}") from error

    async def _write(self, url: str, record: dict[str, str]) -> None:
        await self._store.put(keys.acme("account", digest(url)), json.dumps({"url": url, **record}).encode())


def digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]
