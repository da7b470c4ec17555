"""Floor 2, the stream of events between edges and collectors: a Redis Stream with one consumer group.

Invariants: the ranges of a segment enter the stream in order, without gap or overlap, because one script both
adds an entry and notes how far the segment has come; an entry leaves it only when the analytics engine has
stored it. Redis itself may lose any of this: the edges keep every segment until it is stored, and send again
from wherever Redis says it is. What is stored twice the engine counts once.

    {brandproxy-events}:stream      entries: v=1, s=segment id, a=first byte, e=end byte, r=records (see `pack`)
    {brandproxy-events}:at:SEGMENT  hash: sent, stored (bytes); forgotten 30 days after its last change

Full memory (`maxmemory`) or a stream of 20,000 entries refuse what is sent, never what is stored.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from brandproxy.errors import StoreUnavailable
from brandproxy.store.connect import FAULTS, away, close, connect

TAG = "{brandproxy-events}"
STREAM = f"{TAG}:stream"
GROUP = "collectors"
MOST = 20_000  # entries waiting; more stay in the edges' spools, where there is room

_KEPT = 30 * 86400  # seconds
_SIZE = struct.Struct(">I")
_VERSION = b"1"

# KEYS stream at; ARGV segment start end records -> how far the segment has been sent
_SEND = f"""#!lua
local sent = tonumber(redis.call('HGET', KEYS[2], 'sent') or '0')
if sent ~= tonumber(ARGV[2]) or redis.call('XLEN', KEYS[1]) >= {MOST} then return sent end
redis.call('XADD', KEYS[1], '*', 'v', '1', 's', ARGV[1], 'a', ARGV[2], 'e', ARGV[3], 'r', ARGV[4])
redis.call('HSET', KEYS[2], 'sent', ARGV[3])
redis.call('EXPIRE', KEYS[2], {_KEPT})
return tonumber(ARGV[3])
"""

# KEYS stream at; ARGV group id stored: the engine has the segment up to `stored`; the entry goes
_STORED = f"""#!lua flags=allow-oom
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
if tonumber(redis.call('HGET', KEYS[2], 'stored') or '0') < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[2], 'stored', ARGV[3])
  redis.call('EXPIRE', KEYS[2], {_KEPT})
end
return 1
"""

# KEYS stream at; ARGV group id stored: what lies before this entry got lost; let the edge send from `stored` on
_AGAIN = f"""#!lua flags=allow-oom
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], 'sent', ARGV[3], 'stored', ARGV[3])
redis.call('EXPIRE', KEYS[2], {_KEPT})
return 1
"""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One entry: the records of `segment` between two byte offsets."""

    id: bytes
    segment: str
    start: int
    end: int
    records: list[bytes]


class Stream:
    """Every method raises StoreUnavailable while Redis is away, loading or full."""

    def __init__(self, url: str, consumer: str = "") -> None:
        self._client = connect(url)
        self._consumer = consumer

    async def send(self, segment: str, start: int, end: int, records: Sequence[bytes]) -> int:
        """Add a range; how far the segment has been sent now. Not `end`: read on from there, or it is full."""
        return int(await self._script(_SEND, segment, segment, start, end, pack(records)))

    async def position(self, segment: str) -> tuple[int, int]:
        """How far the segment has been sent, and how far it is stored."""
        sent, stored = await self._ask("HMGET", _at(segment), "sent", "stored")
        return int(sent or 0), int(stored or 0)

    async def forget(self, segment: str) -> None:
        await self._ask("DEL", _at(segment))

    async def receive(self, count: int, wait_ms: int) -> list[Parcel]:
        """Entries nobody was given yet."""
        block = ("BLOCK", wait_ms) if wait_ms else ()
        command = ("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", count, *block)
        found = await self._ask_group(*command, "STREAMS", STREAM, ">")
        return _parcels(_entries(found))

    async def claim(self, idle_ms: int, count: int) -> list[Parcel]:
        """Entries that somebody (maybe this consumer) was given `idle_ms` ago and has not stored since."""
        answer = await self._ask_group("XAUTOCLAIM", STREAM, GROUP, self._consumer, idle_ms, "0-0", "COUNT", count)
        return _parcels(answer[1])

    async def stored(self, parcel: Parcel, end: int) -> None:
        await self._script(_STORED, parcel.segment, GROUP, parcel.id, end)

    async def again(self, parcel: Parcel, end: int) -> None:
        await self._script(_AGAIN, parcel.segment, GROUP, parcel.id, end)

    async def waiting(self) -> int:
        return int(await self._ask("XLEN", STREAM))

    async def leave(self) -> None:
        """Go in good order; what this consumer still holds is claimed by the others."""
        await close(self._client)

    async def _ask_group(self, *command: str | bytes | int) -> Any:
        """Ask, and make the group when there is none: first of all collectors, or Redis lost it. Not before
        asking: with memory full it could not be made, nor need it be."""
        try:
            return await self._ask(*command)
        except StoreUnavailable as error:
            if not str(error.__cause__).startswith("NOGROUP"):
                raise
        try:
            await self._ask("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")
        except StoreUnavailable as error:
            if not str(error.__cause__).startswith("BUSYGROUP"):
                raise
        return await self._ask(*command)

    async def _script(self, text: str, segment: str, *args: str | bytes | int) -> Any:
        return await self._ask("EVAL", text, 2, STREAM, _at(segment), *args)

    async def _ask(self, *command: str | bytes | int) -> Any:
        try:
            return await self._client.execute_command(*command)
        except FAULTS as error:
            raise away("events on Redis", error) from error


def pack(records: Sequence[bytes]) -> bytes:
    """Records with their lengths (u32, big-endian), deflated: event records repeat each other."""
    return zlib.compress(b"".join(_SIZE.pack(len(record)) + record for record in records), 1)


def unpack(packed: bytes) -> list[bytes]:
    data, at, records = zlib.decompress(packed), 0, []
    while at < len(data):
        (size,) = _SIZE.unpack_from(data, at)
        records.append(data[at + _SIZE.size : at + _SIZE.size + size])
        at += _SIZE.size + size
    return records


def _at(segment: str) -> str:
    return f"{TAG}:at:{segment}"


def _entries(answer: Any) -> list[Any]:
    """The entries of a reading answer, whatever shape the client gives it for one stream."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [entry for group in answer[STREAM.encode()] for entry in group]
    return list(answer[0][1])


def _parcels(entries: Sequence[Any]) -> list[Parcel]:
    found = []
    for number, fields in entries:
        if not fields:
            continue  # claimed, but removed meanwhile
        pairs = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
        if pairs.get(b"v") != _VERSION:
            continue  # of a newer version: left for its collectors
        records = unpack(pairs[b"r"])
        found.append(Parcel(number, pairs[b"s"].decode(), int(pairs[b"a"]), int(pairs[b"e"]), records))
    return found
