"""The store of a fleet: Redis 7 or newer (or Valkey), alone, behind Sentinel, or as a cluster.

Invariant: an entry and its place in the feed are written by one script, so whoever follows the feed from a
cursor it still holds has seen every write. `scripts` tells what is kept where.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any
from uuid import uuid4

from redis.exceptions import NoScriptError, ResponseError

from brandproxy.errors import BadSettings, Locked, StoreUnavailable
from brandproxy.store import scripts
from brandproxy.store.base import Change, CursorLost, Entry, Lease, LockLost, check
from brandproxy.store.connect import FAULTS, away, close, connect, parse
from brandproxy.store.lease import Guard, guards, held
from brandproxy.store.scripts import CLOCK, ENTRY, FEED, FORMAT, INDEX, TAG

_ALL = (CLOCK, ENTRY, INDEX, FEED)
_FORMAT = b"1"
_PAGE = 500  # entries an answer of Redis carries at most; larger ones hold up its other clients
_AT_ONCE = 32  # commands in flight, each on a connection of its own; more would wait in Redis anyway
_WAIT_MS = 1000  # a blocking look at the feed; below the client's time-out


class RedisStore:
    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._replicas = int(parse(url).query.get("replicas", "0"))
        self._hashes: dict[str, str] = {}
        self._ready = False
        self._preparing = asyncio.Lock()
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def get(self, key: str) -> Entry | None:
        check(key)
        found = await self._ask("HGET", ENTRY, key.encode())
        return _entry(key.encode(), found) if found is not None else None

    async def list(self, prefix: str) -> list[Entry]:
        start, found = b"[" + prefix.encode(), list[Entry]()
        end = b"(" + prefix.encode() + b"\xff" if prefix else b"+"  # UTF-8 never has the byte FF
        while True:
            flat = await self._script(scripts.LIST, (ENTRY, INDEX), (start, end, _PAGE))
            found += [_entry(key, value) for key, value in zip(flat[::2], flat[1::2], strict=True)]
            if len(flat) < 2 * _PAGE:
                return found
            start = b"(" + flat[-2]

    async def create(self, key: str, value: bytes) -> bool:
        return await self._write(key, value, "create") is not None

    async def put(self, key: str, value: bytes) -> int:
        return int(await self._write(key, value, "put") or 0)

    async def replace(self, key: str, value: bytes, version: int) -> bool:
        return await self._write(key, value, "replace", version) is not None

    async def delete(self, key: str, version: int | None = None) -> bool:
        check(key)
        at = "" if version is None else str(version)
        return await self._change(scripts.DELETE, key.encode(), at) is not None

    @asynccontextmanager
    async def lock(self, name: str, ttl: float = 30.0) -> AsyncIterator[Lease]:
        check(name)
        holder, place, ms = uuid4().hex, _lock(name), max(1, int(ttl * 1000))
        fence = await self._script(scripts.LOCK, (CLOCK, place), (holder, ms))
        if fence is None:
            raise Locked(f"lock {name!r} is held")

        async def renew() -> bool:
            return bool(await self._script(scripts.RENEW, (place,), (holder, ms)))

        async def release() -> object:
            return await self._script(scripts.RELEASE, (place,), (holder,))

        async with held(Guard(self, name, holder), Lease(name, int(fence)), ttl, renew, release) as lease:
            yield lease

    async def cursor(self) -> str:
        found: bytes = await self._script(scripts.CURSOR, _ALL, ())
        return found.decode()

    async def watch(self, prefix: str, cursor: str) -> AsyncIterator[Change]:
        while True:
            flat = await self._script(scripts.CHANGES, (ENTRY, FEED), (cursor, _PAGE))
            if flat is None:
                raise CursorLost(f"the feed no longer holds change {cursor}")
            for at, key, packed in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
                cursor = at.decode()
                if key and key.startswith(prefix.encode()):
                    yield Change(cursor, key.decode(), None if packed is None else _entry(key, packed).value)
            if not flat:  # only wakes us; what is new is read by the script, which also checks the cursor
                await self._ask("XREAD", "COUNT", 1, "BLOCK", _WAIT_MS, "STREAMS", FEED, cursor)

    async def close(self) -> None:
        await close(self._client)

    async def _write(self, key: str, value: bytes, mode: str, version: int = 0) -> bytes | None:
        check(key, value)
        found: bytes | None = await self._change(scripts.WRITE, key.encode(), value, mode, version)
        return found

    async def _change(self, text: str, *args: str | bytes | int) -> Any:
        """A script that writes; only while every lock of the block that asks is held."""
        needed = guards(self)
        locks, holders = [_lock(guard.lock) for guard in needed], [guard.holder for guard in needed]
        try:
            return await self._script(text, (*_ALL, *locks), (*args, *holders), self._replicas)
        except StoreUnavailable as error:
            if str(error.__cause__).startswith(scripts.FENCED):
                raise LockLost("a lock is not held any more, so nothing was written") from error
            raise

    async def _script(
        self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int], replicas: int = 0
    ) -> Any:
        digest = self._hashes.get(text)
        if digest is None:
            digest = self._hashes[text] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self._ask("EVALSHA", digest, len(keys), *keys, *args, replicas=replicas)
        except NoScriptError:  # first use, or the server was restarted or replaced
            return await self._ask("EVAL", text, len(keys), *keys, *args, replicas=replicas)

    async def _ask(self, *command: str | bytes | int, replicas: int = 0) -> Any:
        try:
            async with nullcontext() if command[0] == "XREAD" else self._room:
                if not self._ready:
                    await self._check_server()
                if replicas:
                    return await self._ask_replicated(command, replicas)
                return await self._client.execute_command(*command)
        except NoScriptError:
            raise
        except FAULTS as error:
            raise away("store on Redis", error) from error

    async def _ask_replicated(self, command: Sequence[str | bytes | int], wanted: int) -> Any:
        """A write that a fail-over must not lose: Sentinel makes the replica master that has the most."""
        async with self._client.pipeline(transaction=False) as both:  # WAIT counts for its own connection only
            both.execute_command(*command)
            both.execute_command("WAIT", wanted, _WAIT_MS)
            answer, reached = await both.execute(raise_on_error=False)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None and reached < wanted:
            raise StoreUnavailable(
                f"store on Redis: the change reached {reached} of {wanted} replicas",
                "It may stand or be lost in a fail-over: look, and make it again. Check the replicas.",
            )
        return answer

    async def _check_server(self) -> None:
        """Once per process: a server that throws entries away, or whose entries we cannot read, is refused."""
        async with self._preparing:
            if self._ready:
                return
            await self._client.initialize()  # a cluster's client sends what comes before to any node
            found = await self._client.get(FORMAT)
            if found is None:
                await self._client.set(FORMAT, _FORMAT, nx=True)
            elif found != _FORMAT:
                raise BadSettings(
                    f"the store has format {found!r}; this version reads {_FORMAT!r}", "Upgrade this node."
                )
            await self._check_eviction()
            self._ready = True

    async def _check_eviction(self) -> None:
        with suppress(ResponseError):  # the user may not ask; then the manual has to do
            found = await self._client.info("memory")
            if str(found.get("maxmemory_policy", "")).startswith("allkeys"):
                raise BadSettings(
                    "this Redis throws entries away when its memory is full", "Set maxmemory-policy noeviction."
                )


def _lock(name: str) -> str:
    return f"{TAG}:lock:{name}"


def _entry(key: bytes, packed: bytes) -> Entry:
    version, _, value = packed.partition(b":")
    return Entry(key.decode(), value, int(version))
