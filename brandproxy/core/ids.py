"""Identifiers that sort by time: UUIDv7 (RFC 9562 §5.7) as 32 hex digits."""

from __future__ import annotations

import os


def uuid7(at_ms: int, random: bytes | None = None) -> str:
    """A UUIDv7 for the millisecond `at_ms` since 1970; `random` is 10 bytes, drawn when not given."""
    tail = int.from_bytes(random or os.urandom(10), "big")
    value = (at_ms & (1 << 48) - 1) << 80 | tail
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"
