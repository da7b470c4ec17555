"""What a change changed, for the audit trail: the fields that differ, before and after, and never a secret.

A secret is a field that its dataclass keeps out of `repr`; of it is shown whether it is `absent`, `set` or
`changed`; of one that every record has, only that it changed. Long values are cut: an
entry says what happened, it is no copy of the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any

_LONGEST = 300  # characters of a text
_MOST = 100  # items of a list


def difference(before: Any, after: Any) -> dict[str, Any]:
    """`{"before": …, "after": …}` of two records of a kind; None: no record. {} when nothing differs."""
    if before is None or after is None:
        whole = {"before": shown(before), "after": shown(after)}
        return {name: value for name, value in whole.items() if value is not None}
    old, new = _changed(before, after)
    return {"before": old, "after": new} if new else {}


def _changed(before: Any, after: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    for one in fields(after):
        was, now = getattr(before, one.name), getattr(after, one.name)
        if was == now:
            continue
        if one.repr and is_dataclass(was) and type(was) is type(now):
            old[one.name], new[one.name] = _changed(was, now)
        else:
            old[one.name], new[one.name] = _field(one, was, None), _field(one, now, was)
    return old, new


def shown(value: Any, was: Any = None) -> Any:
    """A value as JSON takes it, without secrets. `was`: the value before; a secret that differs is `changed`."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {one: _field(one, getattr(value, one.name), getattr(was, one.name, None)) for one in fields(value)}
        return {one.name: each for one, each in found.items() if not _always(one) or each == "changed"}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}… ({len(value)} characters)"
    if isinstance(value, Mapping):
        return {str(name): shown(each) for name, each in list(value.items())[:_MOST]}
    if isinstance(value, tuple | list | set | frozenset):
        items = [shown(each, _counterpart(each, was)) for each in list(value)[:_MOST]]
        return [*items, f"… ({len(value)} in all)"] if len(value) > _MOST else items
    return value if value is None or isinstance(value, bool | int | float) else f"{type(value).__name__}"


def _field(one: Field[Any], value: Any, was: Any) -> Any:
    if one.repr:
        return shown(value, was)
    return "absent" if not value else "changed" if was and was != value else "set"


def _always(one: Field[Any]) -> bool:
    """A secret that every such record has: that it is there tells nothing."""
    return not one.repr and one.default is MISSING


def _counterpart(item: Any, was: Any) -> Any:
    """The item of the list before that has the same first field (its name or number)."""
    if not is_dataclass(item) or not isinstance(was, tuple | list):
        return None
    name = fields(item)[0].name
    return next((each for each in was if getattr(each, name, None) == getattr(item, name)), None)
