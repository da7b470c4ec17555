"""The SMTP and LMTP proxy: after-queue content filter, or the tenants' relay.

Invariant: the client's answer is the next hop's. MAIL and RCPT are passed on as they come, the message after it
was rewritten; a "250" after the data means that the next hop has it. There is no queue here: nothing to lose.

1. The way on is chosen at MAIL: the relay of the tenant that the client's identity and the sender lead to, else
   `mail.next_hop`. A message that turns out (by its headers) to be another's or nobody's goes to that one's relay
   or to `mail.next_hop`: sender and recipients are told again there, and a refusal of any refuses the message.
   What is nobody's never goes through a tenant's relay.
2. With `mail.copies = "recipient"` each recipient gets his own copy. One SMTP reply cannot say "this one yes, that
   one no", so SMTP takes one recipient a time (452, RFC 5321 §4.5.3.1.10), and LMTP answers for each.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass
from typing import Any

from aiosmtpd.smtp import LoginPassword

from brandproxy import access
from brandproxy.config import Mail
from brandproxy.context import Context
from brandproxy.errors import BadSettings, Retryable
from brandproxy.filters import listening
from brandproxy.filters.guesses import Guesses
from brandproxy.filters.listening import Client
from brandproxy.filters.lookup import SENDER, Identity
from brandproxy.filters.nexthop import NextHop, Reply
from brandproxy.filters.peers import Peers, check, listeners
from brandproxy.filters.pipeline import Arrival, Pipeline
from brandproxy.filters.smtpd import Address, Conversation, LmtpConversation, Transaction, plain
from brandproxy.grants import TRUSTED, Grant
from brandproxy.model import Relay

log = logging.getLogger(__name__)

# What the next hop must offer for a parameter to be passed on; others' absence is nobody's loss (RFC 3461 §4.5
# leaves notifications undone, SIZE is an estimate), but 8-bit addresses cannot go where they are not known.
_NEEDS = {
    "BODY": "8bitmime", "SIZE": "size", "SMTPUTF8": "smtputf8",
    "RET": "dsn", "ENVID": "dsn", "NOTIFY": "dsn", "ORCPT": "dsn", "AUTH": "",
}  # fmt: skip
_SILENCE = 600.0  # seconds without a word from the client
_EXTENSIONS = ("PIPELINING", "ENHANCEDSTATUSCODES", "DSN")
_NOT_YOURS = "5.7.1 this key may not send as that sender"


class Front:
    """aiosmtpd's handler for all conversations of one listener; `grant`: of mail without a login."""

    def __init__(
        self, context: Context, pipeline: Pipeline, guesses: Guesses, way: str, grant: Grant | None = None
    ) -> None:
        self.guesses = guesses
        self._context = context
        self._mail = context.settings.mail
        self._pipeline = pipeline
        self._way, self._grant = way, grant
        self._senders = Peers((*self._mail.networks, *self._mail.peers))
        self._xclients = Peers(self._mail.xclient_networks)
        self._default = _default_relay(context)
        self.conversations: set[Conversation] = set()

    def may_forward(self, server: Conversation) -> bool:
        """Who came by a UNIX socket was let in by its file's mode."""
        return server.peer.address in self._senders if server.peer.by_tcp else True

    def may_xclient(self, server: Conversation) -> bool:
        return server.peer.address in self._xclients if server.peer.by_tcp else self._xclients.unix

    def may_send(self, server: Conversation) -> bool:
        """Logged in here or in front of us, or a client, as XCLIENT said if it did, that need not log in."""
        if server.key is not None or server.login:
            return True
        return server.client in self._senders if "ADDR" in server.xclient else self.may_forward(server)

    async def login(self, given: LoginPassword) -> Grant | None:
        """What an API key sent as the password may do, or None when it is wrong."""
        try:
            key = f"Bearer {given.password.decode('utf-8', 'replace')}"
            who = await access.authenticate(self._context.store, key)
        except access.AccessDenied:
            return None
        if not who.has(access.Scope.REWRITE):
            return None
        return TRUSTED if who.tenant is None else Grant((who.tenant,))

    async def handle_EHLO(
        self, server: Conversation, session: Any, envelope: Any, hostname: str, lines: list[str]
    ) -> list[str]:
        session.host_name = hostname
        server.transaction, server.xforward = None, {}
        ours = [*_EXTENSIONS]
        if self.may_forward(server):
            ours.append("XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE")
        if self.may_xclient(server):
            ours.append("XCLIENT NAME ADDR PORT PROTO HELO LOGIN")
        lines = [line[4:] for line in lines if line[4:] != "HELP"] + ours
        return ["\r\n".join(f"250{' ' if line is lines[-1] else '-'}{line}" for line in lines)]

    async def handle_MAIL(
        self, server: Conversation, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if not self.may_send(server):
            return "530 5.7.0 Authentication required"
        transaction = Transaction(server.said())
        verdict = self._pipeline.guess(self._identity(server), transaction.sender.bare)
        if server.key is not None and verdict.reason == SENDER:
            return f"553 {_NOT_YOURS}"
        try:
            self._pipeline.check_load(self._way)
            await self._reach(server, *self._relay(verdict.tenant))
            reply = await self._tell_sender(server, transaction)
        except Retryable as error:
            return f"451 4.4.1 {_line(error)}"
        if reply.positive:
            server.transaction = transaction
            envelope.mail_from = address
        return str(reply)

    async def handle_RCPT(
        self, server: Conversation, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        transaction, hop = server.transaction, server.hop
        assert transaction is not None
        assert hop is not None
        if transaction.recipients and self._mail.copies == "recipient" and not server.lmtp:
            return "452 4.5.3 one recipient at a time here"
        recipient = server.said()
        try:
            reply = await hop.rcpt(recipient.path, _passed(hop, recipient))
        except Retryable as error:
            return f"451 4.4.1 {_line(error)}"
        if reply.positive:
            transaction.recipients.append(recipient)
            envelope.rcpt_tos.append(address)
        return str(reply)

    async def handle_DATA(self, server: Conversation, session: Any, envelope: Any) -> str:
        transaction, server.transaction = server.transaction, None
        assert transaction is not None
        with server.working():
            return await self._deliver(server, transaction, envelope.original_content)

    async def handle_RSET(self, server: Conversation, session: Any, envelope: Any) -> str:
        server.transaction, server.xforward = None, {}
        return "250 2.0.0 Ok"

    async def handle_QUIT(self, server: Conversation, session: Any, envelope: Any) -> str:
        if server.hop is not None:
            await server.hop.quit()
        return "221 2.0.0 Bye"

    async def handle_exception(self, error: Exception) -> str:
        if not isinstance(error, EOFError | ConnectionError):  # the client is gone: nobody to tell
            log.error("%s: a fault of ours", self._way, exc_info=error)
        return "451 4.3.0 internal fault, try again"

    async def _deliver(self, server: Conversation, transaction: Transaction, content: bytes) -> str:
        recipients = transaction.recipients
        if self._mail.copies == "recipient" and len(recipients) > 1:
            replies = []
            for recipient in recipients:
                alone = Transaction(transaction.sender, [recipient])
                replies.append(str(await self._once(server, alone, content, told=False)))
            return "\r\n".join(replies)
        reply = str(await self._once(server, transaction, content, told=True))
        return "\r\n".join([reply] * (len(recipients) if server.lmtp else 1))  # RFC 2033 §4.2

    async def _once(self, server: Conversation, transaction: Transaction, content: bytes, told: bool) -> Reply:
        """One message to one hop; `told`: that hop knows the transaction. Its reply, or ours why not."""
        try:
            outcome = await self._pipeline.process(self._arrival(server, transaction, content))
            if server.key is not None and outcome.reason == SENDER:
                return Reply(550, (_NOT_YOURS,))
            owner, relay = self._relay(outcome.tenant)
            hop = server.hop
            if not told or hop is None or not hop.connected or not hop.belongs(owner, relay):
                refusal = await self._tell_again(server, owner, relay, transaction)
                if refusal is not None:
                    return refusal
            assert server.hop is not None
            return await server.hop.data(outcome.message)
        except Retryable as error:
            return Reply(451, (f"4.4.1 {_line(error)}",))

    def _arrival(self, server: Conversation, transaction: Transaction, content: bytes) -> Arrival:
        return Arrival(
            self._way,
            content,
            sender=transaction.sender.bare,
            recipients=tuple(recipient.bare for recipient in transaction.recipients),
            identity=self._identity(server),
            queue_id=plain(server.xforward.get("IDENT", "")),
        )

    def _identity(self, server: Conversation) -> Identity:
        key = server.key
        return Identity(key, server.login, self._grant, server.client, strict=key is not None)

    async def _reach(self, server: Conversation, owner: str, relay: Relay) -> NextHop:
        """The conversation's connection to `relay`, in a state to take MAIL."""
        hop = server.hop
        if hop is not None and hop.belongs(owner, relay) and await hop.ready():
            return hop
        if hop is not None:
            await hop.quit()
        server.hop = hop = NextHop(relay, server.hostname, owner)
        await hop.open()
        if server.xclient:
            await hop.introduce("XCLIENT", server.xclient)
        return hop

    async def _tell_sender(self, server: Conversation, transaction: Transaction) -> Reply:
        hop, sender = server.hop, transaction.sender
        assert hop is not None
        if "SMTPUTF8" in map(str.upper, sender.parameters) and not hop.offers("smtputf8"):
            return Reply(553, ("5.6.7 the next server takes no internationalized addresses",))  # RFC 6531 §3.5
        # The next hop forgets them with each transaction, so each is told its own.
        await hop.introduce("XFORWARD", {**_from_xclient(server.xclient), **server.xforward})
        return await hop.mail(sender.path, _passed(hop, sender))

    async def _tell_again(
        self, server: Conversation, owner: str, relay: Relay, transaction: Transaction
    ) -> Reply | None:
        """The whole envelope to another (or a new) connection; the first refusal, or None when all was taken."""
        hop = await self._reach(server, owner, relay)
        reply = await self._tell_sender(server, transaction)
        for recipient in transaction.recipients:
            if not reply.positive:
                return reply
            reply = await hop.rcpt(recipient.path, _passed(hop, recipient))
        return None if reply.positive else reply

    def _relay(self, slug: str) -> tuple[str, Relay]:
        """Whose relay a tenant's mail goes through (empty: the operator's), and the relay."""
        tenant = self._context.directory.tenant(slug) if slug else None
        return (slug, tenant.relay) if tenant and tenant.relay else ("", self._default)


def _passed(hop: NextHop, address: Address) -> list[str]:
    """The parameters the next hop understands."""
    names = ((word.partition("=")[0].upper(), word) for word in address.parameters)
    return [word for name, word in names if _NEEDS.get(name) and hop.offers(_NEEDS[name])]


def _from_xclient(attributes: dict[str, str]) -> dict[str, str]:
    return {name: attributes[name] for name in ("NAME", "ADDR", "PORT", "PROTO", "HELO") if name in attributes}


def _line(error: Retryable) -> str:
    return "".join(c for c in str(error) if c.isprintable() and c.isascii())[:400]


def _default_relay(context: Context) -> Relay:
    place = listening.address(context.settings.mail.next_hop)
    assert isinstance(place, tuple)  # `config` lets no other through
    return Relay(*place, tls=context.settings.mail.next_hop_tls)


def _tls(context: Context) -> ssl.SSLContext | None:
    path = context.settings.mail.certificate
    if path is None:
        return None
    try:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(path)
        return tls
    except (OSError, ssl.SSLError) as error:
        raise BadSettings(f"mail.certificate: {error}") from error


@dataclass(frozen=True, slots=True)
class _Way:
    name: str
    where: str
    grant: Grant | None
    kind: type[Conversation]
    implicit: bool = False  # TLS from the first byte on (RFC 8314 §3.3)


def _ways(mail: Mail) -> list[_Way]:
    """Raises BadSettings."""
    if mail.smtps and mail.certificate is None:
        raise BadSettings("mail.smtps needs a certificate: set mail.certificate")
    return [
        *(_Way("smtp", *one, Conversation) for one in listeners(mail, "smtp", ("smtp", mail.smtp))),
        *(_Way("smtp", *one, Conversation, True) for one in listeners(mail, "", ("smtps", mail.smtps))),
        *(_Way("lmtp", *one, LmtpConversation) for one in listeners(mail, "lmtp", ("lmtp", mail.lmtp))),
    ]


async def run(context: Context) -> None:
    """Serve at `mail.smtp` and its like until cancelled; what was begun is ended, within `mail.timeout` s."""
    mail, tls, pipeline = context.settings.mail, _tls(context), Pipeline(context)
    check(mail)
    await pipeline.start()
    loop, hostname, balancers = asyncio.get_running_loop(), socket.gethostname(), Peers(mail.proxy_networks)
    guesses = Guesses(loop.time)  # of all listeners together
    async with asyncio.TaskGroup() as group:
        for way in _ways(mail):
            front = Front(context, pipeline, guesses, way.name, way.grant)

            def connect(client: Client | None, front: Front = front, way: _Way = way) -> Conversation:
                return way.kind(
                    front, client, data_size_limit=mail.max_message, hostname=hostname, ident="brandproxy",
                    tls_context=None if way.implicit else tls, auth_require_tls=not way.implicit,
                    timeout=_SILENCE, loop=loop,
                )  # fmt: skip

            door = await listening.listen(connect, way.where, balancers, tls if way.implicit else None)
            log.info("%s listens at %s, next hop %s", way.name, way.where, mail.next_hop)
            group.create_task(listening.serve(door, front.conversations, mail.timeout))
