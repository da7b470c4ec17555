"""The nouns (frozen dataclasses that cross every boundary) and nothing else.

Times are integers: seconds since 1970 UTC in fields ending in `_at`, microseconds where a name says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal

from brandproxy.values import PATTERN, WEB, Many, Text, Whole

Seconds = Annotated[int, Whole(0, 253_402_300_799)]  # since 1970; the last one of the year 9999
Name = Annotated[str, Text(200)]  # shown to people
Home = Annotated[str, Text(2048, WEB)]
Patterns = Annotated[tuple[Annotated[str, Text(500, PATTERN)], ...], Many(1000)]
Document = Annotated[str, Text(131_072, r"[^\x00]*")]  # Apple reads 128 KiB of an app-site association

Approach = Literal["cnames", "zone", "relay", "manual"]
AddressPrivacy = Literal["full", "truncated", "hashed", "none"]
Signed = Literal["skip", "strip"]
UnsubscribeLinks = Literal["click", "private", "leave"]


class HostState(StrEnum):
    PENDING = "pending"  # records not seen yet
    VERIFIED = "verified"  # CNAME points at this host's own target
    LIVE = "live"  # certificate served
    BROKEN = "broken"  # records gone after having been right
    SUSPENDED = "suspended"  # by the operator


PROVEN = frozenset({HostState.VERIFIED, HostState.LIVE, HostState.BROKEN})  # states a proof leads to


class SenderState(StrEnum):
    PENDING = "pending"  # a claim: its records were not seen
    PROVEN = "proven"  # its records lead to this claim's own label, or the operator vouched for it
    BROKEN = "broken"  # the records are gone after having been right


class Kind(StrEnum):
    """First path segment of every link we mint; also bound into the signing key."""

    CLICK = "c"
    ASSET = "a"
    OPEN = "o"
    UNSUBSCRIBE = "u"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A tenant's token key. `number` (0–63) stands in the token and picks the key without trying all."""

    number: int
    secret: bytes = field(repr=False)
    created_at: int
    revoked_at: int | None = None

    __pydantic_config__ = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}  # noqa: RUF012


@dataclass(frozen=True, slots=True)
class Origin:
    """Named asset storage. `url` is where the edge reads; `public` are the URL prefixes mails name it by.

    `failover` is read while `url` fails. `sealed` holds credentials, as ciphertext. `variant` is the form
    images of this origin are minted in (`w1200-webp`; empty: as stored).
    """

    name: Annotated[str, Text(63)]
    url: Annotated[str, Text(2048)]
    public: Annotated[tuple[Annotated[str, Text(2048)], ...], Many(100)] = ()
    failover: Annotated[str, Text(2048)] = ""
    sealed: Annotated[str, Text(65_536)] = field(default="", repr=False)
    variant: Annotated[str, Text(100)] = ""


Origins = Annotated[tuple[Origin, ...], Many(100)]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the filter does for a tenant. Patterns are `host/path` globs, e.g. `*.acme.com/account/*`."""

    clicks: bool = True
    assets: bool = True
    opens: bool = False
    unsubscribe: bool = True  # List-Unsubscribe through our host
    unsubscribe_links: UnsubscribeLinks = (
        "click"  # those in the body: "click", "private" (never recorded) or "leave"
    )
    include: Patterns = ()  # when set, only these destinations are rewritten
    exclude: Patterns = ()
    private: Patterns = ()  # branded but never recorded
    leave_url_text: bool = False  # leave links alone whose text is a URL of another host
    signed: Signed = "skip"  # mail with DKIM or ARC already; `strip` removes what we break
    max_links: Annotated[int, Whole(0, 100_000)] = 1000
    http_when_verified: bool = False  # use http://host before its certificate is there
    token_max_age: Annotated[int, Whole(0, 3_153_600_000)] = (
        0  # seconds, up to a hundred years; 0: links never expire
    )
    keep_days: Annotated[int, Whole(0, 36_500)] = (
        0  # days that events are kept; 0: what the operator keeps (`analytics.keep_days`)
    )
    address_privacy: AddressPrivacy = "truncated"  # of what is recorded


@dataclass(frozen=True, slots=True)
class Relay:
    """The server mail goes on to. `tls`: "none", "opportunistic", or "required" (certificate checked)."""

    host: str
    port: int = 25
    tls: str = "required"
    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer of the ESP. `keys` newest first; `home` is where `/` leads (empty: a plain page)."""

    slug: str
    keys: tuple[SigningKey, ...]
    name: Name = ""
    policy: Policy = Policy()
    origins: Origins = ()
    home: Home = ""
    apple_app_site_association: Document = ""  # JSON body for app links, served as is
    assetlinks: Document = ""
    created_at: Seconds = 0
    relay: Relay | None = None  # where this tenant's mail goes on, when not where all mail does


@dataclass(frozen=True, slots=True)
class Host:
    """A hostname a tenant CNAMEs to us. `target` is this host's own CNAME target, never reused.

    `zone`: the zone above it that the customer delegated to our nameservers; empty: none. `before` is the state
    before this one, `change` the id of the change's audit entry and notice: with it in the record, a change whose
    node died before it could tell is told by the next. `proven_at` is when this tenant's proof was seen, or the
    operator vouched (`accepted`: why); 0: never since this tenant has it; None: a record from before the field.
    """

    name: str
    tenant: str
    target: str
    state: HostState = HostState.PENDING
    reason: str = ""
    since: Seconds = 0  # when the state last changed
    created_at: Seconds = 0
    zone: str = ""
    before: str = ""
    change: str = ""
    proven_at: int | None = None
    accepted: str = ""

    @property
    def proven(self) -> bool:
        """Whether the name was proven for this tenant: recipients get answers from no other host."""
        if self.proven_at is None:
            return self.state in PROVEN or (self.state is HostState.SUSPENDED and self.before in PROVEN)
        return self.proven_at > 0


@dataclass(frozen=True, slots=True)
class Sender:
    """A tenant's claim to a domain that mail is sent from. Any number of tenants may claim one; it is `PROVEN` for
    one at most.

    `label` is this claim's own name under `dns.dkim_domain` and `dns.bounce_host`, never given out twice.
    `vouched`: proven by the operator's word. `by_slug`: claimed before there were labels, so records that lead to
    `<selector>.<tenant>.<dns.dkim_domain>` are right too.
    """

    domain: str
    tenant: str
    label: str
    approach: Approach = "cnames"
    state: SenderState = SenderState.PENDING
    reason: str = ""
    since: int = 0  # when the state last changed, seconds
    created_at: int = 0
    vouched: bool = False
    by_slug: bool = False


@dataclass(frozen=True, slots=True)
class References:
    """What the pipeline knows of a message: opaque ids of its own, never a mail address in clear."""

    campaign: str = ""
    message: str = ""
    recipient: str = ""
    sent_at: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One click, open or unsubscribe as recorded. `at_us` is microseconds; `id` a UUIDv7 in hex."""

    id: str
    kind: str  # "click" | "open" | "unsubscribe"
    at_us: int
    tenant: str
    host: str
    campaign: str = ""
    message: str = ""
    recipient: str = ""
    link: int = 0
    url: str = ""
    sent_at: int = 0
    address: str = ""  # after the tenant's address privacy
    agent: str = ""
    method: str = "GET"
    machine: tuple[str, ...] = ()  # reasons; empty: taken for a person
    rules: int = 0  # version of the machine rules that decided


class BlockKind(StrEnum):
    """What a kill-list entry names."""

    DOMAIN = "domain"  # destinations on this host and below it
    URL = "url"  # destinations that start with this
    LINK = "link"  # one token, as it stands in the link's path
    MESSAGE = "message"
    CAMPAIGN = "campaign"
    TENANT = "tenant"  # everything of a tenant


@dataclass(frozen=True, slots=True)
class Block:
    """A kill-list entry: links it names answer 410. `tenant` empty: for all tenants."""

    id: str
    kind: BlockKind
    value: str
    tenant: str = ""
    reason: str = ""
    created_at: int = 0
