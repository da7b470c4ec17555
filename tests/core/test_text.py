"""text/plain: which characters are a URL, however the text was wrapped and quoted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brandproxy.core import text
from tests.core.mails import mail, rewrite


def urls(body: str, flowed: bool = False, delsp: bool = False) -> list[str]:
    return [found.url for found in text.find(body, flowed, delsp)]


@pytest.mark.parametrize(
    ("body", "url"),
    [
        ("See https://acme.test/a.", "https://acme.test/a"),
        ("See https://acme.test/a?b=1&c=2, then", "https://acme.test/a?b=1&c=2"),
        ("(https://acme.test/a)", "https://acme.test/a"),
        ("https://acme.test/wiki/A_(b) c", "https://acme.test/wiki/A_(b)"),
        ("[https://acme.test/a]", "https://acme.test/a"),
        ('"https://acme.test/a"', "https://acme.test/a"),
        ("'https://acme.test/a'", "https://acme.test/a"),
        ("<https://acme.test/a>", "https://acme.test/a"),
        ("<URL:https://acme.test/a>", "https://acme.test/a"),
        ("<https://acme.test/a,b;c!>", "https://acme.test/a,b;c!"),
        ("[label](https://acme.test/a)", "https://acme.test/a"),
        ("https://acme.test/a!", "https://acme.test/a"),
        ("https://acme.test/a?", "https://acme.test/a"),
        ("https://acme.test/a...", "https://acme.test/a"),
        ("https://acme.test/@me/x#y=1", "https://acme.test/@me/x#y=1"),
        ("HTTPS://ACME.test/A", "HTTPS://ACME.test/A"),
        ("http://münchen.test/straße", "http://münchen.test/straße"),
        ("http://acme.test:8080/a", "http://acme.test:8080/a"),
        ("> > https://acme.test/a\r\n> > b", "https://acme.test/a"),
        ("-- \r\nAcme, https://acme.test/", "https://acme.test/"),
        ("https://acme.test/a\r\nb", "https://acme.test/a"),
        ("https://acme.test/a\tb", "https://acme.test/a"),
        ("https://acme.test/a?!", "https://acme.test/a"),
        ("https://acme.test/a:", "https://acme.test/a"),
        ("https://en.wikipedia.test/wiki/A_(b)_(c).", "https://en.wikipedia.test/wiki/A_(b)_(c)"),
        ("(https://en.wikipedia.test/wiki/A_(b))", "https://en.wikipedia.test/wiki/A_(b)"),
        ("[label](https://acme.test/a_(b))", "https://acme.test/a_(b)"),
        ('![i](https://acme.test/a.png "title")', "https://acme.test/a.png"),
        ("**https://acme.test/a**", "https://acme.test/a"),
        ("`https://acme.test/a`", "https://acme.test/a"),
        ("|https://acme.test/a|b|", "https://acme.test/a|b"),
        ("（https://acme.test/a）", "https://acme.test/a"),
        ("「https://acme.test/a」と", "https://acme.test/a"),
        ("詳細はhttps://acme.test/a。次に", "https://acme.test/a"),
        ("看https://acme.test/a，然后", "https://acme.test/a"),
        ("“https://acme.test/a”", "https://acme.test/a"),
        ("«https://acme.test/a»", "https://acme.test/a"),
        ("‚https://acme.test/a‘", "https://acme.test/a"),
        ("https://acme.test/a… – ", "https://acme.test/a"),
        ("https://acme.test/a؟", "https://acme.test/a"),
        ("\u200fhttps://acme.test/a\u200f", "https://acme.test/a"),
        ("\u2068https://acme.test/a\u2069.", "https://acme.test/a"),
        ("👉https://acme.test/a👈🏽!", "https://acme.test/a"),
        ("https://acme.test/🎉🎉", "https://acme.test/🎉🎉"),
        ("https://acme.test/日本/о-нас", "https://acme.test/日本/о-нас"),
    ],
)
def test_a_url_ends_where_a_reader_would_end_it(body: str, url: str) -> None:
    assert urls(body) == [url]


@pytest.mark.parametrize(
    "body", ["ftp://acme.test/", "mailto:a@acme.test", "acme.test/a", "http://", "https:// x", "a@www.b.c"]
)
def test_what_is_no_web_address_is_no_candidate(body: str) -> None:
    assert urls(body) == []


def test_a_bare_name_is_reported_and_left_as_written() -> None:
    result = rewrite(mail("Visit www.acme.test/a today", "text/plain"))
    assert [(link.url, link.verdict) for link in result.report.links] == [("http://www.acme.test/a", "no scheme")]
    assert not result.report.splices


@pytest.mark.parametrize("tag", ["<%= id %>", "{{ id }}", "[[id]]", "%%id%%", "*|ID|*", "${id}", "<<id>>", "«id»"])
def test_a_url_that_a_template_will_finish_is_left_as_written(tag: str) -> None:
    message = mail(f"https://acme.test/{tag} and https://acme.test/?id={tag}", "text/plain; charset=utf-8")
    result = rewrite(message)
    assert {link.verdict for link in result.report.links} == {"template placeholder"}
    assert result.message == message


def test_a_soft_wrapped_line_of_quoted_printable_does_not_end_a_url() -> None:
    wire = b"(https://acme.test/wiki/A_=\r\n(b)?x=3D1&y=\r\n=3D2). Then https://acme.test/c=\r\n=E3=80=82\r\n"
    result = rewrite(mail(b"", "text/plain; charset=utf-8", "quoted-printable") + wire)
    urls = [link.url for link in result.report.rewritten]
    assert urls == ["https://acme.test/wiki/A_(b)?x=1&y=2", "https://acme.test/c"]


def test_space_stuffing_and_quotes_around_flowed_urls_stay() -> None:
    body = " From here: https://acme.test/a \r\n >https://acme.test/b \r\n> https://acme.test/c \r\n"
    result = rewrite(mail(body, "text/plain; format=flowed"))
    expected = body
    for link in result.report.rewritten:
        expected = expected.replace(link.url, link.new)
    assert len(result.report.rewritten) == 3
    assert result.message.endswith(expected.encode())


def test_a_token_is_whole_whatever_stands_behind_it() -> None:
    """The second pass in `rewrite` finds its own links again, also where a token ends in a dash."""
    for number in range(80):
        for frame in ("（{}）", "*{}*", "{}。", "“{}”", "{}…", "_{}_", "`{}`", "{}👍"):
            rewrite(mail(frame.format(f"https://acme.test/{number}"), "text/plain; charset=utf-8"))


def test_angle_brackets_hold_a_url_together_over_wrapped_lines() -> None:
    start = "https://acme.test/" + "a" * 50
    assert urls(f"<{start}/\r\nbcd?e=1>") == [f"{start}/bcd?e=1"]
    assert urls(f"> <{start}/\r\n> bcd?e=1>") == [f"{start}/bcd?e=1"]
    result = rewrite(mail(f"> x <{start}/\r\n> bcd?e=1> y", "text/plain"))
    assert result.message.endswith(f"> x <{result.report.rewritten[0].new}> y".encode())


def test_a_url_broken_in_angle_brackets_for_no_reason_is_left_alone() -> None:
    result = rewrite(mail("<https://acme.test/a\r\nb>", "text/plain"))
    assert [link.verdict for link in result.report.links] == ["broken over lines"]


def test_flowed_text_with_delsp_joins_soft_lines() -> None:
    body = "See https://acme.test/one/ \r\ntwo/ \r\n three.\r\nEnd"
    assert urls(body, flowed=True, delsp=True) == ["https://acme.test/one/two/three"]
    message = mail(body, "text/plain; format=flowed; delsp=yes")
    result = rewrite(message)
    assert result.message.endswith(f"See {result.report.rewritten[0].new}.\r\nEnd".encode())


def test_flowed_text_without_delsp_keeps_the_blank_that_ends_a_url() -> None:
    assert urls("https://acme.test/one \r\ntwo", flowed=True) == ["https://acme.test/one"]


def test_flowed_lines_of_another_quote_depth_are_not_joined() -> None:
    assert urls("> https://acme.test/a \r\nb", flowed=True, delsp=True) == ["https://acme.test/a"]
    assert urls("> https://acme.test/a \r\n> b", flowed=True, delsp=True) == ["https://acme.test/ab"]


def test_a_signature_separator_is_no_soft_line() -> None:
    assert urls("https://acme.test/a\r\n-- \r\nb", flowed=True, delsp=True) == ["https://acme.test/a"]


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["https://a.test/b", "www.a.test", "<", ">", "> ", " \r\n", "\n", " ", "(", ")", ".", "é", "-- \n"]
        )
    ),
    st.booleans(),
    st.booleans(),
)
def test_found_spans_rise_and_never_overlap(tokens: list[str], flowed: bool, delsp: bool) -> None:
    body, here = "".join(tokens), 0
    for found in text.find(body, flowed, delsp):
        assert here <= found.start < found.end <= len(body)
        assert body[found.start : found.end][:4].lower() in ("http", "www.")
        here = found.end
