"""Hostile input costs no more than twenty times an ordinary mail of the same size, and never a crash.

The size of each shape is `BRANDPROXY_HOSTILE_MB` (1; the promise is about 10). Ratios of CPU time, measured
here and now, so that a slow machine is slow for both.
"""

from __future__ import annotations

import os
import time
import tracemalloc

import pytest

import brandproxy
from tests.core.mails import BASE, NOW, REFS, TENANT, mail, multipart, part

SIZE = int(float(os.environ.get("BRANDPROXY_HOSTILE_MB", "1")) * 1_000_000)
WORDS = "<p>A few words of an ordinary newsletter, as people write them.</p>\r\n"
LINK = '<a href="https://www.acme.test/shop?utm_source=news&amp;id=7"><img src="https://cdn.acme.test/mail/a.png"></a>\r\n'


def fill(unit: str | bytes) -> bytes:
    data = unit.encode() if isinstance(unit, str) else unit
    return data * (SIZE // len(data))


def nested() -> bytes:
    head = "Content-Type: multipart/mixed; boundary=b{0}\r\n\r\n--b{0}\r\n"
    return "".join(head.format(i) for i in range(SIZE // 60)).encode()


HTML_HEAD, TEXT_HEAD = mail(""), mail("", "text/plain; charset=utf-8; format=flowed; delsp=yes")
JAPANESE = mail("", "text/html; charset=iso-2022-jp")
SHAPES = {
    "less-than": HTML_HEAD + fill("<"),
    "open comments": HTML_HEAD + fill("<!--"),
    "open tags": HTML_HEAD + fill("<a href="),
    "open quotes": HTML_HEAD + fill("<a href=\"https://a.test/'"),
    "conditions": HTML_HEAD + fill("<!--[if mso]>"),
    "links on one line": HTML_HEAD + fill("<a href=https://a.test/>"),
    "css": HTML_HEAD + b"<style>" + fill("a{background:url(https://a.test/"),
    "references": HTML_HEAD + b'<a href="' + fill("&amp") + b'">',
    "nested multiparts": nested(),
    "delimiters": b"Content-Type: multipart/mixed; boundary=b\n\n" + fill(b"--b\n"),
    "near delimiters": b"Content-Type: multipart/mixed; boundary=b\n\n" + fill(b"--\n"),
    "headers": fill(b"Subject: x\n"),
    "folded header": b"Subject: x\n" + fill(b" y\n"),
    "blank folds": b"Subject: x" + fill(b" \n"),
    "list-unsubscribe": b"List-Unsubscribe: " + fill(b"<https://a.test/>,") + b"\n\nx",
    "deep quoting": TEXT_HEAD + fill("> ") + b"https://a.test/",
    "schemes": TEXT_HEAD + fill("https://"),
    "angles": TEXT_HEAD + fill("<https://a.test/"),
    "brackets": TEXT_HEAD + b"https://a.test/" + fill("(a"),
    "soft lines": TEXT_HEAD + b"https://a.test/" + fill("a \r\n"),
    "marks behind": TEXT_HEAD + fill("https://a.test/b" + "🎉." * 1000),
    "japanese escapes": JAPANESE + fill(b"\x1b$B!!\x1b(B"),
    "japanese links": JAPANESE + fill(b"\x1b$B!!\x1b(B<a href=https://a.test/>"),
    "relative links": HTML_HEAD + b"<base href=https://a.test/" + fill("a/../") + b"><a href=x/../y>",
    "text links": TEXT_HEAD + fill("https://a.test/b "),
    "soft breaks": mail("", encoding="quoted-printable") + b"<a href=3Dhttps://a.test/" + fill(b"=\r\n"),
    "one long quoted-printable line": mail("", encoding="quoted-printable") + fill(b"<a href=3Dhttps://a.test/>"),
}


def seconds(message: bytes) -> float:
    start = time.process_time()
    brandproxy.rewrite(message, TENANT, REFS, BASE, NOW)
    return time.process_time() - start


@pytest.fixture(scope="module")
def second_per_byte() -> float:
    text = part("Words of plain text and https://www.acme.test/a.\r\n" * 40, "text/plain")
    ordinary = multipart("alternative", text, part((WORDS * 8 + LINK) * 20))
    seconds(ordinary)
    return min(seconds(ordinary) for _ in range(5)) / len(ordinary)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hostile_shape_takes_linear_time(shape: str, second_per_byte: float) -> None:
    message = SHAPES[shape]
    assert seconds(message) < 20 * second_per_byte * len(message)


def test_a_large_message_is_filtered_within_three_times_its_size_and_its_attachments_unread() -> None:
    attachment = b"A" * 76 + b"\r\n"
    attachment = (
        part(b"", "application/pdf", "base64", "Content-Disposition: attachment\r\n") + attachment * 325_000
    )
    message = multipart("mixed", part((WORDS * 8 + LINK) * 20), attachment)
    assert len(message) > 25_000_000
    tracemalloc.start()
    try:
        held = tracemalloc.get_traced_memory()[0]
        result = brandproxy.rewrite(message, TENANT, REFS, BASE, NOW)
        grown = tracemalloc.get_traced_memory()[1] - held
    finally:
        tracemalloc.stop()
    assert len(result.report.rewritten) == 40
    assert len(message) + grown < 2.2 * len(message), "the message, the result, and nothing else of that size"
