"""The milter on a socket, driven by other implementations of the protocol: PyPI's and Debian's `miltertest`."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from miltertest import MilterConnection, MilterError, constants
from miltertest.codec import MilterDecodeError
from prometheus_client import REGISTRY

from brandproxy.context import Context
from brandproxy.core.milter import CHUNK
from brandproxy.errors import StoreUnavailable
from brandproxy.filters import milter
from brandproxy.filters.pipeline import Pipeline
from brandproxy.model import Policy
from tests.conftest import need_program
from tests.filters.conftest import HTML, LINK, installation, running

T = TypeVar("T")
Replies = list[tuple[str, dict[str, Any]]]
CONTINUE, ACCEPT, BODY = constants.SMFIR_CONTINUE, constants.SMFIR_ACCEPT, constants.SMFIR_REPLBODY
BRANDED = "https://links.acme.example/c/"


@pytest.fixture
async def context(tmp_path: Path, port: int) -> AsyncIterator[Context]:
    settings = {"milter": f"127.0.0.1:{port}", "logins": {"shop": "acme"}}
    async with installation(tmp_path, **settings) as context, running(milter.run, context):
        yield context


async def converse(port: int, work: Callable[[MilterConnection], T]) -> T:
    """`work` as the mail server, on a connection that has negotiated."""

    def run() -> T:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            server = MilterConnection(sock)
            server.optneg_mta(actions=constants.SMFI_V2_ACTS)  # it cannot read a reply that names macros
            return work(server)

    return await asyncio.to_thread(run)


def headers(server: MilterConnection, message: bytes) -> str:
    """Tell the headers; the body."""
    head, _, body = message.decode().partition("\r\n\r\n")
    for line in head.replace("\r\n ", "\n ").split("\r\n"):
        name, _, value = line.partition(":")
        server._send(constants.SMFIC_HEADER, name=name, value=value)
    return body


def envelope(server: MilterConnection, sender: str, *recipients: str) -> None:
    server.send(constants.SMFIC_MAIL, args=[f"<{sender}>"])
    for recipient in recipients or ("b@example.org",):
        server._send(constants.SMFIC_RCPT, args=[f"<{recipient}>"])


def tell(
    server: MilterConnection, message: bytes = HTML, *recipients: str, sender: str = "news@acme.example"
) -> Replies:
    """One whole message; what it is answered at the end."""
    envelope(server, sender, *recipients)
    body = headers(server, message)
    code, parameters = server.send_get(constants.SMFIC_EOH)
    if code != CONTINUE:
        return [(code, parameters)]
    for at in range(0, len(body), CHUNK):
        server._send(constants.SMFIC_BODY, buf=body[at : at + CHUNK])
    replies: Replies = server.send_eom()
    return replies


def body_of(replies: Replies) -> str:
    return "".join(parameters["buf"] for code, parameters in replies if code == BODY)


async def test_links_come_back_under_the_tenants_host(context: Context, port: int) -> None:
    replies = await converse(port, tell)
    assert [code for code, _ in replies] == [BODY, CONTINUE]
    assert BRANDED in body_of(replies)
    assert LINK.decode() not in body_of(replies)


async def test_mail_of_nobody_goes_before_its_body_is_sent(context: Context, port: int) -> None:
    others = HTML.replace(b"acme.example", b"example.net")
    assert await converse(port, lambda s: tell(s, others, sender="a@example.net")) == [(ACCEPT, {})]


async def test_control_headers_are_removed_and_the_unsubscribe_header_changed(context: Context, port: int) -> None:
    message = (
        b"X-Brandproxy-Tenant: acme\r\nList-Unsubscribe: <https://acme.example/u?1>\r\n"
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nX-Brandproxy-Campaign: spring\r\n"
    ) + HTML
    replies = await converse(port, lambda s: tell(s, message, sender="a@example.net"))
    changes = [p for code, p in replies if code == constants.SMFIR_CHGHEADER]
    assert [(change["name"], change["index"]) for change in changes] == [
        ("List-Unsubscribe", 1),
        ("X-Brandproxy-Campaign", 1),
        ("X-Brandproxy-Tenant", 1),
    ]
    assert changes[0]["value"].startswith(" <https://links.acme.example/u/")
    assert [change["value"] for change in changes[1:]] == ["", ""]


async def test_control_headers_go_even_when_the_mail_is_nobodys(context: Context, port: int) -> None:
    others = b"X-Brandproxy-Campaign: x\r\n" + HTML.replace(b"acme.example", b"example.net")
    replies = await converse(port, lambda s: tell(s, others, sender="a@example.net"))
    assert [(code, p.get("name")) for code, p in replies] == [
        (constants.SMFIR_CHGHEADER, "X-Brandproxy-Campaign"), (CONTINUE, None),
    ]  # fmt: skip


@pytest.mark.parametrize("name", [b"nobody", b"Not A Slug!", b"../acme", b"a" * 5000, "\N{SNOWMAN}".encode()])
async def test_a_tenant_that_cannot_be_is_nobody(context: Context, port: int, name: bytes) -> None:
    """Whoever writes the header must not be able to have his mail put off for ever."""
    odd = b"X-Brandproxy-Tenant: " + name + b"\r\n" + HTML
    replies = await converse(port, lambda s: tell(s, odd))
    assert [(code, p.get("name")) for code, p in replies] == [
        (constants.SMFIR_CHGHEADER, "X-Brandproxy-Tenant"), (CONTINUE, None),
    ]  # fmt: skip


async def test_the_authenticated_user_names_the_tenant(tmp_path: Path, port: int) -> None:
    settings = {"milter": f"127.0.0.1:{port}", "listeners": {}, "logins": {"shop": "acme"}}
    others = HTML.replace(b"acme.example", b"example.net")

    def work(server: MilterConnection) -> tuple[Replies, Replies]:
        server.send_macro(constants.SMFIC_MAIL, **{"{auth_authen}": "shop", "{auth_type}": "PLAIN"})
        return tell(server, others, sender="a@example.net"), tell(server, others, sender="a@example.net")

    async with installation(tmp_path, **settings) as context, running(milter.run, context):
        first, second = await converse(port, work)
        assert BRANDED in body_of(first)
        assert second == [(ACCEPT, {})]  # the next message is not his


async def test_many_messages_on_one_connection_with_aborts_between(context: Context, port: int) -> None:
    def work(server: MilterConnection) -> list[bool]:
        found = []
        for number in range(6):
            envelope(server, "news@acme.example")
            if number % 2:
                headers(server, HTML)
            server._send(constants.SMFIC_ABORT)
            found.append(BRANDED in body_of(tell(server)))
        server._send(constants.SMFIC_QUIT_NC)
        found.append(BRANDED in body_of(tell(server)))
        server._send(constants.SMFIC_QUIT)
        assert server._recv(eof_ok=True) is None
        return found

    assert await converse(port, work) == [True] * 7


WRONG: dict[str, Callable[[MilterConnection], None]] = {
    "negotiation again": lambda s: s.sock.sendall(b"\0\0\0\x0dO\0\0\0\6\0\0\1\xff\0\x1f\xff\xff"),
    "recipient first": lambda s: s._send(constants.SMFIC_RCPT, args=["<b@example.org>"]),
    "header first": lambda s: s._send(constants.SMFIC_HEADER, name="A", value="b"),
    "body first": lambda s: s._send(constants.SMFIC_BODY, buf="x"),
    "end first": lambda s: s._send(constants.SMFIC_BODYEOB),
    "headers end first": lambda s: s._send(constants.SMFIC_EOH),
    "body before the headers end": lambda s: (envelope(s, "a@b.example"), s._send(constants.SMFIC_BODY, buf="x")),
    "unknown command": lambda s: s.sock.sendall(b"\0\0\0\1Z"),
    "absurd length": lambda s: s.sock.sendall(b"\x7f\0\0\0Z"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_wrong_order_ends_the_conversation_without_a_verdict(
    context: Context, port: int, wrong: str
) -> None:
    def work(server: MilterConnection) -> object:
        WRONG[wrong](server)
        try:
            while reply := server._recv(eof_ok=True):
                assert reply[0] == CONTINUE
        except (MilterError, MilterDecodeError, ConnectionResetError):
            pass
        return None

    await converse(port, work)
    assert BRANDED in body_of(await converse(port, tell))  # others are served on


async def test_a_body_of_many_pieces_comes_back_in_pieces(context: Context, port: int) -> None:
    large = HTML + b"<p>text</p>\r\n" * 20_000
    replies = await converse(port, lambda s: tell(s, large))
    pieces = [p["buf"] for code, p in replies if code == BODY]
    assert max(map(len, pieces)) == CHUNK
    assert body_of(replies).endswith("<p>text</p>\r\n" * 20_000)


async def test_what_is_larger_than_the_limit_passes_untouched(tmp_path: Path, port: int) -> None:
    settings = {"milter": f"127.0.0.1:{port}", "max_message": 10_000}
    async with installation(tmp_path, **settings) as context, running(milter.run, context):
        assert await converse(port, lambda s: tell(s, HTML + b"x\r\n" * 5000)) == [(ACCEPT, {})]


async def test_too_many_at_once_are_asked_to_come_back(
    context: Context, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "busy", property(lambda self: True))
    code, parameters = await converse(port, lambda s: s.send_get(constants.SMFIC_MAIL, args=["<a@b.example>"]))
    assert (code, parameters["smtpcode"]) == (constants.SMFIR_REPLYCODE, "451")


@pytest.mark.parametrize("policy", ["tempfail", "pass"])
async def test_a_store_that_is_away_is_a_reason_to_come_back_unless_told_to_pass(
    tmp_path: Path, port: int, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = b"X-Brandproxy-Tenant: new\r\n" + HTML
    async with (
        installation(tmp_path, milter=f"127.0.0.1:{port}", on_failure=policy) as context,
        running(milter.run, context),
    ):

        async def away(key: str) -> None:
            raise StoreUnavailable("the store is away")

        monkeypatch.setattr(context.store, "get", away)
        replies = await converse(port, lambda s: tell(s, new))
        assert BRANDED in body_of(await converse(port, tell))  # known from memory
    if policy == "tempfail":
        ((code, parameters),) = replies
        assert (code, parameters["smtpcode"]) == (constants.SMFIR_REPLYCODE, "451")
    else:
        assert [code for code, _ in replies] == [constants.SMFIR_CHGHEADER, CONTINUE]


async def test_a_message_that_takes_too_long_is_a_reason_to_come_back(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(Pipeline, "_work", slow)
    settings = {"milter": f"127.0.0.1:{port}", "timeout": 0.2}
    async with installation(tmp_path, **settings) as context, running(milter.run, context):
        assert [code for code, _ in await converse(port, tell)] == [constants.SMFIR_REPLYCODE]


async def test_a_fault_of_ours_lets_the_mail_pass_and_is_counted(
    context: Context, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> float:
        labels = {"way": "milter", "outcome": "fault"}
        return REGISTRY.get_sample_value("brandproxy_mail_messages_total", labels) or 0.0

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    before = counted()
    monkeypatch.setattr(Pipeline, "_work", broken)
    assert await converse(port, tell) == [(CONTINUE, {})]
    assert counted() == before + 1


@pytest.mark.parametrize("part", ["filters.control.read", "filters.lookup.Lookup.decide"])
async def test_a_fault_before_we_know_whose_it_is_puts_no_mail_off(
    context: Context, port: int, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("brandproxy." + part, broken)
    assert await converse(port, tell) == [(CONTINUE, {})]


async def test_an_author_in_comments_without_end_puts_no_mail_off(context: Context, port: int) -> None:
    nested = HTML.replace(b"Acme <", b"(" * 3000 + b")" * 3000 + b" <")
    assert BRANDED in body_of(await converse(port, lambda s: tell(s, nested)))
    assert await converse(port, lambda s: tell(s, nested, sender="a@example.net")) == [(ACCEPT, {})]


async def test_a_unix_socket_serves_too_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with installation(tmp_path, milter=f"unix:{path}") as context, running(milter.run, context):

        def run() -> Replies:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(10)
                sock.connect(str(path))
                server = MilterConnection(sock)
                server.optneg_mta(actions=constants.SMFI_V2_ACTS)
                return tell(server)

        assert BRANDED in body_of(await asyncio.to_thread(run))
        assert path.stat().st_mode & 0o777 == 0o660


async def test_signed_mail_is_let_alone_or_stripped_as_the_tenant_says(context: Context, port: int) -> None:
    signed = b"DKIM-Signature: v=1; a=rsa-sha256; d=acme.example; s=x; h=from; bh=x; b=x\r\n" + HTML
    assert await converse(port, lambda s: tell(s, signed)) == [(CONTINUE, {})]
    from dataclasses import replace

    await context.registry.change_tenant("acme", lambda t: replace(t, policy=Policy(signed="strip")), "test")
    await context.directory.load(context.store)
    replies = await converse(port, lambda s: tell(s, signed))
    assert BRANDED in body_of(replies)
    assert (constants.SMFIR_CHGHEADER, {"index": 1, "name": "DKIM-Signature", "value": ""}) in replies


LUA = """
conn = mt.connect("inet:%d@127.0.0.1")
if conn == nil then error "no connection" end
mt.negotiate(conn, nil, nil, nil)
if not mt.test_action(conn, SMFIF_CHGBODY) then error "does not ask to change the body" end
if mt.test_action(conn, SMFIF_ADDRCPT) then error "asks for recipients" end
if not mt.test_option(conn, SMFIP_NOCONNECT) then error "wants connections" end
for turn = 1, 3 do
    mt.macro(conn, SMFIC_MAIL, "{auth_authen}", "shop")
    if mt.mailfrom(conn, "<news@acme.example>", "SIZE=1000") ~= nil then error "mailfrom" end
    if mt.getreply(conn) ~= SMFIR_CONTINUE then error "mailfrom: no go on" end
    if mt.rcptto(conn, "<b@example.org>") ~= nil then error "rcptto" end
    if mt.header(conn, "Content-Type", " text/html; charset=utf-8") ~= nil then error "header" end
    if mt.header(conn, "X-Brandproxy-Campaign", " spring") ~= nil then error "header" end
    if mt.eoh(conn) ~= nil then error "eoh" end
    if mt.getreply(conn) ~= SMFIR_CONTINUE then error "eoh: no go on" end
    if mt.bodystring(conn, '<a href="https://acme.example/">x</a>\\r\\n') ~= nil then error "body" end
    if turn == 2 then
        mt.abort(conn)
    else
        if mt.eom(conn) ~= nil then error "eom" end
        if mt.getreply(conn) ~= SMFIR_CONTINUE then error "eom: not taken" end
        if not mt.eom_check(conn, MT_BODYCHANGE) then error "body unchanged" end
        if not mt.eom_check(conn, MT_HDRDELETE, "X-Brandproxy-Campaign") then error "control header stays" end
        if mt.eom_check(conn, MT_HDRADD) then error "a header was added" end
    end
end
mt.disconnect(conn)
"""


async def test_debians_miltertest_agrees(context: Context, port: int, tmp_path: Path) -> None:
    program = need_program("miltertest", "miltertest")
    script = tmp_path / "test.lua"
    script.write_text(LUA % port)
    call = [program, "-s", str(script)]
    done = await asyncio.to_thread(subprocess.run, call, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
