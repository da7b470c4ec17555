"""What a value may be: its range or form, written once beside the field in `model`, held wherever it comes in.

`faults` is the check itself, for whatever makes a record in Python: commands, the library, the registry before it
writes. Pydantic reads the same marks when it reads JSON, and shows them in OpenAPI; it is not needed here, so the
filter library does without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

LINE = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*"  # text of one line
PATTERN = r"(?:https?://)?(?:[A-Za-z0-9*._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[^\x00-\x20\x7f-\x9f]*)?"
WEB = r"(?:https?://[^\x00-\x20\x7f-\x9f]+)?"  # an http(s) URL, or nothing


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `least` to `most`, both allowed."""

    least: int
    most: int

    def fault(self, value: object) -> str:
        if not isinstance(value, int) or isinstance(value, bool):
            return "is not a whole number"
        return "" if self.least <= value <= self.most else f"is not from {self.least} to {self.most}"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return handler(source) | {"ge": self.least, "le": self.most}


@dataclass(frozen=True, slots=True)
class Text:
    """At most `most` characters that match `form` (a regular expression, Python's and Rust's) from end to end."""

    most: int
    form: str = LINE

    def fault(self, value: object) -> str:
        if not isinstance(value, str):
            return "is not text"
        if len(value) > self.most:
            return f"has more than {self.most} characters"
        if any("\ud800" <= char <= "\udfff" for char in value):
            return "is not Unicode text"
        return "" if re.fullmatch(self.form, value) else f"does not have the form {self.form}"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return handler(source) | {"max_length": self.most, "pattern": f"^(?:{self.form})$"}


@dataclass(frozen=True, slots=True)
class Many:
    """At most `most` items."""

    most: int

    def fault(self, value: object) -> str:
        return "" if isinstance(value, tuple) and len(value) <= self.most else f"has more than {self.most} items"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return handler(source) | {"max_length": self.most}


def faults(record: object) -> list[str]:
    """What is wrong with a dataclass and all that is in it, as `field.field: reason`."""
    return [f"{path}: {reason}" for path, reason in _in_record(record, "")]


@lru_cache(64)
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _in_record(record: object, path: str) -> Iterator[tuple[str, str]]:
    kind: Any = type(record)
    for field in fields(kind):
        yield from _in_value(_hints(kind)[field.name], getattr(record, field.name), f"{path}{field.name}")


def _in_value(kind: Any, value: object, path: str) -> Iterator[tuple[str, str]]:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        reason = next((r for mark in kind.__metadata__ if hasattr(mark, "fault") and (r := mark.fault(value))), "")
        yield from [(path, reason)] if reason else _in_value(inner[0], value, path)
    elif origin in (Union, UnionType):
        if not (value is None and NoneType in inner):
            yield from _in_value(inner[0], value, path)
    elif origin is Literal:
        if value not in inner:
            yield path, f"is none of {', '.join(map(str, inner))}"
    elif origin is tuple:
        if not isinstance(value, tuple):
            yield path, "is not a list"
        else:
            for number, item in enumerate(value):
                yield from _in_value(inner[0], item, f"{path}.{number}")
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield path, f"is no {kind.__name__}"
    elif is_dataclass(value):
        yield from _in_record(value, f"{path}.")
