"""Conditions and ranges: what RFC 9110 promises a client of a stored object."""

from __future__ import annotations

import re
from email.message import Message
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.delivery import (
    FOREVER,
    MAX_RANGES,
    Described,
    Meta,
    Plan,
    cache_control,
    describe,
    parse_range,
    plan,
)

BODY = bytes(range(100))
MODIFIED = 1_700_000_000
SAME = b"Tue, 14 Nov 2023 22:13:20 GMT"
LATER = b"Wed, 15 Nov 2023 22:13:20 GMT"
EARLIER = b"Mon, 13 Nov 2023 22:13:20 GMT"


def thing(etag: str = '"v1"', **more: object) -> Described:
    return describe(Meta(100, etag, MODIFIED, "image/png", **more), "a/b.png")  # type: ignore[arg-type]


def ask(method: str = "GET", object_: Described | None = None, **headers: bytes) -> Plan:
    request = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return plan(method, request, object_ or thing())


def body(answer: Plan) -> bytes:
    return b"".join(s.preamble + BODY[s.start : s.stop] for s in answer.slices) + answer.trailer


def header(answer: Plan, name: bytes) -> bytes | None:
    return dict(answer.headers).get(name)


def test_a_plain_get_is_the_whole_object_to_be_kept_for_ever() -> None:
    answer = ask()
    assert (answer.status, body(answer)) == (200, BODY)
    assert header(answer, b"cache-control") == FOREVER.encode()
    assert header(answer, b"etag") == b'"v1"'
    assert header(answer, b"last-modified") == SAME
    assert header(answer, b"accept-ranges") == b"bytes"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_none_match": b'"v1"'}, 304),
        ({"if_none_match": b'W/"v1"'}, 304),
        ({"if_none_match": b'"v0", "v1"'}, 304),
        ({"if_none_match": b'"a,b", "v1"'}, 304),
        ({"if_none_match": b"*"}, 304),
        ({"if_none_match": b'"v2"'}, 200),
        ({"if_none_match": b"v1"}, 200),
        ({"if_none_match": b'"v2"', "if_modified_since": SAME}, 200),
        ({"if_modified_since": SAME}, 304),
        ({"if_modified_since": LATER}, 304),
        ({"if_modified_since": EARLIER}, 200),
        ({"if_modified_since": b"yesterday"}, 200),
        ({"if_match": b'"v1"'}, 200),
        ({"if_match": b"*"}, 200),
        ({"if_match": b'W/"v1"'}, 412),
        ({"if_match": b'"v2"'}, 412),
        ({"if_match": b'"v1"', "if_unmodified_since": EARLIER}, 200),
        ({"if_unmodified_since": EARLIER}, 412),
        ({"if_unmodified_since": SAME}, 200),
        ({"if_match": b'"v2"', "if_none_match": b'"v1"'}, 412),
        ({"if_none_match": b'"v1"', "range": b"bytes=0-9"}, 304),
        ({"range": b"bytes=0-9", "if_range": b'"v1"'}, 206),
        ({"range": b"bytes=0-9", "if_range": b'W/"v1"'}, 200),
        ({"range": b"bytes=0-9", "if_range": b'"v2"'}, 200),
        ({"range": b"bytes=0-9", "if_range": SAME}, 206),
        ({"range": b"bytes=0-9", "if_range": LATER}, 200),
        ({"range": b"bytes=100-"}, 416),
        ({"range": b"bytes=-0"}, 416),
        ({"range": b"lines=1-2"}, 200),
        ({"range": b"bytes=9-1"}, 200),
        ({"range": b"bytes=a-b"}, 200),
        ({"range": b"bytes="}, 200),
    ],
)
def test_conditions_are_decided_in_the_order_of_the_standard(headers: dict[str, bytes], status: int) -> None:
    assert ask(**headers).status == status


def test_a_304_repeats_what_caches_need_and_has_no_body() -> None:
    answer = ask(if_none_match=b'"v1"')
    assert {name for name, _ in answer.headers} == {b"cache-control", b"etag", b"last-modified"}
    assert body(answer) == b""


def test_a_416_tells_the_size() -> None:
    assert header(ask(range=b"bytes=200-"), b"content-range") == b"bytes */100"


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [(b"bytes=0-0", 0, 1), (b"bytes=90-", 90, 100), (b"bytes=-5", 95, 100), (b"bytes=-500", 0, 100),
     (b"bytes=10-9999", 10, 100), (b"Bytes = 1-2", 1, 3), (b"bytes=100-200, 5-6", 5, 7)],
)  # fmt: skip
def test_one_range_is_a_206_of_exactly_those_bytes(value: bytes, start: int, stop: int) -> None:
    answer = ask(range=value)
    assert (answer.status, body(answer)) == (206, BODY[start:stop])
    assert header(answer, b"content-range") == b"bytes %d-%d/100" % (start, stop - 1)
    assert header(answer, b"content-length") == b"%d" % (stop - start)


def test_several_ranges_are_a_multipart_body_that_parses() -> None:
    answer = ask(range=b"bytes=0-9, 50-59, -1")
    content_type = header(answer, b"content-type")
    assert content_type is not None
    data = body(answer)
    assert header(answer, b"content-length") == b"%d" % len(data)
    message = BytesParser().parsebytes(b"Content-Type: " + content_type + b"\r\n\r\n" + data)
    parts = message.get_payload()
    assert isinstance(parts, list)
    seen = [(part["content-range"], part.get_payload(decode=True)) for part in parts if isinstance(part, Message)]
    assert seen == [
        ("bytes 0-9/100", BODY[0:10]), ("bytes 50-59/100", BODY[50:60]), ("bytes 99-99/100", BODY[99:]),
    ]  # fmt: skip


def test_a_head_ignores_range_and_has_the_headers_of_get() -> None:
    assert ask("HEAD", range=b"bytes=0-9").headers == ask("GET").headers


def test_many_or_overlapping_ranges_get_the_whole_object_once() -> None:
    assert ask(range=b"bytes=" + b",".join([b"0-1"] * (MAX_RANGES + 1))).status == 200
    assert ask(range=b"bytes=0-,0-,0-").status == 200


def test_a_weak_tag_never_makes_a_partial_answer_of_another_version() -> None:
    weak = thing('W/"v1"')
    assert ask(object_=weak, range=b"bytes=0-1", if_range=b'W/"v1"').status == 200
    assert ask(object_=weak, if_none_match=b'W/"v1"').status == 304


@given(st.binary(max_size=60), st.integers(0, 1000))
def test_no_range_header_breaks_the_bounds(value: bytes, size: int) -> None:
    ranges = parse_range("bytes=" + value.decode("latin-1"), size)
    for start, stop in ranges or ():
        assert 0 <= start < stop <= size


NAMES = [b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"]
VALUES = st.binary(max_size=40) | st.from_regex(rb'bytes=[0-9,-]{0,20}|(W/)?"v[12]"', fullmatch=True)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_request_headers_get_an_answer_of_the_length_it_says(headers: dict[bytes, bytes]) -> None:
    answer = plan("GET", headers, thing())
    assert answer.status in (200, 206, 304, 412, 416)
    if answer.status != 304:
        assert header(answer, b"content-length") == b"%d" % len(body(answer))


@pytest.mark.parametrize(
    ("declared", "sent"),
    [
        ("", FOREVER),
        ("public", FOREVER),
        ("max-age=60", "public, max-age=60"),
        ("public, s-maxage=5, max-age=600", "public, max-age=600"),
        ("max-age=99999999999", "public, max-age=31536000"),
        ("no-store", "no-store"),
        ("private, max-age=10", "private, max-age=10"),
        ("no-cache\r\nset-cookie: x=y", "no-store"),
    ],
)
def test_storage_that_asks_for_less_than_for_ever_gets_it(declared: str, sent: str) -> None:
    assert cache_control(declared) == sent


def test_an_encoded_object_keeps_its_encoding() -> None:
    meta = Meta(10, '"v1"', 0, "image/svg+xml", encoding="gzip")
    headers = dict(plan("GET", {}, describe(meta, "x.svg", vary=True)).headers)
    assert headers[b"content-encoding"] == b"gzip"
    assert headers[b"vary"] == b"accept-encoding"
    assert re.search(rb"sandbox", headers[b"content-security-policy"])
