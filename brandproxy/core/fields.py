"""Header fields of a message before and after: which were changed, deleted, added."""

from __future__ import annotations

from collections.abc import Sequence

Field = tuple[bytes, bytes]  # name, and everything after the colon, folded lines joined by LF


def split(message: bytes) -> tuple[list[Field], bytes]:
    """Header fields (folded lines joined by LF) and body of a CRLF message."""
    if message.startswith(b"\r\n"):
        return [], message[2:]
    head, _, body = message.partition(b"\r\n\r\n")
    fields: list[Field] = []
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + b"\n" + line)
        elif line:
            name, _, value = line.partition(b":")
            fields.append((name, value))
    return fields, body


def changes(before: Sequence[Field], after: Sequence[Field]) -> list[tuple[bytes, int, bytes | None]]:
    """(name, index among its namesakes from 1, value): value None deletes, index 0 adds.

    Changes come first, then deletions from the last to the first, then additions: servers differ on whether a
    deletion renumbers what follows, and in this order it does not matter.
    """
    old, new = by_name(before), by_name(after)
    changed: list[tuple[bytes, int, bytes | None]] = []
    deleted: list[tuple[bytes, int, bytes | None]] = []
    added: list[tuple[bytes, int, bytes | None]] = []
    for key, values in old.items():
        rest = [value for _, value in new.get(key, ())]
        kept = _aligned([value for _, value in values], rest)
        for index, ((name, value), now) in enumerate(zip(values, kept, strict=True), 1):
            if now is None:
                deleted.append((name, index, None))
            elif now != value:
                changed.append((name, index, now))
        added += [(name, 0, value) for name, value in new.get(key, [])[len(values) :]]
    for key, values in new.items():
        if key not in old:
            added += [(name, 0, value) for name, value in values]
    return changed + deleted[::-1] + added


def _aligned(before: list[bytes], after: list[bytes]) -> list[bytes | None]:
    """For each old value its new one, or None where it went: values that stayed keep their place."""
    missing = len(before) - len(after)
    result: list[bytes | None] = []
    at = 0
    for value in before:
        gone = missing > 0 and (at >= len(after) or after[at] != value)
        missing -= gone
        result.append(None if gone else after[at])
        at += not gone
    return result


def by_name(fields: Sequence[Field]) -> dict[bytes, list[Field]]:
    named: dict[bytes, list[Field]] = {}
    for name, value in fields:
        named.setdefault(name.rstrip().lower(), []).append((name, value))
    return named
