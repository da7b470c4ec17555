"""Headers: only List-Unsubscribe's URIs and control headers change, however a header is written."""

from __future__ import annotations

import pytest

from tests.core.mails import mail, rewrite

BODY = '<a href="https://acme.test/">x</a>'
ODD = [
    "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= =?utf-8?B?4pyT?=\r\n https://acme.test/in-a-header\r\n",
    "Subject: Grüße in UTF-8 (SMTPUTF8) https://acme.test/\r\n",
    "X-Latin: \udce9t\udce9\r\n",
    "X-Long: " + "x" * 1500 + "\r\n",
    "X-Folded:\r\n\tone\r\n  two\r\n",
    "X-Empty:\r\nX-Blank: \r\n",
    "X-Nul: a\x00b\x0cc\r\n",
    "List-Help: <https://acme.test/help>\r\nList-Archive: <https://acme.test/archive>\r\n",
    "Content-Description: <https://acme.test/>\r\n",
]


@pytest.mark.parametrize("head", ODD)
def test_a_header_that_is_not_ours_keeps_every_byte(head: str) -> None:
    raw = head.encode("utf-8", "surrogateescape")
    message = mail(BODY).replace(b"From: a@acme.test\r\n", b"From: a@acme.test\r\n" + raw)
    result = rewrite(message)
    (link,) = result.report.rewritten
    assert result.message == message.replace(b'"https://acme.test/"', f'"{link.new}"'.encode())


@pytest.mark.parametrize(
    ("value", "urls"),
    [
        ("<mailto:u@acme.test?subject=x>, <https://acme.test/u?a=1&b=2>", 1),
        ("<https://acme.test/1>,\r\n <https://acme.test/2>,\r\n\t<mailto:u@acme.test>", 2),
        ("(by web:) <https://acme.test/u> (or write:) <mailto:u@acme.test>", 1),
        ("<https://acme.test/a\r\n /b?c=1>", 1),
        (" \r\n <HTTPS://acme.test/u>", 1),
        ("< https://acme.test/u >", 1),
        ("<https://acme.test/{{ id }}>", 0),
        ("<ftp://acme.test/u>, <mailto:u@acme.test>", 0),
        ("https://acme.test/u", 0),  # no URI without brackets (RFC 2369 §2)
        ("NO", 0),
    ],
)
def test_only_the_web_addresses_of_list_unsubscribe_change(value: str, urls: int) -> None:
    result = rewrite(mail("x", "text/plain", head=f"List-Unsubscribe: {value}\r\n"))
    assert len(result.report.rewritten) == urls
    assert all(link.new.startswith("https://links.acme.test/u/") for link in result.report.rewritten)
    expected = value
    for link in result.report.rewritten:
        assert link.url.lower().startswith("https://acme.test/")
    for splice in result.report.splices:
        expected = expected.replace(splice.before.decode(), splice.after.decode())
    assert result.message == mail("x", "text/plain", head=f"List-Unsubscribe: {expected}\r\n")
