"""The SMTP and LMTP proxy: the client's answer is the next hop's, and what went on is what came but for links."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import trustme
from aiosmtpd.smtp import AuthResult

from brandproxy import access
from brandproxy.context import Context
from brandproxy.core.tokens import Click
from brandproxy.filters import smtp
from brandproxy.model import Relay
from tests.conftest import free_port
from tests.filters.conftest import HTML, LINK, installation, running
from tests.filters.mta import Sink, start_sink

T = TypeVar("T")
BRANDED = b"https://links.acme.example/c/"


@asynccontextmanager
async def proxy(tmp_path: Path, sink: Sink, **mail: object) -> AsyncIterator[tuple[Context, int]]:
    """The proxy in front of a sink; its SMTP port."""
    port = free_port()
    settings = {"smtp": f"127.0.0.1:{port}", "next_hop": f"127.0.0.1:{sink.port}", **mail}
    async with installation(tmp_path, **settings) as context, running(smtp.run, context):
        yield context, port


@asynccontextmanager
async def recorder(*offers: bytes, final: bytes = b"250 ok\r\n") -> AsyncIterator[tuple[Sink, list[bytes]]]:
    """A next hop that agrees to everything; what it was told, line by line, and `final` to each final dot."""
    said: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        while line := await reader.readline():
            said.append(line.rstrip())
            if line.startswith(b"EHLO"):
                writer.writelines(b"250-%s\r\n" % offer for offer in (b"x", *offers))
            if line.startswith(b"DATA"):
                writer.write(b"354 go\r\n")
                await reader.readuntil(b"\r\n.\r\n")
            writer.write(final if line.startswith(b"DATA") else b"250 ok\r\n")
        writer.close()

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    async with server:
        yield Sink(server.sockets[0].getsockname()[1]), said


async def client(port: int, work: Callable[[smtplib.SMTP], T]) -> T:
    def run() -> T:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as connection:
            connection.ehlo("client.example")
            return work(connection)

    return await asyncio.to_thread(run)


def encrypt(connection: smtplib.SMTP, trust: ssl.SSLContext) -> None:
    connection._host = "localhost"  # type: ignore[attr-defined]
    connection.starttls(context=trust)
    connection.ehlo("client.example")


def say(connection: smtplib.SMTP, *commands: str) -> list[int]:
    return [connection.docmd(command)[0] for command in commands]


async def test_links_go_on_under_the_tenants_host_and_the_next_hops_words_come_back(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):

        def work(connection: smtplib.SMTP) -> tuple[int, bytes]:
            connection.mail("news@acme.example")
            connection.rcpt("b@example.org")
            return connection.data(HTML)

        assert await client(port, work) == (250, b"2.0.0 kept")
        (received,) = sink.received
        assert BRANDED in received.message
        assert LINK not in received.message
        assert received.message.startswith(HTML.partition(b"<p>")[0])


async def test_a_refusal_of_the_next_hop_reaches_the_client_word_for_word(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):
        sink.refuse = ["452 4.2.2 mailbox full", "554 5.7.1-no\r\n554 5.7.1 never"]
        for wanted in ((452, b"4.2.2 mailbox full"), (554, b"5.7.1-no")):

            def work(connection: smtplib.SMTP) -> tuple[int, bytes]:
                connection.mail("news@acme.example")
                connection.rcpt("b@example.org")
                return connection.data(HTML)

            assert await client(port, work) == wanted
        assert sink.received == []


async def test_recipients_are_judged_by_the_next_hop_one_by_one(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):
        sink.unknown = {"gone@example.org"}

        def work(connection: smtplib.SMTP) -> dict[str, tuple[int, bytes]]:
            return connection.sendmail("news@acme.example", ["b@example.org", "gone@example.org"], HTML)

        assert await client(port, work) == {"gone@example.org": (550, b"5.1.1 unknown")}
        assert sink.received[0].recipients == ["b@example.org"]


async def test_a_next_hop_that_is_down_is_a_reason_to_come_back(tmp_path: Path) -> None:
    nobody = Sink(free_port())
    async with proxy(tmp_path, nobody) as (_, port):
        assert (await client(port, lambda c: c.mail("news@acme.example")))[0] == 451


async def test_a_next_hop_that_dies_in_mid_message_is_a_reason_to_come_back(tmp_path: Path) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        for answer in (b"250 x\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await reader.readline()
            writer.write(answer)
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    async with server, proxy(tmp_path, Sink(server.sockets[0].getsockname()[1])) as (_, port):

        def work(connection: smtplib.SMTP) -> int:
            connection.mail("news@acme.example")
            connection.rcpt("b@example.org")
            return connection.data(HTML)[0]

        assert await client(port, work) == 451


async def test_what_it_offers(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):
        features = await client(port, lambda c: c.esmtp_features)
        assert {"size", "8bitmime", "smtputf8", "pipelining", "dsn", "xforward"} <= features.keys()
        assert "auth" not in features  # never before TLS
        assert "xclient" not in features  # not without being asked


async def test_dsn_parameters_and_odd_addresses_go_on_as_they_were_written(tmp_path: Path) -> None:
    async with recorder(b"DSN", b"SIZE", b"8BITMIME") as (hop, said), proxy(tmp_path, hop) as (_, port):
        codes = await client(
            port,
            lambda c: say(
                c,
                "MAIL FROM:<> RET=HDRS ENVID=QQ314159+2Baz BODY=8BITMIME SIZE=100",
                'RCPT TO:<"a b>c"@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob@Example.org',
                "RCPT TO:<b@example.org> NOTIFY=NEVER",
            ),
        )
        assert codes == [250, 250, 250]
        assert said[1:4] == [
            b"MAIL FROM:<> RET=HDRS ENVID=QQ314159+2Baz BODY=8BITMIME SIZE=100",
            b'RCPT TO:<"a b>c"@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob@Example.org',
            b"RCPT TO:<b@example.org> NOTIFY=NEVER",
        ]


async def test_pipelined_commands_are_answered_in_their_order(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):

        def work() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
                raw.sendall(
                    b"EHLO x\r\nMAIL FROM:<news@acme.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
                    b"Subject: a\r\n\r\nx\r\n.\r\nRSET\r\nQUIT\r\n"
                )
                with raw.makefile("rb") as file:
                    return file.read()

        lines = (await asyncio.to_thread(work)).splitlines()
        finals = [line[:3] for line in lines if line[3:4] == b" "]
        assert finals == [b"220", b"250", b"250", b"250", b"354", b"250", b"250", b"221"]
        assert len(sink.received) == 1


async def test_internationalized_addresses_go_on_or_are_refused(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):

        def work(connection: smtplib.SMTP) -> object:
            connection.command_encoding = "utf-8"
            return connection.sendmail("müll@acme.example", ["ü@example.org"], HTML, ["SMTPUTF8", "BODY=8BITMIME"])

        assert await client(port, work) == {}
        assert (sink.received[0].sender, sink.received[0].recipients) == ("müll@acme.example", ["ü@example.org"])
        sink.smtputf8 = False
        assert (await client(port, lambda c: say(c, "MAIL FROM:<a@acme.example> SMTPUTF8")))[0] == 553


async def test_a_smuggled_end_stays_inside_its_message(tmp_path: Path) -> None:
    """RFC 5321 §2.3.8: at a next hop that takes LF for a line end, no second message may appear."""
    body = b"Subject: a\r\n\r\nx\n.\nMAIL FROM:<evil@example.net>\n.\r\nrest\r\n..dot\r\n"
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):

        def work(connection: smtplib.SMTP) -> bytes:
            say(connection, "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA")
            connection.send(body + b".\r\n")
            return connection.getreply()[1]

        await client(port, work)
        (received,) = sink.received
        assert (
            received.message
            == b"Subject: a\r\n\r\nx\r\n.\r\nMAIL FROM:<evil@example.net>\r\n.\r\nrest\r\n.dot\r\n"
        )


async def test_several_messages_and_resets_share_one_connection(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink) as (_, port):

        def work(connection: smtplib.SMTP) -> None:
            for number in range(3):
                connection.sendmail("news@acme.example", [f"{number}@example.org"], HTML)
                say(connection, "MAIL FROM:<news@acme.example>", "RCPT TO:<never@example.org>", "RSET")

        await client(port, work)
        assert [received.recipients for received in sink.received] == [[f"{n}@example.org"] for n in range(3)]
        assert sink.connections == 1


async def test_several_recipients_share_links_that_are_nobodys(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink) as (context, port):
        marked = b"X-Brandproxy-Recipient: r-17\r\n" + HTML
        await client(port, lambda c: c.sendmail("news@acme.example", ["b@example.org", "c@example.org"], marked))
        await client(port, lambda c: c.sendmail("news@acme.example", ["b@example.org"], marked))
        await client(port, lambda c: c.sendmail("news@acme.example", ["b@example.org"], HTML))
        shared, named, hashed = (clicked(context, received.message) for received in sink.received)
        assert shared.recipient == ""
        assert named.recipient == "r-17"
        assert len(hashed.recipient) == 12
        assert all(b"X-Brandproxy" not in received.message for received in sink.received)


def clicked(context: Context, message: bytes) -> Click:
    """The signed content of the first link."""
    ring = context.directory.ring("acme")
    assert ring is not None
    token = message.partition(BRANDED)[2].partition(b'"')[0].decode()
    payload = ring.open("c", token)
    assert isinstance(payload, Click)
    return payload


async def test_copies_for_each_take_one_recipient_at_a_time(tmp_path: Path) -> None:
    async with start_sink() as sink, proxy(tmp_path, sink, copies="recipient") as (_, port):
        refused = await client(
            port, lambda c: c.sendmail("news@acme.example", ["b@example.org", "c@example.org"], HTML)
        )
        assert refused == {"c@example.org": (452, b"4.5.3 one recipient at a time here")}
        assert [received.recipients for received in sink.received] == [["b@example.org"]]


async def lmtp(port: int, recipients: list[str]) -> list[bytes]:
    """The replies after the final dot."""

    def work() -> list[bytes]:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, raw.makefile("rb") as file:
            commands = ["LHLO x", "MAIL FROM:<news@acme.example>", *(f"RCPT TO:<{r}>" for r in recipients), "DATA"]
            file.readline()
            for command in commands:
                raw.sendall(command.encode() + b"\r\n")
                while file.readline()[3:4] == b"-":
                    pass
            raw.sendall(HTML + b".\r\n")
            return [file.readline().rstrip() for _ in recipients]

    return await asyncio.to_thread(work)


async def test_lmtp_answers_for_each_recipient(tmp_path: Path) -> None:
    port = free_port()
    async with start_sink() as sink, proxy(tmp_path, sink, lmtp=f"127.0.0.1:{port}"):
        assert await lmtp(port, ["b@example.org", "c@example.org"]) == [b"250 2.0.0 kept"] * 2
        assert [received.recipients for received in sink.received] == [["b@example.org", "c@example.org"]]


async def test_lmtp_copies_each_have_their_own_answer_and_links(tmp_path: Path) -> None:
    port = free_port()
    async with (
        start_sink() as sink,
        proxy(tmp_path, sink, lmtp=f"127.0.0.1:{port}", copies="recipient") as (context, _),
    ):
        sink.refuse = ["452 4.2.2 full"]
        replies = await lmtp(port, ["b@example.org", "c@example.org", "d@example.org"])
        assert replies == [b"452 4.2.2 full", b"250 2.0.0 kept", b"250 2.0.0 kept"]
        assert [received.recipients for received in sink.received] == [["c@example.org"], ["d@example.org"]]
        first, second = (clicked(context, received.message).recipient for received in sink.received)
        assert first != second != ""


async def test_a_tenants_relay_gets_his_mail_with_login_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    logins: list[bytes] = []

    def authenticator(
        server: object, session: object, envelope: object, mechanism: str, data: object
    ) -> AuthResult:
        logins.append(data.login + b":" + data.password)  # type: ignore[attr-defined]
        return AuthResult(success=True)

    async with (
        start_sink() as sink,
        start_sink(tls_context=tls, authenticator=authenticator, auth_required=True) as relay,
        proxy(tmp_path, sink) as (context, port),
    ):
        onward = Relay("localhost", relay.port, "required", "acme-user", "secret")
        await context.registry.change_tenant("acme", lambda t: replace(t, relay=onward), "tenant.relay")
        await context.directory.load(context.store)
        await client(port, lambda c: c.sendmail("news@acme.example", ["b@example.org"], HTML))
        others = HTML.replace(b"news@acme.example", b"a@example.net")
        await client(port, lambda c: c.sendmail("a@example.net", ["b@example.org"], others))
        by_header = b"X-Brandproxy-Tenant: acme\r\n" + others
        await client(port, lambda c: c.sendmail("a@example.net", ["b@example.org"], by_header))
        assert logins == [b"acme-user:secret"] * 2
        assert len(sink.received) == 1
        assert [BRANDED in received.message for received in relay.received] == [True, True]
        assert "secret" not in repr(context.directory.tenant("acme"))


async def test_a_relay_whose_certificate_is_not_trusted_gets_nothing(tmp_path: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    async with start_sink(tls_context=tls) as sink, proxy(tmp_path, sink, next_hop_tls="required") as (_, port):
        assert (await client(port, lambda c: c.mail("news@acme.example")))[0] == 451
        assert sink.received == []


async def test_strangers_log_in_with_an_api_key_over_tls_and_stay_themselves(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "mail.pem")
    async with (
        start_sink() as sink,
        proxy(tmp_path, sink, certificate=tmp_path / "mail.pem", networks=()) as (context, port),
    ):
        _, key = await access.create_key(context.store, "acme")
        assert (await client(port, lambda c: c.mail("news@acme.example")))[0] == 530
        other = b"X-Brandproxy-Tenant: other\r\n" + HTML

        def work(connection: smtplib.SMTP) -> list[int]:
            trust = ssl.create_default_context()
            authority.configure_trust(trust)
            encrypt(connection, trust)
            assert "xclient" not in connection.esmtp_features
            wrong = b64encode(b"\0acme\0bp_x_wrong").decode()
            codes = say(connection, f"AUTH PLAIN {wrong}", "XCLIENT LOGIN=acme", "XFORWARD NAME=x")
            connection.login("acme", key)
            connection.sendmail("news@acme.example", ["b@example.org"], other)
            return codes

        assert await client(port, work) == [535, 550, 550]
        assert BRANDED in sink.received[0].message


async def test_what_the_client_forwards_about_its_own_client_reaches_the_next_hop(tmp_path: Path) -> None:
    async with recorder(b"XFORWARD NAME ADDR HELO") as (hop, said), proxy(tmp_path, hop) as (_, port):
        codes = await client(
            port,
            lambda c: say(
                c,
                "XFORWARD NAME=mx.example ADDR=192.0.2.9 IDENT=4ABC",
                "XFORWARD HELO=x+20y",
                "MAIL FROM:<a@b.example>",
            ),
        )
        assert codes == [250, 250, 250]
        assert said[1] == b"XFORWARD NAME=mx.example ADDR=192.0.2.9 HELO=x+20y"


async def test_xclient_starts_the_session_anew_as_another_and_names_the_user(tmp_path: Path) -> None:
    async with (
        start_sink() as sink,
        proxy(tmp_path, sink, logins={"shop": "acme"}, xclient_networks=("127.0.0.1",)) as (_, port),
    ):

        def work(connection: smtplib.SMTP) -> list[int]:
            codes = say(connection, "XCLIENT ADDR=192.0.2.9 LOGIN=shop", "MAIL FROM:<a@example.net>")
            connection.ehlo("again.example")
            connection.sendmail("a@example.net", ["b@example.org"], HTML)
            return codes

        assert await client(port, work) == [220, 503]
        assert BRANDED in sink.received[0].message


async def test_leaving_lets_the_message_underway_end_and_sends_the_idle_away(tmp_path: Path) -> None:
    port = free_port()
    async with start_sink() as sink:
        sink.before_data = asyncio.Event()
        settings = {"smtp": f"127.0.0.1:{port}", "next_hop": f"127.0.0.1:{sink.port}"}
        async with installation(tmp_path, **settings) as context, running(smtp.run, context) as filter_:
            idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
            await idle_reader.readline()
            work = asyncio.ensure_future(
                client(port, lambda c: c.sendmail("news@acme.example", ["b@example.org"], HTML))
            )
            async with asyncio.timeout(20):
                while not sink.halfway:
                    await asyncio.sleep(0.02)
            filter_.cancel()
            assert (await idle_reader.readline()).startswith(b"421")
            idle_writer.close()
            sink.before_data.set()
            assert await work == {}
            await asyncio.gather(filter_, return_exceptions=True)
            assert len(sink.received) == 1
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", port)
