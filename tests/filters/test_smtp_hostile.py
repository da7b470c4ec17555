"""The proxy against clients and next hops that lie, guess, smuggle or break off."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from brandproxy.errors import StoreUnavailable
from brandproxy.filters.pipeline import Pipeline
from brandproxy.filters.smtp import Front
from tests.conftest import free_port
from tests.filters.conftest import HTML, LINK
from tests.filters.mta import Sink, start_sink
from tests.filters.test_smtp import BRANDED, client, encrypt, proxy, recorder, say

OTHERS = HTML.replace(b"news@acme.example", b"a@example.net")


class Raw:
    """A client that says just what it is told to."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._file = self._socket.makefile("rb")
        self.reply()

    def reply(self) -> bytes:
        """One reply, the last line of it; b"" when the server hung up."""
        while (line := self._file.readline())[3:4] == b"-":
            pass
        return line.rstrip()

    def say(self, *lines: bytes) -> list[bytes]:
        """Each with its reply; what is sent together is one of `lines`."""
        replies = []
        for line in lines:
            self._socket.sendall(line + b"\r\n")
            replies.append(self.reply())
        return replies

    def encrypt(self, trust: ssl.SSLContext) -> None:
        self._socket = trust.wrap_socket(self._socket, server_hostname="localhost")
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


async def raw(port: int, work: Callable[[Raw], object]) -> None:
    def run() -> None:
        connection = Raw(port)
        try:
            work(connection)
        finally:
            connection.close()

    await asyncio.to_thread(run)


ENVELOPE = (b"MAIL FROM:<news@acme.example>", b"RCPT TO:<b@example.org>", b"RCPT TO:<c@example.org>")


async def test_lmtp_answers_for_each_recipient_when_the_message_is_too_large(tmp_path: Path) -> None:
    port = free_port()
    async with start_sink() as sink, proxy(tmp_path, sink, lmtp=f"127.0.0.1:{port}", max_message=1000):

        def work(peer: Raw) -> None:
            peer.say(b"LHLO x", *ENVELOPE, b"DATA")
            assert peer.say(b"x" * 2000 + b"\r\n.")[0][:3] == b"552"
            assert peer.reply()[:3] == b"552"
            peer.say(*ENVELOPE, b"DATA")  # both sides still agree on whose turn it is
            assert peer.say(HTML + b".")[0][:3] == peer.reply()[:3] == b"250"

        await raw(port, work)
        assert len(sink.received) == 1


async def test_lmtp_answers_for_each_recipient_when_we_are_at_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(Front, "handle_DATA", broken)
    port = free_port()
    async with start_sink() as sink, proxy(tmp_path, sink, lmtp=f"127.0.0.1:{port}"):

        def work(peer: Raw) -> None:
            peer.say(b"LHLO x", *ENVELOPE, b"DATA")
            assert peer.say(HTML + b".")[0][:3] == peer.reply()[:3] == b"451"
            assert peer.say(b"NOOP")[0][:3] == b"250"

        await raw(port, work)
        assert sink.received == []


async def test_a_size_that_lies_gets_no_further_than_the_true_one(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink, max_message=1000) as (_, port):

        def work(peer: Raw) -> None:
            assert peer.say(b"EHLO x", b"MAIL FROM:<a@b.example> SIZE=1001")[1][:3] == b"552"
            peer.say(b"MAIL FROM:<a@b.example> SIZE=10", b"RCPT TO:<b@example.org>", b"DATA")
            assert peer.say(b"x\r\n" * 1000 + b".")[0][:3] == b"552"
            peer.say(b"MAIL FROM:<a@b.example> SIZE=10", b"RCPT TO:<b@example.org>", b"DATA")
            assert peer.say(b"Subject: a\r\n\r\nx\r\n.")[0][:3] == b"250"

        await raw(port, work)
        assert [mail.message for mail in sink.received] == [b"Subject: a\r\n\r\nx\r\n"]


async def test_a_line_of_megabytes_passes(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):
        long = HTML + b"<p>" + b"a" * (3 << 20) + b"</p>\r\n"
        assert await client(port, lambda c: c.sendmail("news@acme.example", ["b@example.org"], long)) == {}
        assert sink.received[0].message.endswith(b"a" * 1000 + b"</p>\r\n")
        assert BRANDED in sink.received[0].message


async def test_no_address_or_attribute_carries_a_second_command(tmp_path: Path) -> None:
    async with recorder(b"XFORWARD NAME HELO") as (hop, said), proxy(tmp_path, hop) as (_, port):

        def work(peer: Raw) -> None:
            replies = peer.say(
                b"EHLO x",
                b"XFORWARD NAME=a\rRSET HELO=b\x01RSET",
                b"MAIL FROM:<a@b.example\rRSET>",
                b'MAIL FROM:<"a\rRSET"@b.example>',
                b"MAIL FROM:<a@b.example\0>",
                b"MAIL FROM:<a@b.example>",
                b"RCPT TO:<c@b.example\rDATA>",
            )
            assert [reply[:3] for reply in replies] == [b"250", b"250", b"501", b"501", b"501", b"250", b"501"]

        await raw(port, work)
        assert said[1:] == [b"XFORWARD NAME=a", b"MAIL FROM:<a@b.example>"]


async def test_an_address_in_no_known_charset_goes_on_as_it_was_said(tmp_path: Path) -> None:
    async with recorder() as (hop, said), proxy(tmp_path, hop) as (_, port):

        def work(peer: Raw) -> None:
            replies = peer.say(b"EHLO x", b"MAIL FROM:<\xff@acme.example>", b"RCPT TO:<\xe9@example.org>", b"DATA")
            assert [reply[:3] for reply in replies] == [b"250", b"250", b"250", b"354"]
            assert peer.say(HTML + b".")[0][:3] == b"250"

        await raw(port, work)
        assert said[1:3] == [b"MAIL FROM:<\xff@acme.example>", b"RCPT TO:<\xe9@example.org>"]


async def test_what_is_forwarded_about_a_client_holds_for_its_own_mail_only(tmp_path: Path) -> None:
    """Postfix sends several mails over one connection, each with the attributes of its own client."""
    offers = (b"XFORWARD NAME ADDR IDENT",)
    async with recorder(*offers) as (hop, said), proxy(tmp_path, hop) as (_, port):

        def work(peer: Raw) -> None:
            peer.say(b"EHLO x")
            for attributes in (b"NAME=one ADDR=192.0.2.1 IDENT=A1", b"NAME=two ADDR=[UNAVAILABLE] IDENT=A2", b""):
                if attributes:
                    peer.say(b"XFORWARD " + attributes)
                peer.say(*ENVELOPE[:2], b"DATA", HTML + b".")

        await raw(port, work)
        told = [line for line in said if line.startswith((b"XFORWARD", b"MAIL"))]
        assert told == [
            b"XFORWARD NAME=one ADDR=192.0.2.1 IDENT=A1", ENVELOPE[0],
            b"XFORWARD NAME=two IDENT=A2", ENVELOPE[0],
            ENVELOPE[0],
        ]  # fmt: skip


@pytest.mark.parametrize(
    "final", [b"354 more\r\n", b"421 bye\r\n", b"25 ok\r\n", b"nonsense\r\n", b"\r\n", b"999 x\r\n"]
)
async def test_only_an_answer_that_takes_the_message_takes_it(tmp_path: Path, final: bytes) -> None:
    async with recorder(final=final) as (hop, _), proxy(tmp_path, hop) as (_, port):

        def work(peer: Raw) -> None:
            peer.say(b"EHLO x", *ENVELOPE[:2], b"DATA")
            assert peer.say(HTML + b".")[0][:3] == b"451"
            assert peer.say(b"NOOP")[0][:3] == b"250"

        await raw(port, work)


async def test_who_was_somebody_is_nobody_when_said_so(tmp_path: Path) -> None:
    async with (
        start_sink() as sink,
        proxy(tmp_path, sink, listeners={}, logins={"shop one": "acme"}, xclient_networks=("127.0.0.1",)) as (
            _,
            port,
        ),
    ):
        mail = (
            b"MAIL FROM:<a@example.net>",
            b"RCPT TO:<b@example.org>",
            b"DATA",
            HTML.replace(b"news@acme.example", b"a@example.net") + b".",
        )

        def work(peer: Raw) -> None:
            peer.say(b"EHLO x", b"XCLIENT LOGIN=shop+20one", b"EHLO x", *mail)
            peer.say(b"XCLIENT LOGIN=[UNAVAILABLE]", b"EHLO x", *mail)

        await raw(port, work)
        assert [BRANDED in received.message for received in sink.received] == [True, False]
        assert LINK in sink.received[1].message
        assert sink.connections == 2  # the next hop was told of another client on the first


@asynccontextmanager
async def with_tls(tmp_path: Path, sink: Sink, **mail: object) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "mail.pem")
    async with proxy(tmp_path, sink, certificate=tmp_path / "mail.pem", **mail) as (_, port):
        yield port, trust


async def test_what_was_said_before_tls_counts_for_nothing_after_it(tmp_path: Path) -> None:
    """RFC 3207 §4.2 and the injection of CVE-2011-0411: a man in the middle speaks before the encryption."""
    async with (
        start_sink() as sink,
        with_tls(tmp_path, sink, listeners={}, logins={"shop": "acme"}, xclient_networks=("127.0.0.1",)) as (
            port,
            trust,
        ),
    ):

        def work(peer: Raw) -> None:
            peer.say(b"EHLO x", b"XCLIENT LOGIN=shop", b"EHLO x")
            peer.say(b"STARTTLS\r\nEHLO evil\r\nMAIL FROM:<evil@example.net>")
            peer.encrypt(trust)
            replies = peer.say(b"NOOP", ENVELOPE[1], b"STARTTLS")  # none to what was slipped in
            assert [reply[:3] for reply in replies] == [b"250", b"503", b"503"]
            assert (
                peer.say(b"EHLO x", b"MAIL FROM:<a@example.net>", ENVELOPE[1], b"DATA", OTHERS + b".")[-1][:3]
                == b"250"
            )

        await raw(port, work)
        assert BRANDED not in sink.received[0].message  # the login before TLS is void


async def test_who_guesses_keys_is_cut_off(tmp_path: Path) -> None:
    async with start_sink() as sink, with_tls(tmp_path, sink, networks=()) as (port, trust):

        def work(connection: smtplib.SMTP) -> list[int]:
            encrypt(connection, trust)
            wrong = b64encode(b"\0acme\0bp_x_wrong").decode()
            codes = say(connection, *[f"AUTH PLAIN {wrong}"] * 4)
            with pytest.raises(smtplib.SMTPServerDisconnected):
                connection.docmd("NOOP")
            return codes

        assert await client(port, work) == [535, 535, 535, 421]


async def test_a_login_while_the_store_is_away_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(Front, "login", away)
    async with start_sink() as sink, with_tls(tmp_path, sink, networks=()) as (port, trust):

        def work(connection: smtplib.SMTP) -> list[int]:
            encrypt(connection, trust)
            right = b64encode(b"\0acme\0bp_x_right").decode()
            return say(connection, f"AUTH PLAIN {right}", "MAIL FROM:<a@b.example>")

        assert await client(port, work) == [454, 530]


async def test_a_web_request_is_no_mail(tmp_path: Path) -> None:
    """A page or a service made to post to our port: its body could hold a mail."""
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):

        def work(peer: Raw) -> None:
            body = b"\r\n".join((b"EHLO x", *ENVELOPE[:2], b"DATA", HTML + b"."))
            assert peer.say(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + body)[0][:3] == b"521"
            assert peer.reply() == b""

        await raw(port, work)
        assert sink.received == []


async def test_a_client_that_breaks_off_in_mid_message_has_sent_none(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):

        def work(peer: Raw) -> None:
            peer.say(b"EHLO x", *ENVELOPE[:2], b"DATA")
            peer._socket.sendall(HTML)

        await raw(port, work)
        await asyncio.sleep(0.2)
        assert sink.received == []


async def test_too_many_at_once_are_told_before_they_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "busy", property(lambda self: True))
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):
        assert (await client(port, lambda c: c.mail("news@acme.example")))[0] == 451
