"""What a message says of itself in its headers, read without its body: whose it is, and our control headers."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import getaddresses

from brandproxy.core import headers, mime
from brandproxy.core.splice import apply
from brandproxy.core.tokens import reference_fault


@dataclass(frozen=True, slots=True)
class Said:
    """A header that readers understand differently says nothing."""

    control: headers.Control = field(default_factory=headers.Control)
    from_fields: tuple[bytes, ...] = ()

    def authors(self) -> list[str]:
        """All addresses in all `From:`, "" for what is none: readers differ on which of several they show.

        Read only when somebody asks, because the standard library takes its time.
        """
        if sum(map(len, self.from_fields)) >= 10_000:
            return [""]
        try:
            fields = [field.decode("utf-8", "replace") for field in self.from_fields]
            return [address for _, address in getaddresses(fields)]
        except (RecursionError, ValueError, IndexError):  # comments in comments in comments
            return [""]


def read(message: bytes) -> Said:
    fields = mime.parse_header(message)
    authors = tuple(mime.value(message, item) for item in fields if item.name == "from")
    return Said(headers.control(message, fields), authors)


def strip(message: bytes, name: str = "") -> bytes:
    """The message without our control headers, or without the one of that name; else not a byte differs."""
    gone = headers.CONTROL + name
    fields = mime.parse_header(message)
    splices = [headers.removal(message, item) for item in fields if item.name.startswith(gone)]
    return apply(message, splices) if splices else message


def usable(reference: str) -> str:
    """A reference that can stand in a token, or ""."""
    return "" if reference_fault(reference) else reference
