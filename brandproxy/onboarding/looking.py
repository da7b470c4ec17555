"""One look at a host's DNS. Nothing is decided here: `core.records` and `core.findings` do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from brandproxy.config import Settings
from brandproxy.core import alignment, caa
from brandproxy.core.domains import registered
from brandproxy.core.findings import findings, mail_findings
from brandproxy.core.records import (
    FAILED,
    Observation,
    Seen,
    Wanted,
    apex_wanted,
    certificate_names,
    proof_name,
    verdict,
    wanted,
)
from brandproxy.core.senders import Sending, contested, mail_records
from brandproxy.core.watching import Watch, observe
from brandproxy.errors import BrandproxyError
from brandproxy.fetch import open_fetcher
from brandproxy.model import Host, HostState
from brandproxy.onboarding.report import Report, lines
from brandproxy.resolver import Resolver, parse_servers

_HSTS_DAY = 86400.0
_LONGEST = 20.0  # seconds a look may take; a zone that is slower than that does not answer
_BESIDE = ("A", "MX", "TXT")  # types that people leave beside a CNAME


_Answers = dict[tuple[str, str], Seen]


class Looker:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hsts: dict[str, tuple[float, bool]] = {}
        dns = settings.dns
        self._domain = settings.edge.domain
        self._issuer = caa.Issuer(settings.certs.caa_names if settings.certs.ca not in ("none", "dev") else ())
        self._nameservers = tuple(_split(dns.nameservers))
        self.resolver = Resolver(
            parse_servers(dns.servers), parse_servers(dns.recursive), settings.outbound.networks
        )

    def wanted(self, host: Host, sending: Sending | None = None) -> list[Wanted]:
        return wanted(host, self._nameservers, mail_records(sending, ours=bool(host.zone)))

    async def report(
        self, host: Host, before: Watch, now: float, sending: Sending | None = None
    ) -> tuple[Report, Observation]:
        """Look once: the watch after this observation, the records line by line, what is wrong."""
        records = self.wanted(host, sending)
        seen = await self.observe(host, records, sending)
        decided = verdict(host, seen)
        issuer = replace(self._issuer, method="dns-01" if host.zone else "http-01")
        found = [
            *findings(host, seen, issuer, self._domain),
            *contested(sending),
            *mail_findings(records, seen, sending),
            *alignment.health(sending, seen),
        ]
        aligned = tuple(alignment.alignments(sending, seen))
        if seen.apex and not host.zone:
            records = [*apex_wanted(host), *records[1:]]
        watch = observe(before, decided, now)
        kept = lines(records, seen, decided, sending)
        return Report(watch, kept, tuple(found), alignment=aligned, target=host.target), seen

    async def observe(self, host: Host, records: list[Wanted], sending: Sending | None = None) -> Observation:
        """Everything there is to see, in bounded time."""
        try:
            async with asyncio.timeout(_LONGEST):
                return await self._observe(host, records, sending)
        except TimeoutError:
            return Observation(cname=FAILED, txt=FAILED, delegation=FAILED if host.zone else None)

    async def _observe(self, host: Host, records: list[Wanted], sending: Sending | None) -> Observation:
        """Questions that do not need each other's answers go out together."""
        name = host.name
        caa_set, delegation, (mail, ends, chains), bogus, txt, edge = await asyncio.gather(
            self.resolver.caa(certificate_names(host)[0]),
            self._delegation(host),
            self._mail_records(records, sending),
            self.resolver.bogus(name),
            self.resolver.look(proof_name(name), "TXT"),
            self.resolver.addresses(host.target),
        )
        seen = Observation(
            cname=Seen("empty"), txt=txt, edge=edge, bogus=bogus, caa=caa_set[0], caa_at=caa_set[1],
            caa_failed=caa_set[2], delegation=delegation, mail=mail, ends=ends, chains=chains,
        )  # fmt: skip
        if host.zone:
            return seen
        seen, hsts = await asyncio.gather(self._name(name, seen), self._demands_https(host))
        return replace(seen, hsts=hsts)

    async def _name(self, name: str, seen: Observation) -> Observation:
        (cname, disagree), a, aaaa = await asyncio.gather(
            self.resolver.look_twice(name, "CNAME"),
            self.resolver.chase(name, "A"),
            self.resolver.chase(name, "AAAA"),
        )
        chain = a.chain or aaaa.chain or cname.values[:1]
        seen = replace(seen, cname=cname, disagree=disagree, chain=chain, loop=a.loop, a=a.end, aaaa=aaaa.end)
        if cname.values:
            found = await asyncio.gather(*(self.resolver.look(name, kind) for kind in _BESIDE))
            others = tuple(kind for kind, answer in zip(_BESIDE, found, strict=True) if answer.values)
            wild = await self.resolver.wildcard(name, "CNAME", cname.values)
            return replace(seen, others=others, wildcard=wild)
        return replace(seen, apex=await self.resolver.apex(name))

    async def _demands_https(self, host: Host) -> bool:
        """RFC 6797 §6.1.2: whether the domain's own site demands https for every name below it.

        Asked while the host waits only, once a day for a domain: it explains, it decides nothing.
        """
        domain = registered(host.name)
        if host.state is not HostState.PENDING or domain == host.name:
            return False
        known = self._hsts.get(domain)
        if known is None or known[0] < time.monotonic() - _HSTS_DAY:
            known = self._hsts[domain] = (time.monotonic(), await self._asked_hsts(domain))
            if len(self._hsts) > 10_000:
                self._hsts.clear()
        return known[1]

    async def _asked_hsts(self, domain: str) -> bool:
        try:
            async with asyncio.timeout(3), open_fetcher(self._settings, self._addresses) as fetcher:
                got = await fetcher.request("HEAD", f"https://{domain}/", max_bytes=0)
        except (BrandproxyError, TimeoutError):
            return False
        return "includesubdomains" in got.headers.get("strict-transport-security", "").lower()

    async def _addresses(self, name: str, port: int) -> list[str]:
        return list(await self.resolver.addresses(name))

    async def _delegation(self, host: Host) -> Seen | None:
        """Whether the zone's NS records are ours, as its own servers (or its parent's) give them."""
        if not host.zone:
            return None
        found = await self.resolver.look(host.zone, "NS")
        if found.status != "ok":
            return found
        ours = set(self._nameservers) <= set(found.values) and bool(self._nameservers)
        return found if ours else Seen("wrong", found.values)

    async def _mail_records(
        self, records: list[Wanted], sending: Sending | None
    ) -> tuple[_Answers, _Answers, dict[str, tuple[str, ...]]]:
        """The records that are not needed for links, what stands at the ends of their CNAMEs, and those."""
        asked = [(record.type, record.name) for record in records if not record.needed]
        behind = alignment.questions(sending) if asked and sending else []
        found = await asyncio.gather(*(self.resolver.look(name, kind) for kind, name in asked))
        ends = await asyncio.gather(*(self.resolver.chase(name, kind) for kind, name in behind))
        chains = {name: end.chain for (_, name), end in zip(behind, ends, strict=True) if end.chain}
        answers = dict(zip(behind, [end.end for end in ends], strict=True))
        return dict(zip(asked, found, strict=True)), answers, chains


def _split(text: str) -> list[str]:
    return [part.strip().lower().rstrip(".") for part in text.split(",") if part.strip()]
