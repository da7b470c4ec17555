"""Whatever is asked of an edge's routes, the answer is one of docs/edge.md's table.

Twice: by schemathesis from the table written down as OpenAPI (fitting and unfitting parameters, headers, bodies,
methods), and by hypothesis from the bytes of requests. `BRANDPROXY_SCHEMATHESIS_EXAMPLES` makes it longer.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from brandproxy.core.tokens import Asset, Click, Open, Unsubscribe
from tests.edge.conftest import HOST, RunningEdge
from tests.edge.test_hostile import statuses

EXAMPLES = int(os.environ.get("BRANDPROXY_SCHEMATHESIS_EXAMPLES", "5"))
QUIET = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
URL = "https://shop.example/"
PAGE = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"


def answers(*found: tuple[int, str]) -> dict[str, Any]:
    """Statuses with the types of their bodies; what every route may answer is added."""
    table: dict[str, Any] = {}
    for status, kind in [*found, (400, ""), (404, PAGE), (410, PAGE), (414, ""), (431, "")]:
        row = table.setdefault(str(status), {"description": ""})
        if kind:
            row.setdefault("content", {})[kind] = {}
    return table


def parameter(name: str, place: str = "path", **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": "string", **schema}}


TOKEN = parameter("token", pattern="^[A-Za-z0-9_-]+$", minLength=1)
EVIL = [parameter(name, "query") for name in ("url", "next")]
HEADERS = [
    parameter(name, "header") for name in ("X-Forwarded-For", "User-Agent", "Range", "If-None-Match", "Purpose")
]
COMMON = [TOKEN, *EVIL, *HEADERS]
FORM = {
    "application/x-www-form-urlencoded": {"schema": {"type": "object"}},
    "text/plain": {"schema": {"type": "string"}},
}
SCHEMA = {
    "openapi": "3.1.0",
    "info": {"title": "edge", "version": "1"},
    "paths": {
        "/c/{token}": {"get": {"parameters": COMMON, "responses": answers((302, ""))}},
        "/o/{token}.gif": {
            "get": {"parameters": COMMON, "responses": answers((200, "image/gif"), (404, "image/gif"))}
        },
        "/u/{token}": {
            "get": {"parameters": COMMON, "responses": answers((302, ""))},
            "post": {
                "parameters": COMMON,
                "requestBody": {"content": FORM},
                "responses": answers((202, TEXT), (400, TEXT), (413, "")),
            },
        },
        "/a/{token}/{name}": {
            "get": {"parameters": [*COMMON, parameter("name")], "responses": answers((200, "*/*"))}
        },
        "/.well-known/acme-challenge/{token}": {"get": {"parameters": COMMON, "responses": answers((404, TEXT))}},
        "/robots.txt": {"get": {"responses": answers((200, TEXT))}},
        "/": {"get": {"parameters": EVIL, "responses": answers((200, PAGE))}},
    },
}
schema = schemathesis.openapi.from_dict(SCHEMA)


@schema.parametrize()
@QUIET
def test_no_route_answers_but_by_the_table(case: schemathesis.Case, edge: RunningEdge) -> None:
    answer = case.call(base_url=f"http://127.0.0.1:{edge.http}", headers={"Host": HOST}, allow_redirects=False)
    case.validate_response(answer, checks=[not_a_server_error, status_code_conformance, content_type_conformance])
    assert "location" not in answer.headers  # no token here is one of ours


METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "G ET", ""])
NAMES = [
    "Host",
    "host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Expect",
    "Upgrade",
    "TE",
    "X-Forwarded-For",
    "User-Agent",
    "Range",
    "X",
]
USUAL = [
    "0",
    "5",
    "-1",
    "chunked",
    "identity",
    "close",
    "keep-alive",
    "100-continue",
    "websocket",
    "bytes=0-",
    "evil.example",
]
VALUES = st.one_of(
    st.sampled_from([*USUAL, HOST, "\x00", "a\r\nb: c", " "]),
    st.text(st.characters(max_codepoint=255), max_size=20),
)
LINES = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=5)
ENDS = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r"])


@given(st.data())
@settings(max_examples=EXAMPLES * 40, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_request_of_any_bytes_gets_at_most_one_answer_and_leads_nowhere_else(
    edge: RunningEdge, data: st.DataObject
) -> None:
    genuine = [
        f"/c/{edge.token(Click(URL))}",
        f"/o/{edge.token(Open('c'))}.gif",
        f"/u/{edge.token(Unsubscribe('https://127.0.0.1:9/u', URL))}",
        f"/a/{edge.token(Asset('media', 'x.png'))}/x.png",
    ]
    target = data.draw(st.one_of(st.sampled_from([*genuine, "/", "*", ""]), st.text(max_size=30)))
    tail = data.draw(st.sampled_from(["", "?url=https://evil.example", "/..", "%00", "#x"]))
    lines = [("Host", HOST), *data.draw(LINES)] if data.draw(st.booleans()) else data.draw(LINES)
    end = data.draw(ENDS)
    head = (
        f"{data.draw(METHODS)} {target}{tail} {data.draw(st.sampled_from(['HTTP/1.1', 'HTTP/1.0', 'HTTP/2', '']))}"
    )
    text = end.join(
        [head, *(f"{name}: {value}" for name, value in lines), "", data.draw(st.sampled_from(["", "hello"]))]
    )
    answer = b""
    with socket.create_connection(("127.0.0.1", edge.http), timeout=5) as sock:
        sock.sendall(text.encode("utf-8", "surrogateescape"))
        sock.shutdown(socket.SHUT_WR)
        try:
            while chunk := sock.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
    found = [status for status in statuses(answer) if status != 100]
    assert all(status < 500 or status in (501, 505) for status in found), (text, answer)
    assert b"evil.example" not in answer
    for line in answer.split(b"\r\n"):
        if line.lower().startswith(b"location:"):
            assert line[9:].strip() == URL.encode()
    if (
        answer.startswith(b"HTTP/1.1 ")
        and b"\n\n" not in answer
        and "hello" not in text
        and text.count(end + end) <= 1
    ):
        assert len(found) == 1, (text, answer)
