"""DNS questions, asked at the zone's own (authoritative) servers, so that no cache answers with yesterday.

Recursive resolvers are used for three things only: to find those servers, to learn the addresses of our own
edge names, and to learn whether validating resolvers refuse an answer (DNSSEC).
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from brandproxy.core.caa import Caa, climb
from brandproxy.core.records import FAILED, NOTHING, Seen
from brandproxy.errors import BadSettings

Server = tuple[str, int]

_TIMEOUT = 2.0  # seconds a server has
_TRIES = 3  # servers asked until one answers
_REMEMBER = 300.0  # seconds the servers of a zone are remembered
_LONGEST = 16  # CNAMEs followed


@dataclass(frozen=True, slots=True)
class Chase:
    """An answer behind CNAMEs: what stands at the end, and the names on the way, without the asked one."""

    end: Seen
    chain: tuple[str, ...] = ()
    loop: bool = False


def parse_servers(text: str) -> tuple[Server, ...]:
    """`address[:port], …` with IPv6 in brackets. Raises BadSettings."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        host, _, port = part.rpartition(":") if part.count(":") == 1 or "]:" in part else (part, "", "53")
        if not port.isdigit():
            raise BadSettings(f"{part!r} is not a DNS server", "Write address:port, e.g. 127.0.0.1:5353.")
        found.append((host.strip("[]"), int(port)))
    return tuple(found)


class Resolver:
    """`servers`: ask these for everything, instead of the authoritative servers found (tests, split DNS).
    `recursive`: resolvers instead of the system's.
    """

    def __init__(self, servers: Sequence[Server] = (), recursive: Sequence[Server] = ()) -> None:
        self._fixed = tuple(servers)
        self._given = tuple(recursive)
        self._zones: dict[str, tuple[float, tuple[Server, ...]]] = {}

    async def look(self, name: str, kind: str) -> Seen:
        """The records of this type at this very name; CNAMEs are not followed."""
        return await self._look(name, kind, await self._servers_of(name))

    async def look_twice(self, name: str, kind: str) -> tuple[Seen, bool]:
        """An answer, and whether two of the zone's servers disagree about it."""
        servers = await self._servers_of(name)
        if len(servers) < 2:
            return await self._look(name, kind, servers), False
        one, two = random.sample(servers, 2)
        first, second = await asyncio.gather(
            self._look(name, kind, (one, two)), self._look(name, kind, (two, one))
        )
        return first, "failed" not in (first.status, second.status) and set(first.values) != set(second.values)

    async def chase(self, name: str, kind: str) -> Chase:
        """The records of this type at the end of the name's CNAMEs."""
        chain: list[str] = []
        here = name
        while True:
            alias = await self.look(here, "CNAME")
            if alias.status == "failed":
                return Chase(FAILED, tuple(chain))
            if not alias.values:
                return Chase(await self.look(here, kind), tuple(chain))
            here = alias.values[0]
            if here == name or here in chain or len(chain) >= _LONGEST:
                return Chase(NOTHING, tuple(chain), loop=True)
            chain.append(here)

    async def caa(self, name: str) -> tuple[tuple[Caa, ...], str, bool]:
        """The relevant CAA set, the name it stands at, and whether looking failed (RFC 8659 §3)."""
        for here in climb(name):
            found = (await self.chase(here, "CAA")).end
            if found.status == "failed":
                return (), here, True
            if found.values:
                return tuple(_caa(text) for text in found.values), here, False
        return (), "", False

    async def apex(self, name: str) -> bool:
        """Whether the name is the top of its zone."""
        return bool((await self.look(name, "SOA")).values)

    async def wildcard(self, name: str, kind: str, values: Sequence[str]) -> bool:
        """Whether a neighbour that nobody can have made answers the same."""
        neighbour = f"bp-{secrets.token_hex(6)}.{name.partition('.')[2]}"
        found = await self.look(neighbour, kind)
        return bool(found.values) and set(found.values) == set(values)

    async def bogus(self, name: str) -> bool:
        """Whether validating resolvers refuse what the servers answer (RFC 4035 §3.2.2, checking disabled)."""
        recursive = self._recursive()
        if not recursive:
            return False
        checked = await self._ask(name, "A", recursive, recursion=True)
        if checked is None or checked.rcode() != dns.rcode.SERVFAIL:
            return False
        blind = await self._ask(name, "A", recursive, recursion=True, checking=False)
        return blind is not None and blind.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)

    async def addresses(self, name: str) -> frozenset[str]:
        """IPv4 and IPv6 addresses the name leads to."""
        found = await asyncio.gather(self.chase(name, "A"), self.chase(name, "AAAA"))
        return frozenset(value for chase in found for value in chase.end.values)

    async def _look(self, name: str, kind: str, servers: Sequence[Server]) -> Seen:
        answer = await self._ask(name, kind, servers, recursion=bool(self._fixed))
        if answer is None or answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return FAILED
        owner, wanted = dns.name.from_text(name), dns.rdatatype.from_text(kind)
        rrset = answer.get_rrset(answer.answer, owner, dns.rdataclass.IN, wanted)
        if rrset is not None:
            return Seen("ok", tuple(sorted(_text(record) for record in rrset)))
        return NOTHING if answer.rcode() == dns.rcode.NXDOMAIN else Seen("empty")

    async def _ask(
        self, name: str, kind: str, servers: Sequence[Server], recursion: bool, checking: bool = True
    ) -> dns.message.Message | None:
        """The first answer that is no failure; else the last failure; None when nobody answered."""
        try:
            query = dns.message.make_query(name, kind, use_edns=0)
        except dns.exception.DNSException:  # a label too long for the wire
            return None
        query.flags &= ~dns.flags.RD if not recursion else ~0
        query.flags |= dns.flags.CD if not checking else 0
        answer = None
        for address, port in random.sample(servers, len(servers))[:_TRIES]:
            try:
                answer, _ = await dns.asyncquery.udp_with_fallback(query, address, _TIMEOUT, port)
            except (dns.exception.DNSException, OSError):
                continue
            if answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return answer
        return answer

    async def _servers_of(self, name: str) -> tuple[Server, ...]:
        """Addresses of the servers responsible for the name; empty when they cannot be found."""
        if self._fixed:
            return self._fixed
        labels = name.split(".")
        for start in range(len(labels)):
            servers = await self._zone_servers(".".join(labels[start:]))
            if servers:
                return servers
        return ()

    async def _zone_servers(self, zone: str) -> tuple[Server, ...]:
        """The servers of a zone, when this name is the top of one."""
        remembered = self._zones.get(zone)
        if remembered and remembered[0] > time.monotonic():
            return remembered[1]
        if len(self._zones) > 100_000:
            self._zones.clear()
        servers = await self._find_servers(zone)
        self._zones[zone] = (time.monotonic() + _REMEMBER, servers)
        return servers

    async def _find_servers(self, zone: str) -> tuple[Server, ...]:
        recursive = self._recursive()
        answer = await self._ask(zone, "NS", recursive, recursion=True)
        owner = dns.name.from_text(zone)
        rrset = answer and answer.get_rrset(answer.answer, owner, dns.rdataclass.IN, dns.rdatatype.NS)
        if not rrset:
            return ()
        servers: list[Server] = []
        for record in rrset:
            found = await self._ask(record.target.to_text(), "A", recursive, recursion=True)
            for answered in found.answer if found else ():
                if answered.rdtype == dns.rdatatype.A:
                    servers += [(address.address, 53) for address in answered]
        return tuple(servers)

    def _recursive(self) -> tuple[Server, ...]:
        if self._given or self._fixed:
            return self._given
        try:
            return tuple((str(server), 53) for server in dns.asyncresolver.Resolver().nameservers)
        except dns.exception.DNSException:
            return ()


def _text(record: object) -> str:
    """A record's value as we compare it: names lower case without the final dot, TXT joined."""
    if hasattr(record, "strings"):
        return b"".join(record.strings).decode("utf-8", "replace")
    if hasattr(record, "tag"):
        return f"{record.flags} {record.tag.decode('ascii', 'replace')} {record.value.decode('ascii', 'replace')}"  # type: ignore[attr-defined]
    target = getattr(record, "target", None)
    return str(record) if target is None else str(target.to_text(omit_final_dot=True)).lower()


def _caa(text: str) -> Caa:
    flags, tag, value = text.split(" ", 2)
    return Caa(int(flags), tag, value)
