"""What every way in shares: whose message, which references, how long, and what happens when it fails.

Failure, by class (design §4); no class ever loses, cuts or doubles a message:
1. nobody's message (`lookup` says why), or a tenant nobody knows: passes as it is, without our control headers
2. content we cannot read, and a fault of our own while reading it: the same, counted and logged
3. the store away when it had to be asked, or the time up: `Retryable`, the sender tries again; with
   `mail.on_failure = "pass"` the message passes as in 1
4. more messages at once than `mail.max_running`: `Busy`, the sender tries again, whatever `on_failure` says
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram

import brandproxy
from brandproxy.context import Context
from brandproxy.core.headers import Control
from brandproxy.core.report import Report, Result
from brandproxy.errors import BadInput, NotFound, Retryable
from brandproxy.filters import control
from brandproxy.filters.control import Said
from brandproxy.filters.lookup import NOBODY, Hints, Identity, Lookup, Verdict
from brandproxy.identities import Book
from brandproxy.model import References, Tenant

log = logging.getLogger(__name__)

MESSAGES = Counter("brandproxy_mail_messages", "Messages by way in and what became of them", ["way", "outcome"])
SECONDS = Histogram(
    "brandproxy_mail_seconds", "Time from the whole message to the answer", ["way"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30, 60),
)  # fmt: skip
DENIED = Counter("brandproxy_mail_denied", "Messages that are nobody's, by way in and why", ["way", "reason"])
RUNNING = Gauge("brandproxy_mail_running", "Messages being worked on")

_NOBODYS = "nobody's"
UNKNOWN = "unknown tenant"

# Up to here rewriting holds the event loop for at most about 4 ms (128 KB, 93 links); what is larger goes to a
# thread, where 5 MB hold it for 9 ms and 48 MB for 57 ms at a time.
_INLINE = 128 << 10


class Busy(Retryable):
    action = "Send fewer messages at once, or run more filters (mail.max_running)."


class TookTooLong(Retryable):
    action = "Try again; if it goes on, look at the load and at mail.timeout."


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message at a way in. Addresses are bare.

    `identity` and `references` are what the caller knows for certain; references go before the control headers.
    `said` is what the headers say, when the caller has read them already.
    """

    way: str  # "milter", "smtp", "lmtp" or "http"
    message: bytes
    sender: str = ""
    recipients: tuple[str, ...] = ()
    identity: Identity = field(default_factory=Identity)
    queue_id: str = ""
    references: References = field(default_factory=References)
    said: Said | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`report` is None when the message was nobody's. `word` is the `outcome` label of the metrics."""

    message: bytes
    word: str
    tenant: str = ""
    report: Report | None = None
    reason: str = ""  # why it is nobody's


class Pipeline:
    """One per process and way in; safe for any number of messages at once on one event loop."""

    def __init__(self, context: Context) -> None:
        self._mail = context.settings.mail
        self._context = context
        self._book = Book()
        self._lookup = Lookup(context.directory, self._mail, self._book)
        context.directory.changed.append(self._book.apply)
        context.directory.reloaded.append(self._book.load)
        # Rewriting holds the interpreter: a second thread would only take turns with the first.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rewrite")
        self._running = 0

    async def start(self) -> None:
        """Read the map of logins, which is not asked of the store for each message. Raises StoreUnavailable."""
        if not self._book.loaded:
            await self._book.load(self._context.store)

    @property
    def busy(self) -> bool:
        return self._running >= self._mail.max_running

    def check_load(self, way: str) -> None:
        """Raises Busy; asked where refusing is cheap for the sender, and again by `process`."""
        if self.busy:
            self.count(way, "busy")
            raise Busy("too many messages at once")

    def count(self, way: str, word: str) -> None:
        MESSAGES.labels(way, word).inc()

    def guess(self, identity: Identity, sender: str = "") -> Verdict:
        """Whose message it will be by its envelope alone, before its headers are there."""
        return self._lookup.decide(identity, Hints(sender=sender))

    def said(self, head: bytes) -> Said | None:
        """What a message says of itself; None is a fault of ours, which `process` will meet again and count."""
        try:
            return control.read(head)
        except Exception:
            log.exception("reading the headers failed")
            return None

    def is_nobodys(self, arrival: Arrival) -> bool:
        """Whether nothing is to be done to a message with this envelope and these headers; counts it then."""
        said = arrival.said
        try:
            verdict = self._owner(arrival, said) if said is not None and said.control == Control() else None
        except Exception:
            log.exception("looking for the tenant failed: queue id %s", arrival.queue_id)
            return False
        if verdict is None or verdict.tenant:
            return False
        self._deny(arrival, said or Said(), verdict)
        self.count(arrival.way, _NOBODYS)
        return True

    async def process(self, arrival: Arrival) -> Outcome:
        """The message to send on. Raises Retryable: nothing was done, let the sender try again."""
        self.check_load(arrival.way)
        with self._counted(), SECONDS.labels(arrival.way).time():
            try:
                async with asyncio.timeout(self._mail.timeout):
                    outcome = await self._rewrite(arrival)
            except TimeoutError as error:
                outcome = self._failed(arrival, TookTooLong("the message took too long"), error)
            except Retryable as error:
                outcome = self._failed(arrival, error, error)
            except Exception:  # a fault of ours must not stop somebody's mail, today and at each new try
                log.exception("a fault of ours: queue id %s", arrival.queue_id)
                outcome = _untouched(arrival, "fault", "")
        self.count(arrival.way, outcome.word)
        return outcome

    async def _rewrite(self, arrival: Arrival) -> Outcome:
        await self.start()
        said = arrival.said or control.read(arrival.message)
        verdict = self._owner(arrival, said)
        slug = verdict.tenant
        if not slug:
            self._deny(arrival, said, verdict)
        tenant = await self._tenant(slug) if slug else None
        if tenant is None:
            return _untouched(arrival, UNKNOWN if slug else _NOBODYS, slug, verdict.reason)
        message = arrival.message
        if len(arrival.recipients) > 1:  # the links of all are the same: they are nobody's in particular
            message = control.strip(message, "recipient")
        references = _references(arrival, said, tenant)
        base_url = self._context.directory.base_url(slug)
        try:
            result = await self._work(message, tenant, references, base_url)
        except Exception:  # as in `process`, but it is known whose message it is, and so its way on
            log.exception("rewriting failed: tenant %s, queue id %s", slug, arrival.queue_id)
            return _untouched(arrival, "fault", slug)
        word = "rewritten" if result.report.rewritten else "unchanged"
        return Outcome(result.message, word, slug, result.report)

    async def _work(self, message: bytes, tenant: Tenant, references: References, base_url: str | None) -> Result:
        now = int(time.time())
        if len(message) <= _INLINE:
            return brandproxy.rewrite(message, tenant, references, base_url, now)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, brandproxy.rewrite, message, tenant, references, base_url, now
        )

    def _owner(self, arrival: Arrival, said: Said) -> Verdict:
        return self._lookup.decide(arrival.identity, _hints(arrival, said))

    def _deny(self, arrival: Arrival, said: Said, verdict: Verdict) -> None:
        """Tell why a message is nobody's; what brings no identity and looks like no tenant's is everyday mail."""
        DENIED.labels(arrival.way, verdict.reason).inc()
        if verdict.reason != NOBODY or self._lookup.claims(_hints(arrival, said)):
            log.warning(
                "%s: nobody's mail: %s (login %.100r, client %s, sender %.100r, tenant named %.70r, queue id %s)",
                arrival.way, verdict.reason, arrival.identity.login, arrival.identity.address, arrival.sender,
                said.control.tenant, arrival.queue_id,
            )  # fmt: skip

    async def _tenant(self, slug: str) -> Tenant | None:
        """From memory; from the store when it is not there yet. Raises StoreUnavailable."""
        known = self._context.directory.tenant(slug)
        if known is not None:
            return known
        try:
            return await self._context.registry.tenant(slug)
        except (NotFound, BadInput):  # a header may say what no tenant can be called
            return None

    def _failed(self, arrival: Arrival, error: Retryable, cause: Exception) -> Outcome:
        log.warning("%s: %s", arrival.way, error)
        if self._mail.on_failure == "tempfail":
            self.count(arrival.way, "tempfail")
            raise error from cause
        return _untouched(arrival, "passed", "")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        RUNNING.inc()
        try:
            yield
        finally:
            self._running -= 1
            RUNNING.dec()


def _untouched(arrival: Arrival, word: str, slug: str, reason: str = "") -> Outcome:
    return Outcome(control.strip(arrival.message), word, slug, reason=reason)


def _hints(arrival: Arrival, said: Said) -> Hints:
    return Hints(said.control.tenant, arrival.sender, said.authors)


def _references(arrival: Arrival, said: Said, tenant: Tenant) -> References:
    """What the caller knows; where neither it nor a control header says, the queue id and the address's hash."""
    given, header = arrival.references, said.control
    message = given.message or ("" if header.message else control.usable(arrival.queue_id))
    recipient = given.recipient
    if len(arrival.recipients) == 1 and not (recipient or header.recipient):
        recipient = recipient_reference(tenant, arrival.recipients[0])
    elif len(arrival.recipients) > 1:
        recipient = ""
    return References(given.campaign, message, recipient, given.sent_at)


def recipient_reference(tenant: Tenant, address: str) -> str:
    """A keyed hash of the address: the same person again, without the address (design §3).

    72 bits in 12 characters; keyed by the tenant's oldest key, so that key rotation does not change people.
    """
    local, _, domain = address.rpartition("@")
    text = b"brandproxy recipient\0" + f"{local}@{domain.lower()}".encode("utf-8", "surrogateescape")
    return urlsafe_b64encode(hmac.digest(tenant.keys[-1].secret, text, "sha256")[:9]).decode()
