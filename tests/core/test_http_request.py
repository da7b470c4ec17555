"""The reader of HTTP/1 requests: what is refused and with what, what is passed on, and what never matters."""

from __future__ import annotations

from itertools import pairwise

import pytest

from brandproxy.core.http_body import Refused
from brandproxy.core.http_request import End, Event, Head, Limits, RequestReader, host_is_valid

LIMITS = Limits(head=2000, target=500, body=1000)
HOST = b"Host: links.acme.example\r\n"


def read(data: bytes, *cuts: int) -> list[Event | int]:
    """All events of `data`, cut at those places; a refusal is its status, and the last one."""
    reader, events = RequestReader(LIMITS), []
    places = [0, *cuts, len(data)]
    for start, end in pairwise(places):
        reader.feed(data[start:end])
        try:
            while (event := reader.next_event()) is not None:
                events.append(event)
        except Refused as refused:
            return [*events, refused.status]
    return events


def shown(events: list[Event | int]) -> list[object]:
    """Pieces of a body joined, heads as what uvicorn is given."""
    found: list[object] = []
    for event in events:
        if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append((event.wire(), event.persistent) if isinstance(event, Head) else event)
    return found


def get(line: bytes = b"GET / HTTP/1.1", fields: bytes = HOST, body: bytes = b"") -> bytes:
    return line + b"\r\n" + fields + b"\r\n" + body


def post(fields: bytes, body: bytes = b"") -> bytes:
    return get(b"POST /u/x HTTP/1.1", HOST + fields, body)


TE = b"Transfer-Encoding: chunked\r\n"
REFUSED = {
    "HTTP/0.9": (get(b"GET /"), 400),
    "HTTP/2 on the line": (get(b"GET / HTTP/2.0"), 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9 by name": (get(b"GET / HTTP/0.9"), 505),
    "lower-case version": (get(b"GET / http/1.1"), 400),
    "long version": (get(b"GET / HTTP/1.10"), 400),
    "no version": (get(b"GET / HTTP/1."), 400),
    "two spaces": (get(b"GET  / HTTP/1.1"), 400),
    "tab for a space": (get(b"GET\t/ HTTP/1.1"), 400),
    "space behind": (get(b"GET / HTTP/1.1 "), 400),
    "space in the target": (get(b"GET /a b HTTP/1.1"), 400),
    "8-bit target": (get(b"GET /\xff HTTP/1.1"), 400),
    "NUL in the target": (get(b"GET /\0 HTTP/1.1"), 400),
    "unknown method": (get(b"BREW / HTTP/1.1"), 501),
    "lower-case method": (get(b"get / HTTP/1.1"), 501),
    "CONNECT": (get(b"CONNECT evil.example:443 HTTP/1.1"), 501),
    "asterisk form": (get(b"OPTIONS * HTTP/1.1"), 400),
    "other scheme": (get(b"GET ftp://links.acme.example/ HTTP/1.1"), 400),
    "user-info in the target": (get(b"GET http://x@links.acme.example/ HTTP/1.1"), 400),
    "no authority": (get(b"GET http:///x HTTP/1.1"), 400),
    "relative target": (get(b"GET c/x HTTP/1.1"), 400),
    "no Host": (get(fields=b"X: y\r\n"), 400),
    "no field": (get(fields=b""), 400),
    "two Hosts": (get(fields=HOST + HOST), 400),
    "two Hosts, HTTP/1.0": (get(b"GET / HTTP/1.0", HOST + b"host: other.example\r\n"), 400),
    "folded line": (get(fields=HOST + b"X: a\r\n b\r\n"), 400),
    "folded first line": (get(fields=b" x\r\n" + HOST), 400),
    "space before the colon": (get(fields=HOST + b"X : a\r\n"), 400),
    "no colon": (get(fields=HOST + b"X\r\n"), 400),
    "no name": (get(fields=HOST + b": a\r\n"), 400),
    "bare LF in a field": (get(fields=HOST + b"X: a\nY: b\r\n"), 400),
    "bare LF in front": (b"\n" + get(), 400),
    "bare LF at the end": (b"GET / HTTP/1.1\r\n" + HOST + b"\n", 400),
    "only LF": (get().replace(b"\r\n", b"\n"), 400),
    "bare CR": (get(fields=HOST + b"X: a\rb\r\n"), 400),
    "NUL in a field": (get(fields=HOST + b"X: a\0b\r\n"), 400),
    "DEL in a field": (get(fields=HOST + b"X: a\x7fb\r\n"), 400),
    "two empty lines in front": (b"\r\n\r\n" + get(), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "head too large": (get(fields=HOST + b"X: " + b"a" * 2000 + b"\r\n"), 431),
    "head without end": (get(fields=HOST)[:-2] + b"X: a\r\n" * 400, 431),
    "target too long": (get(b"GET /" + b"a" * 500 + b" HTTP/1.1"), 414),
    "two lengths": (post(b"Content-Length: 1\r\nContent-Length: 2\r\n", b"a"), 400),
    "the same length twice": (post(b"Content-Length: 1\r\nContent-Length: 1\r\n", b"a"), 400),
    "lengths in a list": (post(b"Content-Length: 1, 1\r\n", b"a"), 400),
    "negative length": (post(b"Content-Length: -1\r\n"), 400),
    "plus": (post(b"Content-Length: +1\r\n", b"a"), 400),
    "hexadecimal length": (post(b"Content-Length: 0x1\r\n", b"a"), 400),
    "no length": (post(b"Content-Length:\r\n"), 400),
    "body too large": (post(b"Content-Length: 1001\r\n"), 413),
    "endless length": (post(b"Content-Length: " + b"9" * 500 + b"\r\n"), 413),
    "length and coding": (post(b"Content-Length: 5\r\n" + TE, b"0\r\n\r\n"), 400),
    "coding in HTTP/1.0": (get(b"POST / HTTP/1.0", HOST + TE, b"0\r\n\r\n"), 400),
    "gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "gzip and chunked": (post(b"Transfer-Encoding: gzip\r\n" + TE, b"0\r\n\r\n"), 501),
    "chunked, gzip": (post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), 400),
    "chunked twice": (post(TE + TE, b"0\r\n\r\n"), 400),
    "identity": (post(b"Transfer-Encoding: identity\r\n"), 400),
    "no coding": (post(b"Transfer-Encoding:\r\n"), 400),
    "odd coding": (post(b"Transfer-Encoding: xchunked\r\n"), 400),
    "coding with a parameter": (post(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"), 400),
    "quoted coding": (post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), 400),
    "unknown expectation": (post(b"Expect: 200-ok\r\nContent-Length: 1\r\n"), 417),
    "two expectations": (post(b"Expect: 100-continue, x\r\nContent-Length: 1\r\n"), 417),
}
BROKEN_BODIES = {
    "no size": (b"\r\n", 400),
    "not a size": (b"ZZ\r\n", 400),
    "negative": (b"-1\r\n", 400),
    "0x": (b"0x1\r\na\r\n0\r\n\r\n", 400),
    "space before": (b" 1\r\na\r\n0\r\n\r\n", 400),
    "space behind": (b"1 \r\na\r\n0\r\n\r\n", 400),
    "bare LF": (b"1\na\r\n0\r\n\r\n", 400),
    "bare LF in an extension": (b"1;a\nb\r\na\r\n0\r\n\r\n", 400),
    "bare CR": (b"1;a\rb\r\na\r\n0\r\n\r\n", 400),
    "longer than its size": (b"1\r\nab\r\n0\r\n\r\n", 400),
    "bare LF behind": (b"1\r\na\n0\r\n\r\n", 400),
    "huge": (b"fffffffffffffff\r\n", 413),
    "overflowing": (b"1" + b"0" * 16 + b"\r\n", 400),
    "too large together": (b"200\r\n" + b"a" * 512 + b"\r\n1e9\r\n", 413),
    "long extension": (b"1;" + b"e" * 5000, 413),
    "many extensions": ((b"1;" + b"e" * 900 + b"\r\na\r\n") * 5, 413),
    "folded trailer": (b"0\r\nX: a\r\n b\r\n\r\n", 400),
    "no trailer": (b"0\r\nX\r\n\r\n", 400),
    "many trailers": (b"0\r\n" + (b"X: " + b"a" * 900 + b"\r\n") * 12, 431),
    "long trailer": (b"0\r\nX: " + b"a" * 5000, 413),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_readers_could_take_differently_is_refused(name: str) -> None:
    data, status = REFUSED[name]
    assert read(data + get())[0] == status


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_does_not_depend_on_how_the_bytes_come(name: str) -> None:
    data, status = REFUSED[name]
    assert read(data + get(), *range(1, len(data)))[0] in (status, *((414, 431) if status in (414, 431) else ()))


def test_a_target_beyond_its_bound_is_refused_before_it_ends() -> None:
    assert read(b"GET /" + b"a" * 600) == [414]


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_a_body_with_broken_framing_ends_the_reading(name: str) -> None:
    body, status = BROKEN_BODIES[name]
    for cuts in ((), range(1, len(post(TE, body)))):
        events = read(post(TE, body + get()), *cuts)
        assert events[-1] == status
        assert sum(isinstance(event, Head) for event in events) == 1


@pytest.mark.parametrize(
    "value", ["h:80@evil", ":abc", ":80", "", "h\t", "\th", "a b", "h:", "x@h", "h:99999", "h:+1", "a,b", "h/",
              "h?", "[::1", "[x]", "%61", "ü", "a" * 261],
)  # fmt: skip
def test_a_host_that_names_no_host_is_refused(value: str) -> None:
    data = get(fields=f"Host:{value}\r\n".encode())
    expected = [(get(fields=b"host: h:\r\n"), True), End.END] if value == "h:" else [400]
    assert shown(read(data)) == expected


def test_hosts_of_every_form_are_accepted() -> None:
    for value in (
        b"links.acme.example",
        b"LINKS.example.",
        b"h:8080",
        b"[::1]:80",
        b"127.0.0.1",
        b"xn--bcher-kva.example",
    ):
        assert host_is_valid(value)
        assert shown(read(get(fields=b"hOsT:  " + value + b" \r\n"))) == [
            (get(fields=b"host: " + value + b"\r\n"), True),
            End.END,
        ]


PASSED = {  # what comes, and what the application's server is given
    "later minor version": (get(b"GET / HTTP/1.2"), get(fields=b"host: links.acme.example\r\n")),
    "absolute form": (
        get(b"GET HTTP://Go.Globex.example:80?x=1 HTTP/1.1"),
        get(b"GET /?x=1 HTTP/1.1", b"host: Go.Globex.example:80\r\n"),
    ),
    "upgrade": (
        get(fields=HOST + b"Connection: Upgrade, TE\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nTE: trailers\r\n"),
        get(fields=b"host: links.acme.example\r\n"),
    ),
    "empty line in front": (b"\r\n" + get(), get(fields=b"host: links.acme.example\r\n")),
    "nominated framing": (
        post(b"Connection: content-length\r\nContent-Length: 001\r\n", b"a"),
        get(b"POST /u/x HTTP/1.1", b"host: links.acme.example\r\ncontent-length: 1\r\n"),
    ),
    "body of a GET": (
        get(fields=HOST + b"Content-Length: 1\r\n", body=b"a"),
        get(fields=b"host: links.acme.example\r\ncontent-length: 1\r\n"),
    ),
    "expectation": (
        post(b"Expect: 100-Continue\r\nContent-Length: 1\r\n", b"a"),
        get(b"POST /u/x HTTP/1.1", b"host: links.acme.example\r\ncontent-length: 1\r\n"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSED)
def test_what_is_passed_on_says_one_thing(name: str) -> None:
    data, wire = PASSED[name]
    body = [b"a"] if data.endswith(b"\r\n\r\na") else []
    assert shown(read(data)) == [(wire, True), *body, End.END]


def test_the_connection_ends_where_one_side_wants_it_to() -> None:
    for line, field, persistent in (
        (b"GET / HTTP/1.1", b"", True),
        (b"GET / HTTP/1.1", b"Connection: foo, Close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.0", b"Connection: keep-alive\r\n", False),
    ):
        (head, _) = read(get(line, HOST + field))
        assert isinstance(head, Head)
        assert (head.persistent, b"connection: close\r\n" in head.wire()) == (persistent, not persistent)


def test_chunks_are_joined_and_trailers_are_no_fields() -> None:
    body = b"3;x=y\r\nabc\r\n0004\r\ndefg\r\n0\r\nHost: evil.example\r\n\r\n"
    data = post(b"transfer-encoding: Chunked\r\n", body) + get()
    wire = get(b"POST /u/x HTTP/1.1", b"host: links.acme.example\r\ntransfer-encoding: chunked\r\n")
    expected = [(wire, True), b"abcdefg", End.END, (get(fields=b"host: links.acme.example\r\n"), True), End.END]
    for cuts in ((), range(1, len(data)), *([at] for at in range(1, len(data)))):
        assert shown(read(data, *cuts)) == expected
