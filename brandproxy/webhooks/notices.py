"""Changes that somebody may want to be told of, written down where they happen: `notice/<id>` in the store.

Their order is the order of the store's versions, which all nodes share. A notice is made at most once: its id
names the change, so whoever finds it missing, because the node that made the change died, may write it again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from brandproxy.model import HostState, Seconds
from brandproxy.store import Store, keys

HOSTS = (*(f"host.{state}" for state in HostState), "host.removed", "host.contested", "host.lost")
CERTIFICATES = ("certificate.issued", "certificate.failing", "certificate.expiring")
KINDS = (*HOSTS, *CERTIFICATES)
KEPT = 30 * 86400  # seconds


@dataclass(frozen=True, slots=True)
class Notice:
    """`kind` is one of KINDS; `at` is seconds; `data` goes out as it is."""

    kind: str
    tenant: str
    at: Seconds
    data: dict[str, Any]


_NOTICE = TypeAdapter(Notice)


async def tell(store: Store, notice_id: str, notice: Notice) -> None:
    """Write it down, unless it was before."""
    await store.create(keys.notice(notice_id), json.dumps(asdict(notice)).encode())


def named(*parts: object) -> str:
    """The id of a change that these name."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def load(value: bytes) -> Notice:
    """Raises ValueError."""
    return _NOTICE.validate_json(value)
