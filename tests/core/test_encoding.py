"""Transfer encodings: only the lines of a changed URL change, and the limits of each encoding hold."""

from __future__ import annotations

import base64
import quopri
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brandproxy.core import charset, encoding, mime
from brandproxy.core.splice import Edit, apply, undo
from tests.core.mails import encode, mail, messages, rewrite

URL = "https://www.acme.test/shop?id=7"


def body_of(message: bytes) -> encoding.Body:
    return encoding.read(message, mime.parse(message).leaves[0])


def reason(message: bytes) -> str:
    with pytest.raises(ValueError) as caught:
        body_of(message)
    return str(caught.value)


def wire(message: bytes) -> bytes:
    return message.partition(b"\r\n\r\n")[2]


def changed_lines(before: bytes, after: bytes) -> tuple[list[bytes], list[bytes]]:
    """The lines of each that the other does not have."""
    old, new = before.split(b"\n"), after.split(b"\n")
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_quoted_printable_changes_only_the_lines_of_the_url() -> None:
    lines = [f"<p>Grüße {i}, 1 + 1 =3D 2</p>" for i in range(50)]
    lines[20] = f'<p>before <a href="{URL}">a link</a> and what comes after it on the line</p>'
    message = mail("\r\n".join(lines), encoding="quoted-printable")
    result = rewrite(message)
    old, new = changed_lines(message, result.message)
    assert 1 <= len(old) <= 2
    assert all(len(line.rstrip(b"\r")) <= 76 for line in new)
    assert body_of(result.message).text == "\r\n".join(lines).replace(URL, result.report.rewritten[0].new)


def test_the_spelling_of_escapes_around_a_url_stays() -> None:
    message = (
        mail(b"", encoding="quoted-printable") + b'=e4=E4=20<a href=3d"https://a.test/=41?b=3dc">=c3=bc</a>=0D=0A'
    )
    message = message.replace(b"utf-8", b"iso-8859-1")
    result = rewrite(message).message
    assert b'=e4=E4=20<a href=3d"https://links' in result
    assert result.endswith(b'">=c3=bc</a>=0D=0A')


def test_a_url_across_soft_breaks_is_one_url() -> None:
    message = mail(b"", encoding="quoted-printable") + b'<a href=3D"https://a.test/=\r\nlong?b=3D=\r\n1">x</a>\r\n'
    assert rewrite(message).report.rewritten[0].url == "https://a.test/long?b=1"


def test_what_is_moved_to_a_new_line_is_no_boundary_and_no_lone_dot() -> None:
    for tail in (".", "--b1", "From here"):
        for pad in range(40, 70):
            text = "x" * pad + f" <{URL}>" if tail.startswith("F") else "x" * pad + f" ({URL})"
            message = mail(text + tail + "\r\n", "text/plain", "quoted-printable")
            for line in wire(rewrite(message).message).split(b"\r\n"):
                assert not line.startswith((b"--", b".", b"From "))


@pytest.mark.parametrize("broken", [b"=", b"=Z", b"=4", b"=4G", b"= \r\n", b"=\rx"])
def test_malformed_quoted_printable_is_left_alone(broken: bytes) -> None:
    message = mail(b"", encoding="quoted-printable") + b"a" + broken + b'Z<a href=3D"https://a.test/">'
    assert reason(message) == "malformed quoted-printable"
    assert rewrite(message).message == message


@pytest.mark.parametrize("width", [4, 60, 76, 1000, 100_000])
@pytest.mark.parametrize("eol", [b"\r\n", b"\n"])
@pytest.mark.parametrize("end", [b"", b"\r\n", b"\n\n"])
def test_base64_keeps_its_line_length_and_what_follows(width: int, eol: bytes, end: bytes) -> None:
    text = base64.b64encode(f"<p>ü</p><a href='{URL}'>x</a>".encode() * 9)
    body = eol.join(text[i : i + width] for i in range(0, len(text), width)) + end
    message = mail(b"", encoding="base64") + body
    result = rewrite(message)
    assert len(result.report.rewritten) == 9
    out = wire(result.message)
    assert out.endswith(end)
    lines = out.rstrip(b"\r\n").split(eol if width < len(text) else b"\r\n")
    assert {len(line) for line in lines[:-1]} <= {min(width, len(text))}
    assert len(lines[-1]) <= width


def test_splices_of_a_base64_body_are_no_larger_than_the_urls() -> None:
    message = mail(f"<p>{'word ' * 500}<a href='{URL}'>x</a></p>", encoding="base64")
    (splice,) = rewrite(message).report.splices
    assert splice.before == URL.encode()


@pytest.mark.parametrize("body", [b"QUJD\r\nQQ==\r\nQUJD\r\n", b"QUJ\r\nDQUI=", b"QQ=\r\n", b"QUJD QUJD", b"Q"])
def test_base64_that_would_not_come_back_the_same_is_left_alone(body: bytes) -> None:
    message = mail(b"", "text/plain", "base64") + body
    assert reason(message) == "irregular base64"
    assert rewrite(message).message == message


def test_eight_bit_text_is_spliced_at_the_right_bytes() -> None:
    for label in ("utf-8", "gb18030", "iso-8859-1", "windows-1252", "shift_jis", "euc-kr", "koi8-r"):
        around = {"iso-8859-1": "Grüße", "windows-1252": "„Grüße“", "koi8-r": "привет", "euc-kr": "안녕"}.get(
            label, "日本"
        )
        text = f"<p>{around}<a href='{URL}'>{around}</a>{around}"
        message = mail(text.encode(label), f"text/html; charset={label}")
        result = rewrite(message)
        assert wire(result.message) == text.replace(URL, result.report.rewritten[0].new).encode(label)


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("utf-16", "charset is not ASCII-compatible"),
        ("utf-7", "charset is not ASCII-compatible"),
        ("iso-2022-kr", "charset is not ASCII-compatible"),
        ("hz-gb-2312", "charset is not ASCII-compatible"),
        ("cp037", "charset is not ASCII-compatible"),
        ("x-klingon", "unknown charset"),
        ("rot13", "charset is not ASCII-compatible"),
        ("base64", "charset is not ASCII-compatible"),
        ("unicode_escape", "charset is not ASCII-compatible"),
        ("\x00", "unknown charset"),
        ("a" * 5000, "unknown charset"),
    ],
)
def test_a_charset_that_cannot_be_spliced_is_left_alone(label: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        charset.codec(label)


def test_an_undecodable_body_is_left_alone_with_its_reason() -> None:
    message = mail(b"<a href='https://a.test/'>\xff\xfe</a>")
    assert rewrite(message).report.parts[0].reason == "undecodable"


def test_bytes_beyond_ascii_without_a_true_label_are_read_as_clients_do() -> None:
    for label in ("", "; charset=us-ascii", "; charset=iso-8859-1"):
        for body in ("ü".encode(), b"\xfc\x81"):
            message = mail(body + f"<a href='{URL}'>".encode(), f"text/html{label}")
            assert len(rewrite(message).report.rewritten) == 1


LONG = "x" * 800


def test_a_line_within_998_octets_stays_so_inside_a_tag() -> None:
    text = f'{LONG}<a class=\'b\' href="{URL}">a</a> <a href="{URL}" title="b">b</a>'
    result = rewrite(mail(text))
    assert len(result.report.rewritten) == 2
    assert max(map(len, wire(result.message).split(b"\r\n"))) <= 998
    assert re.sub(r"\s+", " ", body_of(result.message).text).replace('" >', '">').count("<a ") == 2


@pytest.mark.parametrize("text", [f"{LONG}{'y' * 150} {URL} z", f"{LONG}{'y' * 130} {URL} {URL}"])
def test_a_url_that_would_break_the_line_limit_is_left_alone_in_text(text: str) -> None:
    message = mail(text, "text/plain")
    result = rewrite(message)
    assert {link.verdict for link in result.report.links} == {"line too long"}
    assert result.message == message


def test_a_url_that_gets_shorter_makes_room_on_its_line_for_the_others() -> None:
    result = rewrite(mail(f"{URL} {'y' * 60} https://a.test/{'x' * 860}", "text/plain"))
    assert [link.verdict for link in result.report.links] == ["rewritten", "rewritten"]


def test_a_line_that_was_too_long_before_is_not_our_concern() -> None:
    result = rewrite(mail(f"{LONG}{LONG} <a href='{URL}'>x</a>"))
    assert len(result.report.rewritten) == 1


def test_inline_pgp_is_left_alone() -> None:
    for word in ("SIGNED MESSAGE", "MESSAGE"):
        message = mail(f"-----BEGIN PGP {word}-----\r\n\r\n{URL}\r\n", "text/plain")
        assert rewrite(message).report.parts[0].reason == "inline PGP"
    assert rewrite(mail(f"About -----BEGIN PGP MESSAGE----- see {URL}", "text/plain")).report.rewritten


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(codec="utf-8"), max_size=200),
    st.sampled_from(["quoted-printable", "base64", "8bit", "binary"]),
    st.data(),
)
def test_any_edits_of_any_text_come_out_and_go_back(text: str, transfer: str, data: st.DataObject) -> None:
    message = mail(b"", "text/plain; charset=utf-8", transfer) + encode(text.encode(), transfer)
    body = body_of(message)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body.text)), max_size=6)))
    edits = [Edit(a, b, "https://new.test/A-b_9") for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    splices, layer, refused = body.splice(edits)
    assert not refused
    layers = [layer] if layer else []
    result = apply(message, splices, layers)
    assert undo(result, splices, layers) == message
    expected, here = "", 0
    for edit in edits:
        expected += body.text[here : edit.start] + edit.new
        here = edit.end
    assert body_of(result).text == expected + body.text[here:]


@given(
    st.lists(st.sampled_from([b"=41", b"=e4", b"=\n", b"=\r\n", b"a", b"b\r\n", b"\xfc", b"==", b"=g"])).map(
        b"".join
    )
)
def test_quoted_printable_is_read_as_the_standard_library_reads_it(raw: bytes) -> None:
    message = mail(b"", "text/plain; charset=windows-1252", "quoted-printable") + raw
    if encoding._MALFORMED.search(raw):
        assert reason(message) == "malformed quoted-printable"
    else:
        assert body_of(message).data == quopri.decodestring(raw)


@settings(max_examples=400, deadline=None)
@given(messages())
def test_whatever_the_structure_the_original_comes_back(message: bytes) -> None:
    rewrite(message)
