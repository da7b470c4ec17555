"""The file format of segments, and the reading side. All functions block: call them off the event loop."""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from brandproxy.errors import BadInput

log = logging.getLogger(__name__)

HEADER = b"bpspool\x01"  # the last byte is the format version
MAX_RECORD = 1 << 20

_FRAME = struct.Struct(">HII")
_MAGIC = 0xB5E7
_MAGIC_BYTES = struct.pack(">H", _MAGIC)
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Segment:
    """`id` is unique among all writers and nodes and sorts by creation. `sealed`: nothing will be added."""

    id: str
    path: Path
    sealed: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one segment between two byte offsets; read on from `end`."""

    records: list[bytes]
    start: int
    end: int


def segments(directory: Path) -> list[Segment]:
    """All segments, oldest first. Blocking, as are `read` and `remove`."""
    try:
        names = sorted(entry.name for entry in os.scandir(directory))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        if not name.endswith(".seg") or name.startswith("."):
            continue
        sealed = _is_sealed(directory / name)
        if sealed is not None:
            found.append(Segment(name.removesuffix(".seg"), directory / name, sealed))
    return found


def read(segment: Segment, offset: int = 0, limit: int = 10_000) -> Batch:
    """Up to `limit` records from byte `offset` on (0: the first record).

    No records from a sealed segment means it is read to its end and may be removed; from an active one, that
    nothing more is there yet. Raises BadInput for a file of a format this version does not know.
    """
    start = max(offset, len(HEADER))
    with segment.path.open("rb") as file:
        if file.read(len(HEADER)) != HEADER:
            if segment.sealed and segment.path.stat().st_size < len(HEADER):
                return Batch([], start, start)  # power went before its first commit
            raise BadInput(f"{segment.path} is no spool segment of a known version")
        file.seek(start)
        records, size = _take(file.read(_CHUNK), limit)
        while len(records) < limit:
            file.seek(start + size)
            more, step = _take(file.read(_CHUNK + MAX_RECORD), limit - len(records))
            if not more and segment.sealed:
                file.seek(start + size)
                step = _skip(segment, file.read(), start + size)
            if not step:
                break
            records += more
            size += step
    return Batch(records, start, start + size)


def remove(segment: Segment) -> None:
    """Delete a shipped segment; repeating it is harmless. Raises BadInput while its writer may still append."""
    if not segment.sealed:
        raise BadInput(f"segment {segment.id} is still being written")
    segment.path.unlink(missing_ok=True)


def frame(record: bytes) -> bytes:
    return _FRAME.pack(_MAGIC, len(record), zlib.crc32(record)) + record


def size(record: bytes) -> int:
    """The bytes a record takes in a segment."""
    return _FRAME.size + len(record)


def _take(data: bytes, limit: int) -> tuple[list[bytes], int]:
    """Up to `limit` whole valid records from the start of `data`, and the bytes they take."""
    records: list[bytes] = []
    at = 0
    while len(records) < limit and (size := _record_size(data, at)):
        records.append(data[at + _FRAME.size : at + size])
        at += size
    return records, at


def _record_size(data: bytes, at: int) -> int:
    """Bytes of the whole valid record at `at`; 0 when there is none."""
    if len(data) - at < _FRAME.size:
        return 0
    magic, length, checksum = _FRAME.unpack_from(data, at)
    end = at + _FRAME.size + length
    if magic != _MAGIC or not 0 < length <= MAX_RECORD or len(data) < end:
        return 0
    return end - at if zlib.crc32(data[at + _FRAME.size : end]) == checksum else 0


def _skip(segment: Segment, rest: bytes, at: int) -> int:
    """Bytes from damage at the start of `rest` to the next valid record; 0 when none follows (a torn tail)."""
    found = rest.find(_MAGIC_BYTES, 1)
    while found >= 0:
        if _record_size(rest, found):
            log.error("spool: %s is damaged at byte %d, %d bytes skipped", segment.path, at, found)
            return found
        found = rest.find(_MAGIC_BYTES, found + 1)
    return 0


def _is_sealed(path: Path) -> bool | None:
    """Whether no living writer holds the segment; None when it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
