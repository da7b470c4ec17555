"""What goes in and out over HTTP: never a secret, but the API key that was just made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from brandproxy.access import MAX_OVERLAP
from brandproxy.certs.status import CertStatus
from brandproxy.core.alignment import Alignment
from brandproxy.core.records import Finding
from brandproxy.model import BlockKind, Document, Home, Host, Name, Origins, Policy
from brandproxy.onboarding.report import Line
from brandproxy.values import Text

Reasons = Annotated[str, Text(500)]


@dataclass(frozen=True)
class KeyView:
    """A signing key without its secret."""

    number: int
    created_at: int
    revoked_at: int | None


@dataclass(frozen=True)
class TenantView:
    slug: str
    name: Name
    policy: Policy
    origins: Origins
    home: Home
    apple_app_site_association: Document
    assetlinks: Document
    created_at: int
    keys: tuple[KeyView, ...]


@dataclass(frozen=True)
class NewTenant:
    slug: str
    name: Name = ""
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True)
class TenantChange:
    """What of a tenant can be changed, by a merge patch: fields left out stay, also inside `policy`."""

    name: Name = ""
    policy: Policy = field(default_factory=Policy)
    origins: Origins = ()
    home: Home = ""
    apple_app_site_association: Document = ""
    assetlinks: Document = ""


@dataclass(frozen=True)
class NewHost:
    """`zone`: the customer delegates it to us (operator only)."""

    name: str
    tenant: str
    zone: str = ""


@dataclass(frozen=True, slots=True)
class HostView(Host):
    """`contested`: another tenant claims the name, or has it. Nobody is told which."""

    contested: bool = False


@dataclass(frozen=True)
class DnsView:
    """A look at the records. Times are seconds.

    `page`: private address to send the customer; empty: set `control.public_listen` and `control.public`."""

    host: HostView
    page: str
    checked_at: float
    next_at: float
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    alignment: tuple[Alignment, ...]
    certificate: CertStatus


@dataclass(frozen=True)
class NewPublicKey:
    """`key`: the public key as PEM, as the TXT record's text, or as opendkim-genkey writes it. `domain`: for this
    sender only; empty: for all of the tenant's."""

    key: str
    domain: str = ""


@dataclass(frozen=True)
class Transfer:
    tenant: str


@dataclass(frozen=True)
class Reason:
    reason: Reasons = "by the operator"


@dataclass(frozen=True)
class Acceptance:
    """`tenant`: whose claim, when several claim the name."""

    reason: str
    tenant: str = ""


@dataclass(frozen=True)
class AccessView:
    """An API key without its secret. Times are seconds; null: never. `last_used_at` may be a minute behind."""

    id: str
    tenant: str | None
    note: str
    created_at: int
    scopes: list[str]
    expires_at: int | None
    last_used_at: int | None
    replaces: str | None


@dataclass(frozen=True)
class NewAccess:
    """`tenant` null: an operator's key. `scopes` null: those of the key that asks. `expires_at`: seconds."""

    tenant: str | None = None
    note: str = ""
    scopes: list[str] | None = None
    expires_at: Annotated[int, Field(ge=1, lt=1 << 40)] | None = None


@dataclass(frozen=True)
class Rotation:
    """How long the old key goes on beside the new one."""

    overlap_seconds: Annotated[int, Field(ge=0, le=MAX_OVERLAP)] = 86400


@dataclass(frozen=True)
class AccessMade:
    """`key` is shown this once."""

    id: str
    key: str
    scopes: list[str]
    expires_at: int | None


@dataclass(frozen=True)
class NewBlock:
    """`tenant` empty: for all tenants (operator only)."""

    kind: BlockKind
    value: str
    tenant: str = ""
    reason: Reasons = ""


@dataclass(frozen=True)
class AuditEntry:
    id: str
    at_us: int
    actor: str
    what: str
    subject: str
    tenant: str
    details: dict[str, Any]


@dataclass(frozen=True)
class HostPage:
    """`next`: pass as `after` for the next page; empty: that was all."""

    items: list[HostView]
    next: str


@dataclass(frozen=True)
class AuditPage:
    """Newest first. `next`: pass as `before`; empty: that was all."""

    items: list[AuditEntry]
    next: str
