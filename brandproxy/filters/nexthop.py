"""The way on: one conversation with the next mail server, opened by aiosmtplib.

aiosmtplib connects and speaks EHLO, STARTTLS and AUTH. The transaction itself is written here word for word, so
that the sender's own addresses and parameters reach the next server unchanged; and its replies are read by
`replies`, because aiosmtplib keeps what a server sends too much for the next command.

Why aiosmtplib and not smtplib: replies are awaited, not waited for in a thread per conversation, of which a
busy relay has hundreds.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import aiosmtplib

from brandproxy.errors import Retryable
from brandproxy.filters.replies import Replies
from brandproxy.model import Relay

# Seconds. A mail server waits 300 s for a reply to a command and 600 s for the one after the final dot
# (RFC 5321 §4.5.3.2): we give up first, but only just, because giving up after the dot can double a mail.
_CONNECT, _COMMAND, _FINAL = 30.0, 120.0, 570.0

_LINE_END = re.compile(rb"\r*\n")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BARE_CR = re.compile(rb"\r(?!\n)")


class NextHopAway(Retryable):
    action = "Check that the next mail server is up and that mail.next_hop or the tenant's relay names it."


@dataclass(frozen=True, slots=True)
class Reply:
    """What the next server said; `lines` without the code."""

    code: int
    lines: tuple[str, ...]

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 300

    def __str__(self) -> str:
        """For the sender, as RFC 5321 §4.2.1 writes replies of several lines."""
        last = len(self.lines) - 1
        return "\r\n".join(f"{self.code}{' ' if at == last else '-'}{line}" for at, line in enumerate(self.lines))


class NextHop:
    """One connection. Every method raises NextHopAway when the server is gone; the connection is then closed.

    `owner`: the slug of the tenant whose relay it is, or empty for the operator's own.
    """

    def __init__(self, relay: Relay, hello: str, owner: str = "") -> None:
        implicit = relay.port == 465 and relay.tls == "required"  # RFC 8314 §3.3
        start = {"none": False, "opportunistic": None}.get(relay.tls, not implicit)
        self.relay = relay
        self.owner = owner
        self.underway = False  # the server knows of a transaction that is not ended
        self._replies: Replies | None = None
        self._client = aiosmtplib.SMTP(
            hostname=relay.host,
            port=relay.port,
            local_hostname=hello,
            use_tls=implicit,
            start_tls=start,
            validate_certs=relay.tls == "required",
            username=relay.user or None,
            password=relay.password or None,
            timeout=_CONNECT,
        )

    @property
    def connected(self) -> bool:
        return self._replies is not None and self._replies.connected

    def belongs(self, owner: str, relay: Relay) -> bool:
        """Whether it is a connection to this relay of this owner: tenants share none, even to the same relay."""
        return (self.owner, self.relay) == (owner, relay)

    def offers(self, extension: str) -> bool:
        return self._client.supports_extension(extension)

    async def open(self) -> None:
        try:
            await self._client.connect()
            if self._client.is_ehlo_or_helo_needed:
                await self._client.ehlo()
            if self._client.transport is None or self._client.protocol is None:
                raise OSError("it closed the connection")
            self._replies = Replies(self._client.transport, self._client.protocol)
        except (aiosmtplib.SMTPException, ssl.SSLError, OSError, ValueError) as error:
            self.close()
            raise NextHopAway(f"{self.relay.host}:{self.relay.port} is not reachable: {error}") from error

    async def introduce(self, verb: str, attributes: dict[str, str]) -> None:
        """Tell XCLIENT or XFORWARD attributes, those the server knows, when it takes the command at all."""
        known = self._client.esmtp_extensions.get(verb.lower(), "").upper().split()
        words = [f"{name}={value}" for name, value in attributes.items() if value and name in known]
        if not words:
            return
        reply = await self.command(verb, *words)
        if verb == "XCLIENT" and reply.positive:
            await self.command("EHLO", self._client.local_hostname or "localhost")  # the session starts anew

    async def command(self, *words: str) -> Reply:
        line = " ".join(words).encode("utf-8", "surrogateescape")
        if _CONTROL.search(line):
            return Reply(501, ("5.5.4 control character in a parameter",))
        return await self._ask(line + b"\r\n", _COMMAND, asked=words == ("DATA",))

    async def mail(self, path: str, parameters: Sequence[str]) -> Reply:
        self.underway = True
        return await self.command("MAIL", "FROM:" + path, *parameters)

    async def rcpt(self, path: str, parameters: Sequence[str]) -> Reply:
        return await self.command("RCPT", "TO:" + path, *parameters)

    async def ready(self) -> bool:
        """Whether it takes a new MAIL; a transaction left open is dropped."""
        try:
            if self.connected and self.underway:
                self.underway = not (await self.command("RSET")).positive
            return self.connected and not self.underway
        except NextHopAway:
            return False

    async def data(self, message: bytes) -> Reply:
        """Hand over a message; its reply is the answer to whether the server has it."""
        reply = await self.command("DATA")
        if reply.code != 354:
            return reply if not reply.positive else Reply(451, ("4.5.0 the next server did not ask for the data",))
        reply = await self._ask(transparent(message), _FINAL)
        self.underway = False
        return reply

    async def quit(self) -> None:
        """Say goodbye without waiting for the answer long; the connection is closed in any case."""
        try:
            if self._replies is not None and self._replies.connected:
                await self._replies.ask(b"QUIT\r\n", 5)
        except OSError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        if self._replies is not None:
            self._replies.close()
        self._client.close()

    async def _ask(self, data: bytes, seconds: float, asked: bool = False) -> Reply:
        """What goes on to the client; `asked`: 354 is an answer too.

        421 means that it closes (RFC 5321 §3.8), and what is no reply to the command means nothing at all: to our
        client both are a reason to come back, and never that the message was taken.
        """
        try:
            if self._replies is None:
                raise OSError("the connection is closed")
            code, lines = await self._replies.ask(data, seconds)
        except OSError as error:  # TimeoutError is one
            raise self._gone(error) from error
        if code == 421 or not (200 <= code < 300 or 400 <= code < 600 or (asked and code == 354)):
            raise self._gone(Exception(f"{code} {' '.join(lines)}"))
        return Reply(code, tuple("".join(c for c in line if c.isprintable()) for line in lines))

    def _gone(self, error: Exception) -> NextHopAway:
        self.close()
        return NextHopAway(f"{self.relay.host}:{self.relay.port} went away: {error}")


def transparent(message: bytes) -> bytes:
    """The message as DATA carries it, with the final dot.

    Bare CR and LF are not allowed (RFC 5321 §2.3.8): left alone, a `LF . CRLF` could end the message early at a
    lenient server and smuggle a second one in. A bare LF is a line end that lost its CR, and so it was read by us.
    A bare CR was none: it goes where it stands before a line end, and is a space elsewhere, as at Postfix; as a
    line end it would make header fields and parts that nobody saw. Leading dots are doubled (§4.5.2).
    """
    lines = message.count(b"\r\n")  # counting is much faster than searching, and bare ones are rare
    if message.count(b"\n") != lines or message.count(b"\r") != lines:
        message = _LINE_END.sub(b"\r\n", message)
        message = _BARE_CR.sub(b" ", message)
    if not message.endswith(b"\r\n"):
        message += b"\r\n"
    if message.startswith(b"."):
        message = b"." + message
    return message.replace(b"\r\n.", b"\r\n..") + b".\r\n"
