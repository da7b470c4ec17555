"""One host's certificate, from pre-flight to the store. Invariant: one node at a time orders for a host (store
lock); an order the CA knows is gone on with, not made again; the old certificate stays until the new one is
stored; every way it can end leaves one sentence in `Progress.error`.

1. lock; somebody else was quicker: done
2. not before `next_at` (back-off, the CA's Retry-After)
3. the order under way, if there is one; else pre-flight, budget, new order
4. challenges: HTTP-01 through the store, DNS-01 by update in delegated zones
5. finalize, download, store; the host is live
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from brandproxy.acme import Account, AcmeAway, AcmeRefused, Challenge, Order, ari_of, key_pem, new_key
from brandproxy.certs import alarms, progress
from brandproxy.certs.accounts import Accounts
from brandproxy.certs.budget import Budget, OverBudget
from brandproxy.certs.preflight import DnsUnknown, NotReady, Preflight
from brandproxy.certs.progress import Pending, Progress
from brandproxy.certs.vault import Certificate, Vault, certificate, covers
from brandproxy.context import Context
from brandproxy.core import caa
from brandproxy.core.records import certificate_names
from brandproxy.dnsupdate import UpdateAway, Updater, UpdateRefused, open_updater
from brandproxy.errors import BadInput, BadSettings
from brandproxy.model import Host, HostState
from brandproxy.onboarding import Looker
from brandproxy.store import keys
from brandproxy.store.seal import open_seal

log = logging.getLogger(__name__)

_ORDER_LASTS = 3600.0  # seconds an order under way is gone on with
_WAIT, _WAIT_MOST = 60.0, 3600.0  # seconds until another try when nothing was wrong with the host
_PROPAGATION = 60.0  # seconds for our secondaries to take over a challenge record
_SKEW = 300.0  # seconds our clock may differ from the CA's


class Orders:
    def __init__(self, context: Context, now: Callable[[], float] = time.time) -> None:
        settings = context.settings
        self._store, self._settings, self._now = context.store, settings.certs, now
        self._seal = open_seal(settings)
        self.vault = Vault(context.store, self._seal)
        self.accounts = Accounts(context.store, self._seal, settings.certs)
        self.budget = Budget(context.store, settings.certs)
        self._looker = Looker(settings)
        self._preflight = Preflight(context.store, settings, self._looker)
        self._updater = open_updater(settings.dns)
        self._directory, self._registry = context.directory, context.registry

    async def obtain(self, host: Host, old: Certificate | None, force: bool = False) -> Certificate | None:
        """A new certificate for the host in place of `old`; None when there is none now, `Progress` tells why.

        `force`: whatever the instant of renewal and the back-off say.
        Raises Locked while another node is at it, StoreUnavailable.
        """
        async with self._store.lock(f"acme/{host.zone or host.name}"):
            if not await self._is_still(host):
                return None
            present = await self.vault.get(host.name)
            if present is not None and (old is None or present.serial != old.serial):
                return present
            shared = await self._sibling(host, old)
            if shared is not None:
                await self.vault.put(shared)
                return shared
            before = await progress.read(self._store, host.name)
            if not force and present is not None and not before.due(present.serial, self._now()):
                return present
            if not force and before.waits(self._now()):
                return None
            fresh, after = await self._tried(host, present, before)
            if not await self._is_still(host):
                return None  # a certificate must not outlive its host, nor go to the name's next owner
            if fresh is not None:
                await self.vault.put(fresh)
                after = Progress()
            else:
                await alarms.failing(self._store, host, present, after, self._now())
            await progress.write(self._store, host.name, after)
            return fresh

    async def _is_still(self, host: Host) -> bool:
        """Whether the host is there as it was, and proven: nobody else gets a certificate for its name."""
        entry = await self._store.get(keys.host(host.name))
        if entry is None:
            return False
        there = self._registry.codec.host(entry.key, entry.value)
        return there.target == host.target and there.proven and there.state is not HostState.SUSPENDED

    async def _sibling(self, host: Host, old: Certificate | None) -> Certificate | None:
        """A newer wildcard certificate of another host in the same delegated zone: one order serves them all."""
        beside = [
            h.name
            for h in self._directory.hosts()
            if host.zone and h.zone == host.zone and h.tenant == host.tenant and h.proven
        ]
        for name in beside:
            found = await self.vault.get(name) if name != host.name else None
            newer = found is not None and found.not_after > (old.not_after if old else self._now() + _WAIT)
            if found is not None and newer and covers(found.names, host.name):
                return certificate(host.name, found.chain, found.key, found.ca)
        return None

    async def _tried(
        self, host: Host, present: Certificate | None, before: Progress
    ) -> tuple[Certificate | None, Progress]:
        """The new certificate, or what to remember of the failure."""
        now, url = self._now(), self._authority(before)
        left = present.not_after - now if present is not None else math.inf
        second = self._settings.fallback if url == self._settings.ca else self._settings.ca
        cas = (url, second) if second else (url,)
        try:
            return await self._ordered(host, present, before, url), before
        except OverBudget as over:
            return None, before.waiting(str(over), "over-budget", over.free_at, now)
        except DnsUnknown as unknown:
            return None, before.waiting(str(unknown), "dns-failing", now + _again(before), now)
        except NotReady as fault:
            return None, before.failed(str(fault), fault.code, now, left)
        except AcmeRefused as refused:
            await self._count(host, url, refused)
            return None, before.failed(str(refused), refused.code or "refused", now, left, cas, refused.retry_in)
        except AcmeAway as away:  # an order under way is gone on with when the CA is back
            pending = (await progress.read(self._store, host.name)).pending
            failed = before.failed(str(away), "ca-away", now, left, cas, away.retry_in)
            return None, replace(failed, pending=pending)
        except (UpdateAway, UpdateRefused) as fault:
            return None, before.failed(str(fault), "dns-update", now, left)
        except (BadInput, BadSettings) as fault:
            return None, before.failed(f"the CA's answer cannot be used: {fault}", "ca-answer", now, left)

    async def _count(self, host: Host, url: str, refused: AcmeRefused) -> None:
        """A refusal's consequences beyond the host's back-off."""
        if refused.code in ("unauthorized", "connection", "dns", "caa", "tls", "incorrectResponse"):
            await self.budget.failed(url, host.name, self._now())
        if refused.code == "accountDoesNotExist":
            self.accounts.forget(url)

    def _authority(self, before: Progress) -> str:
        """The CA to ask: the second one every other time, once the first has failed twice in a row, or when the
        first asked to be left alone."""
        if before.pending is not None:
            return before.pending.ca
        first, second = self._settings.ca, self._settings.fallback
        if second and before.failures >= 2 and before.failures % 2 == 0:
            first, second = second, first
        rest = before.rests.get(first, 0.0), before.rests.get(second, 0.0) if second else math.inf
        return second if rest[0] > self._now() and rest[1] < rest[0] else first

    async def _ordered(self, host: Host, present: Certificate | None, before: Progress, url: str) -> Certificate:
        account = await self.accounts.open(url)
        if abs(account.skew) > _SKEW:
            await account.measure()
        if abs(account.skew) > _SKEW:
            raise NotReady(f"this machine's clock is {abs(account.skew):.0f} s away from the CA's", "clock")
        pending, order = await self._resumed(account, host, before)
        if pending is None or order is None:
            pending, order = await self._begun(account, host, present, before)
        pem = self._seal.open(pending.key.encode())
        try:
            chain = await self._finished(account, host, order, _request(pem, pending.names))
        except (AcmeRefused, NotReady, UpdateAway, UpdateRefused):
            await self.budget.give_back(url, host.name, pending.names, pending.at)
            raise
        return certificate(host.name, chain, pem, url)

    async def _finished(self, account: Account, host: Host, order: Order, csr: bytes) -> str:
        """The chain of an order, whatever state it is in."""
        if order.status == "pending":
            kind = "dns-01" if host.zone else "http-01"
            async with self._answered(host, await account.challenges(order, kind)) as challenges:
                for challenge in challenges:
                    await account.answer(challenge)
                order = await account.settle(order)
        return await account.finish(order, csr)

    async def _resumed(
        self, account: Account, host: Host, before: Progress
    ) -> tuple[Pending | None, Order | None]:
        """The order under way, as far as the CA still knows it and it can still succeed."""
        pending = before.pending
        if pending is None or pending.ca != account.url:
            return None, None
        if pending.at >= self._now() - _ORDER_LASTS:
            try:
                order = await account.resume(pending.uri)
                if order.status != "invalid":
                    return pending, order
            except AcmeRefused:
                pass
        await self.budget.give_back(pending.ca, host.name, pending.names, pending.at)
        return None, None

    async def _begun(
        self, account: Account, host: Host, present: Certificate | None, before: Progress
    ) -> tuple[Pending, Order]:
        if host.zone:
            await self._primary().replace(host.zone, host.name, "CNAME", f"{host.target}.")
        await self._preflight.check(host, caa.Issuer(self._settings.caa_names, account.uri))
        names, at = certificate_names(host), self._now()
        again = present is not None and present.ca == account.url and set(present.names) == set(names)
        by_ca = present is not None and present.ca == account.url and before.from_ca
        if not by_ca:
            await self.budget.take(account.url, host.name, names, present is not None, at, again)
        pem = key_pem(new_key())
        replaces = ari_of(_leaf(present)) if present is not None and present.ca == account.url else ""
        try:
            order = await account.order(_request(pem, names), names, self._settings.profile, replaces)
        except (AcmeAway, AcmeRefused):
            await self.budget.give_back(account.url, host.name, names, at)
            raise
        sealed = self._seal.seal(pem).decode()
        pending = Pending(account.url, order.uri, sealed, names, at)
        await progress.write(self._store, host.name, replace(before, pending=pending))
        return pending, order

    @asynccontextmanager
    async def _answered(self, host: Host, challenges: list[Challenge]) -> AsyncIterator[list[Challenge]]:
        """Answers in place while the block runs, and gone afterwards.

        They stay when this node is told to stop: the CA may be asking, and another node goes on with the order.
        """
        stopped = False
        try:
            for challenge in challenges:
                await self._put(host, challenge)
            yield challenges
        except asyncio.CancelledError:
            stopped = True
            raise
        finally:
            for challenge in challenges if not stopped else ():
                await self._take_back(host, challenge)

    async def _put(self, host: Host, challenge: Challenge) -> None:
        if not host.zone:
            await self._store.put(keys.challenge(host.name, challenge.token), challenge.answer.encode())
            return
        name = f"_acme-challenge.{challenge.name}"
        await self._primary().add(host.zone, name, "TXT", challenge.answer)
        end = time.monotonic() + _PROPAGATION
        while not await self._looker.resolver.everywhere(name, "TXT", challenge.answer):
            if time.monotonic() > end:
                raise NotReady(f"the name servers of {host.zone} do not take over our records", "dns-update")
            await asyncio.sleep(0.5)

    def _primary(self) -> Updater:
        if self._updater is None:
            raise NotReady("no primary is set that takes DNS updates (dns.update_server)", "dns-update")
        return self._updater

    async def _take_back(self, host: Host, challenge: Challenge) -> None:
        if not host.zone:
            await self._store.delete(keys.challenge(host.name, challenge.token))
            return
        if self._updater is not None:
            try:
                name = f"_acme-challenge.{challenge.name}"
                await self._updater.remove(host.zone, name, "TXT", challenge.answer)
            except (UpdateAway, UpdateRefused) as fault:
                log.warning("certificates: challenge record of %s stays: %s", challenge.name, fault)


def _again(before: Progress) -> float:
    """Seconds until DNS that did not answer is asked again: ever longer, so that slow zones take few turns."""
    waited = before.next_at - before.tried_at if before.code == "dns-failing" else 0.0
    return min(max(2 * waited, _WAIT), _WAIT_MOST)


def _leaf(present: Certificate) -> x509.Certificate:
    return x509.load_pem_x509_certificates(present.chain.encode())[0]


def _request(pem: bytes, names: tuple[str, ...]) -> bytes:
    """A signing request with an empty subject: the CA names the certificate (RFC 8555 §7.4)."""
    key = serialization.load_pem_private_key(pem, None)
    dns = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(dns, False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]
