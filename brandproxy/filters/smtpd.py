"""The SMTP and LMTP server side: aiosmtpd, taught what a transparent proxy needs beside it.

- addresses and parameters are kept as the client wrote them (aiosmtpd normalises addresses and upper-cases
  parameters, which would break the case-sensitive ENVID and ORCPT of RFC 3461)
- DSN parameters (RFC 3461), PIPELINING (RFC 2920: commands are read one by one from what has arrived)
- XFORWARD (Postfix) from `mail.networks`, XCLIENT from `mail.xclient_networks`, each only
- logging in with an API key: user anything, password the key
- LMTP gives each recipient his reply after the data, whatever happened to the message
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, syntax

from brandproxy.errors import Retryable
from brandproxy.filters import receiving
from brandproxy.filters.guesses import LOGINS
from brandproxy.filters.listening import Client, client_of
from brandproxy.filters.nexthop import NextHop
from brandproxy.grants import Grant

_PATH = re.compile(  # no control characters: they would be a second command at the next hop
    r'(?P<verb>FROM|TO):\s*(?P<path><(?:"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*"|[^">\x00-\x1f\x7f])*>)(?P<rest>.*)',
    re.I | re.S,
)
_KEPT = {"FROM": ("RET", "ENVID", "AUTH"), "TO": ("NOTIFY", "ORCPT")}  # RFC 3461 §4, RFC 4954 §5
_XCLIENT = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
_XFORWARD = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")
_ABSENT = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_LOGINS = 3  # tries a connection; who guesses starts anew each time


@dataclass(slots=True)
class Address:
    """A path as the client wrote it, brackets included, with the parameters that go on with it."""

    path: str
    parameters: list[str]

    @property
    def bare(self) -> str:
        return self.path.removeprefix("<").removesuffix(">")


@dataclass(slots=True)
class Transaction:
    """What the client has said of the message it is about to send, and how far the next hop knows of it."""

    sender: Address
    recipients: list[Address] = field(default_factory=list)


class Conversation(SMTP):
    """One client. The handler (`filters.smtp.Front`) decides; this class speaks."""

    line_length_limit = 1 << 16  # of commands; the lines of a message may have any length
    command_size_limits = defaultdict(lambda: 4096)  # noqa: RUF012 - aiosmtpd's own name; DSN needs more than 512
    lmtp = False

    def __init__(self, handler: Any, told: Client | None = None, **options: Any) -> None:
        """`told`: who the client is when a balancer stands between."""
        limits = {"AUTH": _LOGINS, "*": 1 << 60}
        super().__init__(handler, enable_SMTPUTF8=True, authenticator=_note, command_call_limit=limits, **options)
        self._front = handler
        self.transaction: Transaction | None = None
        self.hop: NextHop | None = None
        self.key: Grant | None = None  # of the API key logged in with
        self.peer = Client(None, True)  # who connected
        self._told = told
        self.xclient: dict[str, str] = {}
        self.xforward: dict[str, str] = {}
        self._working = False
        self._said: Address | None = None
        self._unkept = ""  # the parameters aiosmtpd knows

    @property
    def idle(self) -> bool:
        return not self._working and not self.underway

    @property
    def underway(self) -> bool:
        """MAIL was said and its message not yet taken."""
        return self.envelope is not None and bool(self.envelope.mail_from)

    def close(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.write(b"421 4.3.2 going down, come back later\r\n")
            self.transport.close()

    @property
    def client(self) -> IPv4Address | IPv6Address | None:
        """The client's address: of the connection, or what XCLIENT said instead; None when it did not know."""
        return _address(plain(self.xclient["ADDR"])) if "ADDR" in self.xclient else self.peer.address

    @property
    def login(self) -> str:
        """Who logged in at the mail server in front, as it says."""
        return plain(self.xclient.get("LOGIN", ""))

    def connection_made(self, transport: Any) -> None:
        """Also after STARTTLS: what was said in the clear before, and by whom, is forgotten (RFC 3207 §4.2)."""
        super().connection_made(transport)
        assert self.session is not None
        self.peer = self._told or client_of(self.session.peer)
        self.key, self.xclient, self.xforward = None, {}, {}
        self.leave_hop()
        self._front.conversations.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._front.conversations.discard(self)
        self.leave_hop()
        super().connection_lost(error)

    def leave_hop(self) -> None:
        """The way on is closed, and what was told there is void."""
        self.transaction = None
        if self.hop is not None:
            self.hop.close()
            self.hop = None

    @contextmanager
    def working(self) -> Iterator[None]:
        """While the next hop is asked its own time limits hold; aiosmtpd's for silent clients does not."""
        self._working = True
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        try:
            yield
        finally:
            self._working = False
            if self.transport is not None:
                self._reset_timeout()

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        if self._tls_protocol is not None:
            await self.push("503 5.5.1 TLS is on already")
            return
        await super().smtp_STARTTLS(arg)

    async def smtp_GET(self, arg: str | None) -> None:
        """A program made to speak HTTP to us: what follows is nobody's mail. Postfix hangs up too."""
        await self.push("521 5.7.0 this is no web server")
        assert self._handler_coroutine is not None
        self._handler_coroutine.cancel()  # not a word more is read
        self._writer.close()

    smtp_POST = smtp_CONNECT = smtp_GET

    async def smtp_MAIL(self, arg: str | None) -> None:
        await super().smtp_MAIL(self._take(arg))

    async def smtp_RCPT(self, arg: str | None) -> None:
        await super().smtp_RCPT(self._take(arg))

    async def smtp_DATA(self, arg: str | None) -> None:
        assert self.envelope is not None
        recipients = len(self.envelope.rcpt_tos)
        if not recipients:
            await self.push("503 5.5.1 need RCPT command")
        elif arg:
            await self.push("501 5.5.4 Syntax: DATA")
        else:
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            try:
                reply = await self._received()
            except Exception as error:
                reply = self._for_each(await self.handle_exception(error), recipients)
            self._set_post_data_state()  # type: ignore[no-untyped-call]
            self.xforward = {}  # Postfix: they are the transaction's
            await self.push(reply)

    async def _received(self) -> str:
        assert self.envelope is not None
        limit = self.data_size_limit or 0
        content = await receiving.message(self._reader, limit, self._reset_timeout)
        if content is None:
            return self._for_each(f"552 5.3.4 more than {limit} bytes", len(self.envelope.rcpt_tos))
        self.envelope.original_content = content
        return str(await self._front.handle_DATA(self, self.session, self.envelope))

    def _for_each(self, reply: str, recipients: int) -> str:
        return "\r\n".join([reply] * (recipients if self.lmtp else 1))  # RFC 2033 §4.2

    def said(self) -> Address:
        """The path of the MAIL or RCPT being answered."""
        assert self._said is not None
        return self._said

    async def smtp_VRFY(self, arg: str | None) -> None:
        await self.push("252 2.0.0 send some mail, the next server will say")

    def _getaddr(self, arg: str) -> tuple[str, str]:
        """aiosmtpd takes addresses apart, at the cost of a small rewriting; here the next hop judges them."""
        return self.said().bare or "postmaster", self._unkept

    def _take(self, arg: str | None) -> str | None:
        """Keep the path and its parameters; give aiosmtpd those it knows to check."""
        match = _PATH.fullmatch(arg or "")
        if match is None:
            return None if arg is None else "malformed"  # an address without brackets: 501
        words = match["rest"].split()
        kept = [word for word in words if word.partition("=")[0].upper() in _KEPT[match["verb"].upper()]]
        if match["path"] == "<>" and match["verb"].upper() == "TO":
            return "malformed"
        self._said = Address(match["path"], words)
        self._unkept = " ".join(word for word in words if word not in kept)
        return arg

    async def auth_PLAIN(self, _: Any, args: list[str]) -> AuthResult:
        return await self._check(await super().auth_PLAIN(_, args))

    async def auth_LOGIN(self, _: Any, args: list[str]) -> AuthResult:
        return await self._check(await super().auth_LOGIN(_, args))

    async def _check(self, result: AuthResult) -> AuthResult:
        if not result.success:
            return result
        guesses = self._front.guesses
        if guesses.wait(self.client) > 0:  # the key is not looked at: guessing gains nothing by asking on
            LOGINS.labels("put off").inc()
            await self.push("454 4.7.0 too many wrong logins, try again later")  # RFC 4954 §6
            return AuthResult(success=False, handled=True)
        try:
            grant = await self._front.login(result.auth_data)
        except Retryable:
            await self.push("454 4.7.0 try again later")  # RFC 4954 §6
            return AuthResult(success=False, handled=True)
        if grant is None:
            guesses.wrong(self.client)
            return AuthResult(success=False, handled=False)
        LOGINS.labels("right").inc()
        self.key = grant
        return result

    @syntax("XFORWARD attribute=value…")
    async def smtp_XFORWARD(self, arg: str) -> None:
        """https://www.postfix.org/XFORWARD_README.html: for the log of the next hop."""
        if not self._front.may_forward(self):
            await self.push("550 5.7.1 not from here")
        elif self.underway:
            await self.push("503 5.5.1 MAIL transaction in progress")
        else:
            self.xforward |= _attributes(arg, _XFORWARD)
            await self.push("250 2.0.0 Ok")

    @syntax("XCLIENT attribute=value…")
    async def smtp_XCLIENT(self, arg: str) -> None:
        """https://www.postfix.org/XCLIENT_README.html: the session starts anew as that client's.

        It has that client's rights from then on, and no others: what it had logged in with is forgotten.
        """
        if not self._front.may_xclient(self):
            await self.push("550 5.7.1 not from here")
        elif self.underway:
            await self.push("503 5.5.1 MAIL transaction in progress")
        else:
            self.xclient |= _attributes(arg, _XCLIENT)
            self.leave_hop()  # it was told of another client
            self._set_rset_state()  # type: ignore[no-untyped-call]
            assert self.session is not None
            self.session.host_name, self.session.authenticated, self.key = None, False, None
            await self.push(f"220 {self.hostname} {self.__ident__}")


class LmtpConversation(Conversation, LMTP):
    """RFC 2033: LHLO, and one reply for each recipient after the data."""

    lmtp = True


def _note(server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
    """aiosmtpd asks for a verdict without waiting; ours comes from the store, in `Conversation._check`."""
    return AuthResult(success=True, auth_data=data)


def _attributes(arg: str, known: tuple[str, ...]) -> dict[str, str]:
    """Values stay in xtext (RFC 3461 §4): they go on as they came. One said to be absent is empty."""
    pairs = (word.partition("=") for word in (arg or "").split())
    return {
        name.upper(): "" if value.upper() in _ABSENT else value
        for name, equals, value in pairs
        if equals and name.upper() in known and value.isprintable()
    }


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """XCLIENT's form of an address."""
    try:
        return ip_address(text[5:] if text.upper().startswith("IPV6:") else text)
    except ValueError:
        return None


def plain(xtext: str) -> str:
    """What xtext stands for."""
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), xtext)
