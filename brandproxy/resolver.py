"""DNS questions, asked at the zone's own (authoritative) servers, so that no cache answers with yesterday.

Recursive resolvers are used for three things only: to find those servers, to learn the addresses of our own
edge names, and to learn whether validating resolvers refuse an answer (DNSSEC).

Invariant: "there is no such record" is believed of a server that says it with authority (AA), never of a parent
that refers us on; and customers' NS records never make us ask an address inside our own networks.
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

from brandproxy import setting_values
from brandproxy.core import addresses
from brandproxy.core.caa import Caa, climb
from brandproxy.core.records import FAILED, NOTHING, Seen
from brandproxy.errors import BadSettings

Server = setting_values.Server

_TIMEOUT = 2.0  # seconds a server has
_TRIES = 3  # servers asked until one answers
_REMEMBER = 300.0  # seconds the servers of a zone are remembered
_LONGEST = 16  # CNAMEs followed
_PORT = 53
_SILENT = 2, 15.0  # after so many questions in a row without an answer a server is left alone, so many seconds


@dataclass(frozen=True, slots=True)
class Chase:
    """An answer behind CNAMEs: what stands at the end, and the names on the way, without the asked one."""

    end: Seen
    chain: tuple[str, ...] = ()
    loop: bool = False


def parse_servers(text: str) -> tuple[Server, ...]:
    """`address[:port], …` with IPv6 in brackets. Raises BadSettings."""
    try:
        return setting_values.servers(text)
    except ValueError as error:
        raise BadSettings(str(error)) from error


class Resolver:
    """`servers`: ask these for everything, instead of the authoritative servers found (tests, split DNS).
    `recursive`: resolvers instead of the system's. `allowed`: our own networks that may be asked all the same.
    """

    def __init__(
        self,
        servers: Sequence[Server] = (),
        recursive: Sequence[Server] = (),
        allowed: tuple[addresses.Network, ...] = (),
    ) -> None:
        self._fixed = tuple(servers)
        self._given = tuple(recursive)
        self._allowed = allowed
        self._zones: dict[str, tuple[float, tuple[Server, ...] | None]] = {}
        self._silent: dict[Server, tuple[int, float]] = {}  # server -> (unanswered in a row, when last)

    async def look(self, name: str, kind: str) -> Seen:
        """The records of this type at this very name; CNAMEs are not followed."""
        return await self._look(name, kind, _shuffled(await self._servers_of(name)))

    async def everywhere(self, name: str, kind: str, value: str) -> bool:
        """Whether all of the zone's servers that answer have this value, and one at least does."""
        servers = await self._servers_of(name)
        found = await asyncio.gather(*(self._look(name, kind, (server,)) for server in servers))
        answered = [seen for seen in found if seen.status != "failed"]
        return bool(answered) and all(value in seen.values for seen in answered)

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
        referred = not self._fixed and not answer.flags & dns.flags.AA
        rrset = answer.get_rrset(answer.answer, owner, dns.rdataclass.IN, wanted)
        if rrset is None and referred:  # a parent's NS records are the delegation itself
            rrset = answer.get_rrset(answer.authority, owner, dns.rdataclass.IN, wanted)
        if rrset is not None:
            return Seen("ok", tuple(sorted(_text(record) for record in rrset)))
        if referred:
            return FAILED
        return NOTHING if answer.rcode() == dns.rcode.NXDOMAIN else Seen("empty")

    async def _ask(
        self, name: str, kind: str, servers: Sequence[Server], recursion: bool, checking: bool = True
    ) -> dns.message.Message | None:
        """The first answer that is no failure, in the order given; else the last failure; None: no answer."""
        try:
            query = dns.message.make_query(name, kind, use_edns=0)
        except dns.exception.DNSException:  # a label too long for the wire
            return None
        query.flags &= ~dns.flags.RD if not recursion else ~0
        query.flags |= dns.flags.CD if not checking else 0
        answer, tries = None, 0
        for server in servers:
            if tries == _TRIES or (not recursion and self._is_silent(server)):
                continue
            try:
                answer, _ = await dns.asyncquery.udp_with_fallback(query, server[0], _TIMEOUT, server[1])
            except (dns.exception.DNSException, OSError) as error:
                tries += not isinstance(error, OSError)  # no way there (IPv6 from many machines) costs nothing
                self._silent[server] = (self._silent.get(server, (0, 0.0))[0] + 1, time.monotonic())
                continue
            tries += 1
            self._silent.pop(server, None)
            if answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return answer
        return answer

    def _is_silent(self, server: Server) -> bool:
        """Whether asking is a waste for now: one dead zone must not hold up the looks at all others."""
        times, last = self._silent.get(server, (0, 0.0))
        if times >= _SILENT[0] and last < time.monotonic() - _SILENT[1]:
            self._silent[server] = (times - 1, last)  # one more try
            return False
        return times >= _SILENT[0]

    async def _servers_of(self, name: str) -> tuple[Server, ...]:
        """Addresses of the servers responsible for the name; empty when they cannot be found.

        A resolver that fails for a zone makes us ask the zone above: its servers refer us, which proves nothing.
        """
        if self._fixed:
            return self._fixed
        labels = name.split(".")
        for start in range(len(labels)):
            servers = await self._zone_servers(".".join(labels[start:]))
            if servers is not None:
                return servers
        return ()

    async def _zone_servers(self, zone: str) -> tuple[Server, ...] | None:
        """The servers of a zone; None when this name is not the top of one, as far as can be told."""
        remembered = self._zones.get(zone)
        if remembered and remembered[0] > time.monotonic():
            return remembered[1]
        if len(self._zones) > 100_000:
            self._zones.clear()
            self._silent.clear()
        servers, sure = await self._find_servers(zone)
        if sure:
            self._zones[zone] = (time.monotonic() + _REMEMBER, servers)
        return servers

    async def _find_servers(self, zone: str) -> tuple[tuple[Server, ...] | None, bool]:
        """The servers, and whether that is sure enough to be remembered. Signatures are not what is asked here."""
        recursive = _shuffled(self._recursive())
        answer = await self._ask(zone, "NS", recursive, recursion=True, checking=False)
        if answer is None or answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return None, False
        owner = dns.name.from_text(zone)
        rrset = answer.get_rrset(answer.answer, owner, dns.rdataclass.IN, dns.rdatatype.NS)
        if not rrset:
            return None, True
        asked = [(record.target.to_text(), kind) for record in rrset for kind in ("A", "AAAA")]
        found = await asyncio.gather(
            *(self._ask(name, kind, recursive, recursion=True, checking=False) for name, kind in asked)
        )
        servers = [
            (str(record.address), _PORT)
            for one in found if one is not None
            for answered in one.answer if answered.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
            for record in answered if addresses.refusal(str(record.address), self._allowed) is None
        ]  # fmt: skip
        return tuple(servers), bool(servers)

    def _recursive(self) -> tuple[Server, ...]:
        if self._given or self._fixed:
            return self._given
        try:
            return tuple((str(server), 53) for server in dns.asyncresolver.Resolver().nameservers)
        except dns.exception.DNSException:
            return ()


def _shuffled(servers: Sequence[Server]) -> list[Server]:
    return random.sample(servers, len(servers))


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
