"""MIME: leaf parts to the byte, and only those that every reader agrees on."""

from __future__ import annotations

import email
from email.message import Message
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brandproxy.core import mime
from tests.core.mails import mail, messages, multipart, part


def bodies(message: bytes) -> dict[str, bytes]:
    return {leaf.path: message[leaf.start : leaf.end] for leaf in mime.parse(message).leaves if not leaf.reason}


def reasons(message: bytes) -> list[str]:
    structure = mime.parse(message)
    return [structure.reason] if structure.reason else [leaf.reason for leaf in structure.leaves]


def their_bodies(message: Message, path: str = "1") -> dict[str, bytes]:
    """The leaves of the `email` package, as raw bytes."""
    if message.is_multipart():
        found: dict[str, bytes] = {}
        for number, item in enumerate(message.get_payload(), 1):
            found |= their_bodies(item, f"{path}.{number}")  # type: ignore[arg-type]
        return found
    raw = message._payload  # type: ignore[attr-defined]
    return {path: raw.encode("ascii", "surrogateescape") if isinstance(raw, str) else b""}


def agrees(message: bytes) -> None:
    """What we would change is a leaf for the email package too, but for a last line end."""
    theirs = their_bodies(email.message_from_bytes(message))
    for path, body in bodies(message).items():
        assert theirs.get(path, b"").rstrip(b"\r\n") == body.rstrip(b"\r\n"), path


def test_a_message_without_parts_is_one_leaf() -> None:
    assert bodies(mail("<p>x</p>")) == {"1": b"<p>x</p>"}


def test_parts_are_cut_at_their_delimiters_and_nowhere_else() -> None:
    message = multipart("alternative", part("one\r\n--b1x\r\n -- b1", "text/plain"), part("<p>two</p>"))
    assert bodies(message) == {"1.1": b"one\r\n--b1x\r\n -- b1", "1.2": b"<p>two</p>"}


def test_preamble_and_epilogue_are_no_parts() -> None:
    message = multipart("mixed", part("x", "text/plain"))
    message = (
        message.replace(b"\r\n\r\n--b1", b"\r\n\r\npreamble\r\n--b1", 1) + b"epilogue\r\n--b1\r\n\r\nnot a part"
    )
    assert bodies(message) == {"1.1": b"x"}


def test_an_outer_delimiter_ends_what_was_never_closed() -> None:
    inner = multipart("alternative", part("in", "text/plain"), boundary="in").replace(b"\r\n--in--\r\n", b"")
    message = multipart("mixed", inner, part("out", "text/plain"))
    assert bodies(message) == {"1.1.1": b"in", "1.2": b"out"}


def test_a_missing_close_delimiter_ends_with_the_message() -> None:
    message = multipart("mixed", part("x", "text/plain")).replace(b"\r\n--b1--\r\n", b"")
    assert bodies(message) == {"1.1": b"x"}


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_line_ends_are_kept_as_they_are(eol: bytes) -> None:
    message = multipart("mixed", part("x", "text/plain"), part("y", "text/plain")).replace(b"\r\n", eol)
    assert bodies(message) == {"1.1": b"x", "1.2": b"y"}


def test_mixed_line_ends_are_no_obstacle() -> None:
    message = multipart("mixed", part("x\ny\r\nz", "text/plain"), part("y", "text/plain"))
    message = message.replace(b"--b1\r\n", b"--b1\n", 1)
    assert bodies(message) == {"1.1": b"x\ny\r\nz", "1.2": b"y"}


def test_folded_headers_and_rfc_2231_boundaries_are_read() -> None:
    message = multipart("mixed", part("x", "text/plain"))
    message = message.replace(b'; boundary="b1"', b";\r\n\tboundary*0=b;\r\n\tboundary*1=1")
    assert bodies(message) == {"1.1": b"x"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (mail("x", "text/html; name=a.html", head="Content-Disposition: attachment\r\n"), "attachment"),
        (multipart("mixed", part("x", "text/html; name=a.html")), "attachment"),
        (multipart("mixed", part("x", head="Content-Disposition: inline; filename=a.html\r\n")), "attachment"),
        (multipart("mixed", part(b"Subject: x\r\n\r\nhttps://a.test", "message/rfc822")), "attached message"),
        (multipart("digest", b"\r\nSubject: x\r\n\r\nhttps://a.test"), "attached message"),
        (multipart("signed", part("x")), "signed part"),
        (multipart("encrypted", part("x")), "encrypted part"),
        (multipart("report", part("x", "text/plain")), "delivery report"),
        (mail(b"x", "application/pkcs7-mime; smime-type=signed-data", "base64"), "PKCS#7"),
        (mail(b"x", "image/png", "base64"), "not text"),
        (mail("x", encoding="x-uuencode"), "unknown transfer encoding"),
        (mail("x", "multipart/mixed"), "no boundary"),
        (mail("x", 'multipart/mixed; boundary="q"'), "boundary never found"),
        (mail("x", 'multipart/mixed; boundary="q"', "base64"), "encoded multipart"),
        (mail("x", "text/html; charset=a; charset=b"), "ambiguous header"),
        (mail("x", head="Content-Type: text/plain\r\n"), "ambiguous header"),
        (mail("x", "html"), "unreadable content type"),
        (mail("x", "text/html charset=utf-8"), "unreadable content type"),
        (mail("x", head="Subject : old\r\n"), "broken header"),
        (mail("x", head="no colon\r\n"), "broken header"),
        (mail("x", head="Subject: a\r\n \t \r\n"), "broken header"),
        (mail("x", head="Subject: a\rb\r\n"), "broken header"),
    ],
)
def test_what_is_not_ours_to_read_carries_its_reason(message: bytes, reason: str) -> None:
    assert reasons(message) == [reason]


@pytest.mark.parametrize(
    "head",
    [
        "Content-Type: text/html (the page); charset=utf-8",
        "Content-Type: text/html\r\nContent-Type:\r\n text/html",
        "Content-Type: text/html; charset=utf-8; charset=utf-8",
        "Content-Transfer-Encoding: 8bit\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: 8bit",
        'CONTENT-TYPE:TEXT/HTML;CHARSET = "UTF-8";;',
        "Content-Type: text/html; =x; charset*=us-ascii'en'utf-8",
        "Content-Disposition: INLINE;\r\nContent-Type: text/html",
    ],
)
def test_oddities_that_all_readers_read_the_same_are_read(head: str) -> None:
    message = f"{head}\r\n\r\n<p>".encode()
    assert [(leaf.kind, leaf.reason) for leaf in mime.parse(message).leaves] == [("html", "")]


def test_a_boundary_used_twice_is_left_alone() -> None:
    inner = multipart("alternative", part("x"), boundary="b1")
    assert "ambiguous boundary" in reasons(multipart("mixed", inner))


def test_a_delimiter_after_a_bare_carriage_return_is_left_alone() -> None:
    message = multipart("mixed", part("x\r--b1\ry", "text/plain"))
    assert reasons(message) == ["ambiguous boundary"]


def test_nesting_without_end_is_left_alone() -> None:
    message = b"x"
    for level in range(200):
        message = multipart("mixed", message, boundary=f"b{level}")
    assert "nested too deeply" in reasons(message)


def test_empty_and_headerless_messages_are_read() -> None:
    assert bodies(b"") == {"1": b""}
    assert bodies(b"\r\nhttps://a.test") == {"1": b"https://a.test"}
    assert bodies(b"Subject: x\r\n") == {"1": b""}


@settings(max_examples=300, deadline=None)
@given(messages())
def test_we_never_change_a_leaf_the_email_package_sees_elsewhere(message: bytes) -> None:
    agrees(message)


SOUP = [b"--b", b"--b--", b"--c", b"\n", b"\r\n", b"\r", b"x", b" ", b":", b"From "]
SOUP += [b"Content-Type: text/plain", b"Content-Type: multipart/mixed; boundary=c"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(SOUP)), st.binary(max_size=20))
def test_no_soup_of_delimiters_confuses_it(tokens: list[bytes], noise: bytes) -> None:
    message = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"".join(tokens) + noise
    agrees(message)


def test_it_agrees_with_the_email_package_on_every_corpus_message(corpus: Path) -> None:
    for path in corpus.rglob("*"):
        if path.is_file() and path.suffix not in (".html", ".dat", ".test", ".png"):
            agrees(path.read_bytes())
