"""Reading what the store holds so that one bad record stops nothing else.

Records come from older and newer versions, from restored copies and from hands. `readable` leaves out what cannot
be read and says so; `mended` takes a record with fields that are out of their range: a number above it counts as
the highest allowed, any other bad field as not given.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from prometheus_client import Counter
from pydantic import TypeAdapter, ValidationError

from brandproxy.errors import BadSettings, Final
from brandproxy.store.base import Entry

log = logging.getLogger(__name__)

T = TypeVar("T")

# What broken data raises on its way into a record, whatever reads it.
BROKEN = (Final, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)

UNREADABLE = Counter("brandproxy_unreadable_records", "Records in the store that could not be read", ["prefix"])

_ROUNDS = 8  # a field in order may be read only after another is mended
_told: set[tuple[str, int]] = set()


class Unreadable(Final):
    """A record in the store that is none."""

    action = "Write it anew, remove it, or restore it from a backup; everything else goes on."


def readable(entries: Iterable[Entry], load: Callable[[Entry], T]) -> list[T]:
    """The records that can be read. The others are logged, once for each version of them.

    Raises BadSettings when all of them are sealed under another master key.
    """
    found: list[T] = []
    sealed: BadSettings | None = None
    for entry in entries:
        try:
            found.append(load(entry))
        except BROKEN as error:
            sealed = error if isinstance(error, BadSettings) else sealed
            tell(entry.key, entry.value, error)
    if sealed is not None and not found:
        raise sealed
    return found


def tell(key: str, value: bytes, why: object) -> None:
    """Log, once, that a record is not as it should be."""
    if (key, hash(value)) in _told:
        return
    if len(_told) > 10_000:
        _told.clear()
    _told.add((key, hash(value)))
    UNREADABLE.labels(key.partition("/")[0]).inc()
    log.error("store: record %s: %s", key, str(why)[:500])


def mended(kind: TypeAdapter[T], key: str, value: bytes, fields: Collection[str]) -> T:
    """The record, with what is wrong in `fields` (of the outermost object) put right. Raises Unreadable."""
    try:
        return kind.validate_json(value)
    except ValidationError as error:
        trouble = error
    wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in trouble.errors())
    try:
        data = json.loads(value)
        for _ in range(_ROUNDS):
            for fault in reversed(trouble.errors()):  # from behind: places in lists stay right
                if not fault["loc"] or fault["loc"][0] not in fields:
                    raise Unreadable(f"{key} cannot be read: {wrong}")
                _mend(data, fault["loc"], fault.get("ctx", {}))
            try:
                record = kind.validate_json(json.dumps(data))
            except ValidationError as error:
                trouble = error
            else:
                tell(key, value, f"{wrong}; what is wrong counts as not given until it is set again")
                return record
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise Unreadable(f"{key} cannot be read: {wrong}") from error
    raise Unreadable(f"{key} cannot be read: {wrong}")


def _mend(data: Any, place: tuple[int | str, ...], context: dict[str, Any]) -> None:
    """Set or drop what is at a place: in a list the whole item, so that no half of one is believed."""
    item = next((n for n, step in enumerate(place) if isinstance(step, int)), None)
    *way, last = place if item is None else place[: item + 1]
    for step in way:
        data = data[step]
    if isinstance(last, int):
        del data[last : last + 1]
    elif "le" in context:
        data[last] = context["le"]
    elif "max_length" in context and isinstance(data[last], list):
        del data[last][context["max_length"] :]
    else:
        del data[last]
