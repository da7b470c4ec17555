"""The rewriter: every URL gets a verdict with a stable reason, and nothing but rewritten URLs changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

import brandproxy
from brandproxy.core import links, policy
from brandproxy.core.tokens import Asset, Click, Open, Unsubscribe
from brandproxy.errors import BadInput
from brandproxy.model import Origin, Policy, References
from tests.core.mails import BASE, NOW, REFS, TENANT, mail, multipart, part, rewrite, verdicts, with_policy

RING = links.key_ring(TENANT.keys)
URL = "https://www.acme.test/shop?id=7"


def verdict(url: str, tenant: brandproxy.Tenant = TENANT, before: str = "", base: str | None = BASE) -> str:
    result = rewrite(mail(f'{before}<a href="{url}">text</a>'), tenant, base)
    (link,) = result.report.links
    assert (link.verdict == "rewritten") == (result.message != mail(f'{before}<a href="{url}">text</a>'))
    return link.verdict


# --- what a token carries -----------------------------------------------------------------------------------


def test_a_link_carries_all_that_a_click_needs() -> None:
    (link,) = rewrite(mail(f'<a href="{URL}">Shop</a>')).report.rewritten
    assert link.new.startswith(f"{BASE}/c/")
    assert links.ours(RING, link.new) == Click(URL, "spring", "m-17", "r-4711", 1, NOW)
    assert link.label == "Shop"


def test_links_of_the_text_and_the_html_part_share_one_running_number() -> None:
    result = rewrite(
        multipart("alternative", part(f"{URL} {URL}/2", "text/plain"), part(f"<a href='{URL}'>x</a>"))
    )
    assert [link.number for link in result.report.rewritten] == [1, 2, 3]
    numbers = [
        payload.link
        for link in result.report.rewritten
        if isinstance(payload := links.ours(RING, link.new), Click)
    ]
    assert numbers == [1, 2, 3]


def test_references_given_win_over_control_headers_which_are_always_removed() -> None:
    head = "X-Brandproxy-Tenant: acme\r\nx-brandproxy-campaign: winter\r\nX-Brandproxy-Recipient: r-\r\n 1\r\n"
    message = mail(f'<a href="{URL}">x</a>', head=head)
    result = brandproxy.rewrite(message, TENANT, References(campaign="spring"), BASE, NOW)
    assert b"randproxy" not in result.message
    assert links.ours(RING, result.report.rewritten[0].new) == Click(URL, "spring", "", "r- 1", 1, NOW)
    assert brandproxy.unrewrite(result.message, result.report) == message
    assert brandproxy.control_headers(message) == brandproxy.Control("acme", "winter", "", "r- 1")
    unhosted = brandproxy.rewrite(message, TENANT, REFS, None, NOW)
    assert b"randproxy" not in unhosted.message


def test_a_reference_of_the_message_that_cannot_be_signed_is_ignored_and_noted() -> None:
    message = mail(f'<a href="{URL}">x</a>', head=f"X-Brandproxy-Campaign: {'c' * 300}\r\n")
    result = brandproxy.rewrite(message, TENANT, References(), BASE, NOW)
    assert result.report.notes == ("X-Brandproxy-Campaign ignored: longer than 256 characters",)
    assert result.report.rewritten
    with pytest.raises(BadInput):
        brandproxy.rewrite(message, TENANT, References(campaign="c" * 300), BASE, NOW)


# --- verdicts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (URL, "rewritten"),
        ("mailto:a@acme.test", "not http(s)"),
        ("tel:+49", "not http(s)"),
        ("sms:+49", "not http(s)"),
        ("javascript:alert(1)", "not http(s)"),
        ("cid:a@b", "not http(s)"),
        ("shop/index.html", "not http(s)"),
        ("https://user:pw@acme.test/", "user-info"),
        ("https://acme.test\\@evil.test/", "backslash"),
        ("https:///acme.test/", "bad host"),
        ("https://acme.test/" + "x" * 4100, "too long"),
        ("https://acme.test/{{ path }}", "template placeholder"),
        ("{{ url }}", "template placeholder"),
        ("*|ARCHIVE|*", "template placeholder"),
        ("https://acme.test/%%id%%", "template placeholder"),
        ("https://acme.test/[[id]]", "template placeholder"),
        ("<%= url %>", "template placeholder"),
        ("${url}", "template placeholder"),
        ("{% url %}", "template placeholder"),
    ],
)
def test_every_url_gets_its_verdict(url: str, reason: str) -> None:
    assert verdict(url) == reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"clicks": False}, "clicks off"),
        ({"exclude": ("*.acme.test/shop*",)}, "excluded"),
        ({"exclude": ("www.acme.test",)}, "excluded"),
        ({"exclude": ("acme.test",)}, "rewritten"),
        ({"exclude": ("*.acme.test/account/*",)}, "rewritten"),
        ({"include": ("*.acme.test",)}, "rewritten"),
        ({"include": ("other.test/*",)}, "not included"),
        ({"max_links": 0}, "over the link cap"),
    ],
)
def test_the_tenant_decides_about_destinations(fields: dict[str, object], reason: str) -> None:
    assert verdict(URL, with_policy(**fields)) == reason


@pytest.mark.parametrize(
    "mark",
    ['data-brandproxy="off"', "clicktracking=off", "ses:no-track", 'data-msys-clicktrack="0"', "data-pm-no-track",
     "mautic:disable-tracking"],
)  # fmt: skip
def test_an_opted_out_link_is_left_alone_and_its_mark_removed(mark: str) -> None:
    message = mail(f'<p><a {mark} href="{URL}">x</a></p><a href="{URL}/2">y</a>')
    result = rewrite(message)  # twice: the second pass cannot see the mark and still leaves the link alone
    assert verdicts(result) == [(URL, "opted out"), (f"{URL}/2", "rewritten")]
    new = result.report.rewritten[0].new
    assert result.message == mail(f'<p><a href="{URL}">x</a></p><a href="{new}">y</a>')


def test_links_of_an_earlier_message_quoted_in_a_new_one_stay_and_new_ones_are_rewritten() -> None:
    old = brandproxy.rewrite(mail(f'<a href="{URL}">x</a>'), TENANT, References("before", "m-1"), BASE, NOW)
    quoted = old.report.rewritten[0].new
    result = rewrite(mail(f'<blockquote><a href="{quoted}">x</a></blockquote><a href="{URL}">y</a>'))
    assert verdicts(result) == [(quoted, "already ours"), (URL, "rewritten")]


def test_a_forged_link_that_looks_like_ours_is_an_ordinary_one() -> None:
    assert verdict(f"{BASE}/c/{'A' * 60}") == "rewritten"


def test_private_links_are_branded_and_say_so_in_the_token() -> None:
    for tenant, mark in ((TENANT, ' data-brandproxy="private"'), (with_policy(private=("*/shop*",)), "")):
        (link,) = rewrite(mail(f'<a href="{URL}"{mark}>x</a>'), tenant).report.rewritten
        payload = links.ours(RING, link.new)
        assert isinstance(payload, Click)
        assert payload.private


def test_the_link_cap_passes_the_rest_unchanged_and_says_so() -> None:
    body = "".join(f'<a href="{URL}&amp;n={n}">x</a>' for n in range(5))
    result = rewrite(mail(body), with_policy(max_links=2))
    assert [link.verdict for link in result.report.links] == ["rewritten"] * 2 + ["over the link cap"] * 3


def test_without_a_usable_host_or_key_everything_is_reported_and_left() -> None:
    assert verdict(URL, base=None) == "no usable host"
    revoked = replace(TENANT, keys=(replace(TENANT.keys[0], revoked_at=1),))
    assert verdict(URL, revoked) == "no usable key"


def test_a_link_whose_text_names_another_host_is_flagged() -> None:
    message = mail(f'<a href="{URL}"> <b>https://bank.test/login</b> </a><a href="{URL}">www.acme.test</a>')
    flagged, plain = rewrite(message).report.links
    assert (flagged.text_host, flagged.verdict) == ("bank.test", "rewritten")
    assert plain.text_host == ""
    left = rewrite(message, with_policy(leave_url_text=True)).report.links[0]
    assert left.verdict == "text names another host"


@pytest.mark.parametrize(
    ("wish", "expected"), [("click", "rewritten"), ("private", "rewritten"), ("leave", "unsubscribe link")]
)
def test_unsubscribe_links_of_the_body_are_handled_as_the_tenant_says(wish: str, expected: str) -> None:
    head = "List-Unsubscribe: <https://acme.test/bye>\r\n"
    for url in ("https://acme.test/bye", "https://acme.test/unsubscribe?u=1"):
        result = rewrite(
            mail(f'<a href="{url}">x</a>', head=head), with_policy(unsubscribe_links=wish, unsubscribe=False)
        )
        link = result.report.links[-1]
        assert (link.verdict, link.private) == (expected, wish == "private")


# --- assets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "asset"),
    [
        ("https://cdn.acme.test/mail/a/b.png", Asset("media", "a/b.png")),
        ("http://CDN.acme.test/mail/b.png", Asset("media", "b.png")),
        ("https://cdn.acme.test:443/mail/b.png", Asset("media", "b.png")),
        ("//cdn.acme.test/mail/b.png", Asset("media", "b.png")),
        ("https://cdn.acme.test/mail/b.png?w=300", Asset("media", "b.png?w=300")),
        ("https://cdn.acme.test/mailing/b.png", None),
        ("https://cdn.acme.test/mail", None),
        ("https://cdn.acme.test/mail/", None),
        ("https://cdn.acme.test/mail/../secret", None),
        ("https://cdn.acme.test/mail/%2e%2e/secret", None),
        ("https://cdn.acme.test.evil.test/mail/b.png", None),
        ("https://cdn.acme.test:8443/mail/b.png", None),
        ("https://acme.test/mail/b.png", None),
        ("cid:logo", None),
    ],
)
def test_an_image_is_an_asset_when_it_lies_under_an_origin(url: str, asset: Asset | None) -> None:
    (link,) = rewrite(mail(f'<img src="{url}">')).report.links
    assert links.ours(RING, link.new) == asset
    assert (link.verdict == "rewritten") == (asset is not None)


def test_asset_links_end_in_a_name_that_needs_no_escaping_and_are_the_same_for_all() -> None:
    body = mail('<img src="https://cdn.acme.test/mail/a/Hello%20W%C3%B6rld%22.png?x=1">')
    one = brandproxy.rewrite(body, TENANT, References("a", "b", "c"), BASE, NOW).report.rewritten[0].new
    two = brandproxy.rewrite(body, TENANT, References("d", "e", "f"), BASE, NOW + 1).report.rewritten[0].new
    assert one == two
    assert one.endswith("/Hello-W-rld-.png")


def test_a_fragment_of_an_asset_stays_on_the_link() -> None:
    (link,) = rewrite(mail('<img src="https://cdn.acme.test/mail/i.svg#home">')).report.links
    assert link.new.endswith("/i.svg#home")


def test_assets_can_be_turned_off() -> None:
    result = rewrite(mail('<img src="https://cdn.acme.test/mail/a.png">'), with_policy(assets=False))
    assert verdicts(result) == [("https://cdn.acme.test/mail/a.png", "assets off")]


def test_an_origin_without_a_public_prefix_has_no_assets() -> None:
    bare = replace(TENANT, origins=(Origin("media", "s3://bucket/"),))
    assert policy.asset(Policy(), bare.origins, "https://cdn.acme.test/mail/a.png") == "not an origin"


# --- headers ------------------------------------------------------------------------------------------------

POST = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"


def test_list_unsubscribe_goes_through_our_host_and_its_folding_stays() -> None:
    head = f"List-Unsubscribe: <mailto:u@acme.test>,\r\n\t<https://acme.test/u?id=1>\r\n{POST}"
    result = rewrite(mail("x", "text/plain", head=head))
    (link,) = result.report.rewritten
    assert links.ours(RING, link.new) == Unsubscribe(
        "https://acme.test/u?id=1", "", "spring", "m-17", "r-4711", NOW
    )
    assert f"List-Unsubscribe: <mailto:u@acme.test>,\r\n\t<{link.new}>\r\n{POST}".encode() in result.message


def test_a_url_folded_inside_its_brackets_is_one_url() -> None:
    head = "List-Unsubscribe: <https://acme.test/\r\n u?id=1>\r\n"
    assert rewrite(mail("x", "text/plain", head=head)).report.rewritten[0].url == "https://acme.test/u?id=1"


def test_one_click_is_not_moved_to_plain_http() -> None:
    head = f"List-Unsubscribe: <https://acme.test/u>\r\n{POST}"
    result = rewrite(mail("x", "text/plain", head=head), base="http://links.acme.test")
    assert verdicts(result) == [("https://acme.test/u", "one-click needs https")]


def test_list_unsubscribe_is_left_when_the_tenant_says_so() -> None:
    head = f"List-Unsubscribe: <https://acme.test/u>\r\n{POST}"
    result = rewrite(mail("x", "text/plain", head=head), with_policy(unsubscribe=False))
    assert verdicts(result) == [("https://acme.test/u", "unsubscribe off")]


SIGNED = "DKIM-Signature: v=1; a=rsa-sha256;\r\n b=abc\r\nARC-Seal: i=1\r\nSubject: s\r\n"


def test_signed_mail_is_skipped_with_its_reason() -> None:
    message = mail(f'<a href="{URL}">x</a>', head=SIGNED)
    result = rewrite(message)
    assert result.message == message
    assert verdicts(result) == [(URL, "already signed")]


def test_broken_signatures_are_removed_when_the_tenant_says_so() -> None:
    message = mail(f'<a href="{URL}">x</a>', head=SIGNED)
    result = rewrite(message, with_policy(signed="strip"))
    assert b"DKIM" not in result.message
    assert b"ARC" not in result.message
    assert b"Subject: s\r\n" in result.message
    unchanged = mail("no link", head=SIGNED)
    assert rewrite(unchanged, with_policy(signed="strip")).message == unchanged


# --- the pixel ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_the_open_pixel_stands_before_the_end_of_the_body_once(encoding: str) -> None:
    message = multipart(
        "alternative", part("x", "text/plain"), part("<body><p>x</p></body></html>", encoding=encoding)
    )
    result = rewrite(message, with_policy(opens=True))
    assert result.report.pixel
    body = brandproxy.core.encoding.read(result.message, brandproxy.core.mime.parse(result.message).leaves[1]).text
    token = body.partition("/o/")[2].partition(".gif")[0]
    assert RING.open("o", token) == Open("spring", "m-17", "r-4711", NOW)
    assert body.startswith("<body><p>x</p><img ")
    assert body.endswith("></body></html>")


def test_only_one_pixel_and_none_where_nobody_reads() -> None:
    both = multipart("mixed", part("<p>1</p>"), part("<p>2</p>"))
    assert rewrite(both, with_policy(opens=True)).message.count(b"/o/") == 1
    for message in (
        mail("x", "text/plain"),
        mail(""),
        multipart("signed", part("<p>x</p>")),
        mail("<p>", "text/x-amp-html"),
    ):
        assert rewrite(message, with_policy(opens=True)).message == message


# --- the report ---------------------------------------------------------------------------------------------


def test_the_report_says_why_parts_were_left_alone() -> None:
    message = multipart(
        "mixed",
        part(f"<a href='{URL}'>"),
        part(b"", "image/png", "base64"),
        multipart("signed", part(URL, "text/plain"), boundary="s"),
    )
    result = rewrite(message)
    assert [part.reason for part in result.report.parts] == ["", "not text", "signed part"]
    assert verdicts(result) == [(URL, "rewritten"), (URL, "signed part")]


def test_crossing_gmails_limit_is_noted() -> None:
    result = rewrite(mail(f"<a href='{URL}'>x</a>" + "x" * 104_400, encoding="base64"))
    assert result.report.notes
    assert "Gmail" in result.report.notes[0]


def test_a_report_survives_json() -> None:
    import json

    message = multipart("alternative", part(f"ü {URL}", "text/plain", "base64"), part(f"<a href='{URL}'>\xe4</a>"))
    report = rewrite(message, with_policy(opens=True)).report
    assert brandproxy.Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    for broken in ({}, {"version": 2}, {**report.to_dict(), "splices": [{}]}, {**report.to_dict(), "parts": 5}):
        with pytest.raises(BadInput):
            brandproxy.Report.from_dict(broken)


def test_splices_are_no_larger_than_what_they_change() -> None:
    message = multipart(
        "alternative",
        part(f"{URL} and more", "text/plain", "quoted-printable"),
        part(f'<a href="{URL}">x</a><img src="https://cdn.acme.test/mail/a.png">'),
    )
    for splice in rewrite(message).report.splices:
        assert splice.before.replace(b"=3D", b"=") in (URL.encode(), b"https://cdn.acme.test/mail/a.png")


def test_a_foreign_report_does_not_restore() -> None:
    one = rewrite(mail(f'<a href="{URL}">x</a>'))
    two = rewrite(mail(f'<a href="{URL}">x</a>', encoding="base64"))
    for message in (two.message, b"", one.message[5:]):
        with pytest.raises(BadInput):
            brandproxy.unrewrite(message, one.report)


# --- glob ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [("*", "", True), ("a*c", "abc", True), ("a*c", "ac", True), ("a*b*c", "a-c", False), ("a*a", "a", False),
     ("*b*", "abc", True), ("a", "a", True), ("a", "b", False), ("*.acme.test", "acme.test", False)],
)  # fmt: skip
def test_only_the_star_is_special_in_patterns(pattern: str, text: str, matches: bool) -> None:
    assert policy.glob(pattern, text) is matches
