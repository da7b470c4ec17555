"""Charset labels mean what clients take them for, and Japanese mail keeps its escapes around a changed URL."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webencodings import lookup
from webencodings.labels import LABELS

import brandproxy
from brandproxy.core import charset, encoding, iso2022, mime
from brandproxy.core.splice import Edit
from tests.core.mails import TENANT, mail, rewrite

URL = "https://www.acme.test/shop"
# UTF-16, other escapes, what browsers refuse to decode at all, and a label for binary data in scripts.
NOT_READ = {"utf-16le", "utf-16be", "replacement", "x-user-defined"}
SAMPLES = {
    "ibm866": "Привет", "koi8-r": "Привет", "koi8-u": "Привіт", "x-mac-cyrillic": "Привет",
    "gbk": "你好嗎", "gb18030": "你好嗎", "big5": "你好", "euc-jp": "日本①", "shift_jis": "日本①",
    "euc-kr": "안녕", "iso-2022-jp": "日本",
    "windows-874": "ก", "iso-8859-8-i": "שלום", "iso-8859-8": "שלום",
}  # fmt: skip


BEYOND = {"euc-jp": "euc_jis_2004", "shift_jis": "cp932"}  # where Python's codec lacks what browsers add


@pytest.mark.parametrize("name", sorted(set(LABELS.values()) - NOT_READ))
def test_every_label_of_the_encoding_standard_is_read_as_browsers_read_it(name: str) -> None:
    text = SAMPLES.get(name, "") + " <a> "
    for label in (label for label, meant in LABELS.items() if meant == name):
        data = codecs.encode(text, BEYOND.get(name) or lookup(label).codec_info.name)
        assert charset.decode(data, label)[0] == text, label


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("cp-850", "cp850"), ("win-1251", "cp1251"), ("x-windows-1252", "cp1252"), ("utf8mb4", "utf-8"),
        ("iso8859_15", "iso8859-15"), ('"UTF-8"', "utf-8"), ("cp50220", "iso-2022-jp"), ("ibm437", "cp437"),
    ],
)  # fmt: skip
def test_labels_that_senders_write_are_understood(label: str, codec: str) -> None:
    assert charset.codec(label) == codec


def japanese(text: str, transfer: str = "7bit", kind: str = "text/html") -> bytes:
    return mail(text.encode("iso2022_jp_3"), f"{kind}; charset=ISO-2022-JP", transfer)


@pytest.mark.parametrize("transfer", ["7bit", "quoted-printable", "base64"])
def test_japanese_mail_is_rewritten_and_every_escape_stays(transfer: str) -> None:
    text = f'<p>日本語<a href="{URL}">こちら</a>ｶﾅ へ</p>\r\n<p>続き</p>\r\n'
    result = rewrite(japanese(text.replace("ｶﾅ", ""), transfer))
    (link,) = result.report.rewritten
    assert (link.url, link.label) == (URL, "こちら")
    body = encoding.read(result.message, mime.parse(result.message).leaves[0])
    assert body.data.decode("iso2022_jp") == text.replace("ｶﾅ", "").replace(URL, link.new)
    restored = brandproxy.restore(result.message, TENANT)
    assert encoding.read(restored, mime.parse(restored).leaves[0]).text == text.replace("ｶﾅ", "")


def test_a_url_between_japanese_words_leaves_them_readable() -> None:
    for text in (f"詳細は{URL}。", f"（{URL}）", f"{URL}/日本をどうぞ", f"<{URL}>続き"):
        result = rewrite(japanese(text, kind="text/plain"))
        (link,) = result.report.rewritten
        data = result.message.partition(b"\r\n\r\n")[2]
        assert data.decode("iso2022_jp_3") == text.replace(link.url, link.new)


def test_a_pixel_at_the_end_of_japanese_text_is_ascii() -> None:
    tenant = brandproxy.tenant("acme", b"k" * 32, policy=brandproxy.Policy(opens=True))
    for tail in (b"", b"</body>", b"\x1b(B", b"\x1b(B</body>"):
        message = mail(
            b"<body>\x1b$BF|K\\" + tail.replace(b"</body>", b"\x1b(B</body>"), "text/html; charset=iso-2022-jp"
        )
        data = rewrite(message, tenant).message.partition(b"\r\n\r\n")[2]
        assert b"\x1b(B<img src=" in data
        assert data.decode("iso2022_jp").startswith("<body>日本<img src=")


@pytest.mark.parametrize(
    "data", [b"\x1b$BF|K", b"\x1b$BF|\r\n", b"\x1b$(CF|", b"\x1b", b"\xff", b"\x1b(I\x80", b"\x1b$B F"]
)
def test_what_readers_would_not_agree_on_is_undecodable(data: bytes) -> None:
    message = mail(data + b"<a href='https://a.test/'>", "text/html; charset=iso-2022-jp")
    assert rewrite(message).report.parts[0].reason == "undecodable"


def test_characters_that_no_codec_knows_count_as_one() -> None:
    message = mail(
        b"\x1b$B)!-!\x1b(B <a href='https://a.test/'>\x1b$B-j\x1b(B</a>", "text/html; charset=iso-2022-jp"
    )
    result = rewrite(message)
    assert result.message.endswith(f"<a href='{result.report.rewritten[0].new}'>".encode() + b"\x1b$B-j\x1b(B</a>")


_PIECES = st.sampled_from(["日", "本①", "ab", "~\\", "\r\n", "<", " ", ""])
_ESCAPES = {"日": b"\x1b$BF|", "本①": b"\x1b$BK\\-!", "~\\": b"\x1b(J~\\"}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_PIECES, st.booleans()), max_size=12), st.data())
def test_any_edit_of_japanese_text_changes_what_it_names_and_nothing_else(
    pieces: list[tuple[str, bool]], data: st.DataObject
) -> None:
    raw = b"".join(
        _ESCAPES.get(piece, b"\x1b(B" + piece.encode() if piece.isascii() else b"") for piece, _ in pieces
    )
    text = iso2022.decode(raw)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    edits = [
        Edit(a, b, data.draw(st.sampled_from(["", "https://new.test/~b"])))
        for a, b in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    out, expected, at, here = b"", "", 0, 0
    for start, end, edit in iso2022.spans(raw, edits):
        out += raw[at:start] + edit.new.encode("ascii")
        at = end
    for edit in edits:
        expected += text[here : edit.start] + edit.new
        here = edit.end
    assert iso2022.decode(out + raw[at:]) == expected + text[here:]
