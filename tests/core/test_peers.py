"""What broke other people's rewriters, each as a promise of ours. The issue numbers are theirs."""

from __future__ import annotations

import pytest

import brandproxy
from brandproxy.core import encoding, links, mime
from brandproxy.core.tokens import Click
from tests.core.mails import REFS, TENANT, mail, multipart, part, rewrite, with_policy

RING = links.key_ring(TENANT.keys)


def signed(markup: str) -> str:
    """The URL in the token of the one link of `markup`."""
    (link,) = rewrite(mail(markup)).report.rewritten
    payload = links.ours(RING, link.new)
    assert isinstance(payload, Click)
    return payload.url


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("https://a.test/?x=1&amp;y=2", "https://a.test/?x=1&y=2"),
        ("https://a.test/?x=1&y=2", "https://a.test/?x=1&y=2"),
        ("https://a.test/?x=1&#38;y=2", "https://a.test/?x=1&y=2"),
        ("https://a.test/?x=1&#x26;y=2", "https://a.test/?x=1&y=2"),
        ("https://a.test/?a=1&copy=2&lt=4&reg=5", "https://a.test/?a=1&copy=2&lt=4&reg=5"),
        ("https://a.test/?a=1&amp;copy=2", "https://a.test/?a=1&copy=2"),
        ("https://a.test/?q=caf&eacute;", "https://a.test/?q=café"),
    ],
)
def test_references_are_decoded_as_in_attributes(value: str, url: str) -> None:
    """postal#907, #1040, #115; listmonk#844; mautic#880: `&amp;` signed as it stands, or `&copy=` as ©."""
    assert signed(f'<a href="{value}">x</a>') == url


@pytest.mark.parametrize(
    "url",
    [
        "https://a.test/@me/profile",
        "https://a.test/x?to=me@a.test",
        "https://a.test/a[0]=1&b(2)",
        "https://a.test/?filter[a]=1",
        "https://a.test/#/route?x=1",
        "https://a.test/page#section-2",
        "https://a.test/ünïcode/日本?q=ü#ä",
        "https://a.test/%23not-a-fragment",
        "https://a.test/?u=https%3A%2F%2Fb.test%2F%3Fx%3D1",
        "https://a.test/?u=https://b.test/?x=1",
        "https://a.test/a+b%20c",
        "https://a.test/?token=YWJj==&x",
        "https://a.test/a'b",
        "https://a.test//double//slash",
        "https://a.test/;v=1,2",
        "https://a.test/~me",
    ],
)
def test_every_character_of_a_url_arrives(url: str) -> None:
    """postal#548, #296; mautic#5417, #4266, #16221; ahoy_email#157: `@`, brackets, `#` lost or changed."""
    assert signed(f'<a href="{url}">x</a>') == url
    found = rewrite(mail(f"see {url} there", "text/plain; charset=utf-8")).report.rewritten
    assert [link.url for link in found] == [url]


def test_signed_and_encrypted_parts_keep_every_byte_and_get_no_pixel() -> None:
    """postal#3240: S/MIME signatures broken by the pixel."""
    inner = part("<body><a href='https://a.test/'>x</a></body>")
    signature = part(b"MIIB", "application/pkcs7-signature; name=smime.p7s", "base64")
    message = multipart("signed", inner, signature)
    assert rewrite(message, with_policy(opens=True)).message == message
    opaque = mail(b"MIIB\r\n", "application/pkcs7-mime; name=smime.p7m", "base64")
    assert rewrite(opaque, with_policy(opens=True)).message == opaque


def test_text_attachments_are_no_body() -> None:
    attached = part("https://a.test/", "text/plain", head="Content-Disposition: attachment; filename=a.txt\r\n")
    page = part("<a href='https://a.test/'>", "text/html", head="Content-Disposition: attachment\r\n")
    log = part("https://a.test/", 'text/plain; name="server.log"')
    message = multipart("mixed", part("hi", "text/plain"), attached, page, log)
    assert rewrite(message).message == message


@pytest.mark.parametrize(
    "markup",
    [
        "<a href=https://a.test/>x</a>",
        "<A HREF='https://a.test/'>x</A>",
        '<a\nhref\n=\n"https://a.test/">x</a>',
        "<area href=https://a.test/>",
        "<a href=' https://a.test/ '>x</a>",
        "<a href=\"https://a.test/\" href='//b'>x</a>",
        '<!--[if mso]><v:rect href="https://a.test/"></v:rect><![endif]-->',
        "<a href=HTTPS://a.test/>x</a>",
    ],
)
def test_no_way_of_writing_a_link_is_missed(markup: str) -> None:
    """Postal, Mautic and pytracking miss unquoted attributes, VML and more."""
    assert signed(markup).lower() == "https://a.test/"


def test_doctype_conditions_and_white_space_stay_as_they_are() -> None:
    """Serialisers drop the public id, write `<?if !mso?>`, change the meta charset and collapse white space."""
    frame = (
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/x.dtd">\r\n'
        '<html xmlns:o="urn:x"><head><meta http-equiv=Content-Type content="text/html; charset=iso-8859-1">\r\n'
        "<![if !mso]><link rel=x><![endif]><!--[if gte mso 9]><xml><o:a/></xml><![endif]--></head>\r\n"
        '<body  BGCOLOR=#fff ><p>a&nbsp;b &copy c\t d<br/><BR></p><a class=x  href="{}" >x</a ></body>\r\n\r\n'
    )
    message = mail(frame.format("https://a.test/"))
    result = rewrite(message)
    (link,) = [link for link in result.report.rewritten if link.place == "a href"]
    assert result.message == mail(frame.format(link.new))


def test_links_that_open_apps_or_mail_are_left_alone() -> None:
    for url in (
        "mailto:a@b.test?subject=x",
        "tel:+491",
        "sms:+491",
        "whatsapp://send?x",
        "intent://x#Intent;end",
        "#top",
    ):
        message = mail(f'<a href="{url}">x</a>')
        assert rewrite(message).message == message


def test_nothing_is_left_behind_on_another_domain() -> None:
    """mautic-multi-domain#20: the wrong domain in pixel, List-Unsubscribe, web view."""
    head = "List-Unsubscribe: <https://acme.test/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    body = '<body><a href="https://acme.test/view">View in browser</a><img src="https://cdn.acme.test/mail/a.png"></body>'
    result = rewrite(mail(body, head=head), with_policy(opens=True))
    assert b"acme.test/" not in result.message.replace(b"https://links.acme.test/", b"")
    assert result.message.count(b"https://links.acme.test/") == 4


def test_no_url_is_left_without_a_reason() -> None:
    """postal#177, #754, #1210: nothing rewritten and no reason shown."""
    message = mail('<a href="mailto:x@y">x</a><img src="https://other.test/a.png"><a href="{{u}}">x</a>')
    for tenant, base in (
        (TENANT, "https://links.acme.test"),
        (TENANT, None),
        (with_policy(clicks=False), "https://l.test"),
    ):
        report = rewrite(message, tenant, base).report
        assert len(report.links) == 3
        assert all(link.verdict for link in report.links)


def test_one_body_for_many_recipients_carries_no_recipient() -> None:
    """SES warns: one body sent to many shares its tokens. References decide; the rest of the token is the same."""
    refs = brandproxy.References("spring", "m-17")
    result = brandproxy.rewrite(
        mail('<a href="https://a.test/">x</a>'), TENANT, refs, "https://links.acme.test", 1
    )
    payload = links.ours(RING, result.report.rewritten[0].new)
    assert payload == Click("https://a.test/", "spring", "m-17", "", 1, 1)


def test_tokens_survive_mailers_that_encode_again() -> None:
    """ahoy_email#157, mautic#4416: re-encoders break query strings; our links have none."""
    (link,) = rewrite(mail('<a href="https://a.test/?a=b&amp;c=d">x</a>')).report.rewritten
    for transfer in ("quoted-printable", "base64", "8bit"):
        again = mail(f'<a href="{link.new}">x</a>', encoding=transfer)
        text = encoding.read(again, mime.parse(again).leaves[0]).text
        assert link.new in text
    assert not set(link.new) & set("?&=%#+ ")
    assert REFS.campaign not in link.new
