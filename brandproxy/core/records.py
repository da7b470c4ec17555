"""Which DNS records a host needs, what was seen, what is wrong, and how to put it right. Pure: the asking is
`resolver`'s, the deciding is here.

Proof of control is one of
1. a chain of CNAMEs from the name to this host's own target
2. for names that cannot have a CNAME (a zone's apex, ALIAS, ANAME, a proxy): the TXT record `_brandproxy.<name>`
   with this host's own target, and addresses that lead to the edge
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from brandproxy.core.caa import Caa
from brandproxy.model import Host


class Verdict(StrEnum):
    PROVEN = "proven"
    ABSENT = "absent"  # the records were looked for and are not right
    UNKNOWN = "unknown"  # DNS did not answer: no vote


@dataclass(frozen=True, slots=True)
class Wanted:
    """A record that has to be there. `why` is for people; `needed` False: not what proves the name; `ours`: in a
    zone delegated to us, so we publish it; `also`: older values that do as well."""

    type: str
    name: str
    value: str
    why: str
    needed: bool = True
    ours: bool = False
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is stable; `fatal`: the host does not work (or gets no certificate) until it is put right."""

    code: str
    fatal: bool
    sentence: str
    fix: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the zone's authoritative servers answered for one name and type.

    `status`: ok, empty (name exists, no such type), nxdomain, failed (no server gave an answer, or SERVFAIL).
    """

    status: str
    values: tuple[str, ...] = ()


FAILED = Seen("failed")
NOTHING = Seen("nxdomain")


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything looked at for one host, at one time. Names are lower case without a final dot."""

    cname: Seen
    chain: tuple[str, ...] = ()  # names the CNAMEs lead through, without the host itself
    loop: bool = False
    a: Seen = NOTHING  # at the end of the chain
    aaaa: Seen = NOTHING
    others: tuple[str, ...] = ()  # types that stand beside a CNAME at the name, which RFC 1034 §3.6.2 forbids
    txt: Seen = NOTHING  # at _brandproxy.<name>
    edge: frozenset[str] = frozenset()  # addresses our own target leads to
    apex: bool = False
    wildcard: bool = False  # a random neighbour answers the same
    bogus: bool = False  # validating resolvers refuse the answer
    disagree: bool = False  # the zone's servers answer differently
    hsts: bool = False  # the parent demands https for every name below it
    caa: tuple[Caa, ...] = ()
    caa_at: str = ""
    caa_failed: bool = False
    delegation: Seen | None = None  # NS at the delegated zone, where there is one
    mail: dict[tuple[str, str], Seen] = field(default_factory=dict)  # (type, name) of records not needed
    ends: dict[tuple[str, str], Seen] = field(default_factory=dict)  # what stands at the ends of their CNAMEs
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)  # name -> the names those lead through


def certificate_names(host: Host) -> tuple[str, ...]:
    """In a delegated zone one certificate serves all the names beside each other."""
    beside = host.name.partition(".")[2]
    return (beside, f"*.{beside}") if host.zone else (host.name,)


def proof_name(host: str) -> str:
    return f"_brandproxy.{host}"


def wanted(host: Host, nameservers: tuple[str, ...] = (), mail: Sequence[Wanted] = ()) -> list[Wanted]:
    """The records that have to be there, `mail` those of the sender. Of a delegated zone the customer creates
    the NS records only."""
    why = "links and images in your mail go through this name"
    if host.zone:
        hands = "hands this part of your domain to us; we keep all other records in it"
        delegation = [Wanted("NS", host.zone, server, hands) for server in nameservers]
        return [*delegation, Wanted("CNAME", host.name, host.target, why, needed=False, ours=True), *mail]
    return [Wanted("CNAME", host.name, host.target, why), *mail]


def apex_wanted(host: Host) -> list[Wanted]:
    """Instead of the CNAME, where a name cannot have one."""
    return [
        Wanted("ALIAS", host.name, host.target, "leads to us; called ALIAS, ANAME or flattened CNAME"),
        Wanted("TXT", proof_name(host.name), host.target, "proves that the name is yours"),
    ]


def verdict(host: Host, seen: Observation) -> Verdict:
    """Whether control is proven by what was seen. Doubt is UNKNOWN, never ABSENT."""
    if seen.delegation is not None:
        if seen.delegation.status == "failed":
            return Verdict.UNKNOWN
        return Verdict.PROVEN if seen.delegation.status == "ok" else Verdict.ABSENT
    if host.target in seen.chain and not seen.bogus:
        return Verdict.PROVEN
    by_address = bool(seen.edge & {*seen.a.values, *seen.aaaa.values})
    if host.target in seen.txt.values and (by_address or proxied(seen)) and not seen.bogus:
        return Verdict.PROVEN
    asked = (seen.cname, seen.txt, seen.a)
    if seen.disagree or any(answer.status == "failed" for answer in asked):
        return Verdict.UNKNOWN
    return Verdict.ABSENT


# https://www.cloudflare.com/ips/ (published ranges, IPv4 and IPv6), as (network, bits)
_PROXY_NETWORKS = (
    "103.21.244.0/22", "103.22.200.0/22", "103.31.4.0/22", "104.16.0.0/13", "104.24.0.0/14", "108.162.192.0/18",
    "131.0.72.0/22", "141.101.64.0/18", "162.158.0.0/15", "172.64.0.0/13", "173.245.48.0/20", "188.114.96.0/20",
    "190.93.240.0/20", "197.234.240.0/22", "198.41.128.0/17", "2400:cb00::/32", "2606:4700::/32",
    "2803:f800::/32", "2405:b500::/32", "2405:8100::/32", "2a06:98c0::/29", "2c0f:f248::/32",
)  # fmt: skip


def proxied(seen: Observation) -> bool:
    """Whether the name leads to a CDN's proxy that hides the CNAME behind its own addresses."""
    from ipaddress import ip_address, ip_network

    networks = [ip_network(network) for network in _PROXY_NETWORKS]
    try:
        addresses = [ip_address(value) for value in (*seen.a.values, *seen.aaaa.values)]
    except ValueError:
        return False
    return any(address in network for address in addresses for network in networks)


def reached(seen: Observation) -> list[str]:
    """The addresses behind the name that are our edge's or a known proxy's before it, and no others."""
    found = [*seen.a.values, *seen.aaaa.values]
    return [one for one in found if one in seen.edge or proxied(replace(seen, a=Seen("ok", (one,)), aaaa=NOTHING))]
