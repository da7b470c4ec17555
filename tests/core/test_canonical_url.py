"""The canonical form of a URL, and that what has one is the same destination to every reader."""

from __future__ import annotations

import random
import re
from urllib.parse import urlsplit

import httpx
import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core import policy, urls
from brandproxy.core.canonical_url import canonical
from brandproxy.core.names import host_matches
from brandproxy.model import Origin, Policy
from tests import whatwg

FORMS = {
    "HTTPS://Shop.Example": "https://shop.example/",
    "https://shop.example?": "https://shop.example/",
    "https://shop.example/#top": "https://shop.example/",
    "https://shop.example.:443/a": "https://shop.example/a",
    "http://shop.example:0080/a": "http://shop.example/a",
    "http://shop.example:443/a": "http://shop.example:443/a",
    "https://shop.example:/a": "https://shop.example/a",
    "https://shop.example/%70%61th/./x/../%2e%2E/b": "https://shop.example/b",
    "https://shop.example/..": "https://shop.example/",
    "https://shop.example/a//../b/": "https://shop.example/a/b/",
    "https://shop.example/a%2fb%3f%c3%a4": "https://shop.example/a%2Fb%3F%C3%A4",
    "https://shop.example/ä b?q=ä": "https://shop.example/%C3%A4%20b?q=%C3%A4",
    "https://shop.example/a?q='|%7e": "https://shop.example/a?q=%27%7C~",
    "https://shop.example/a%zz%": "https://shop.example/a%zz%",
    "https://shop.example/%2570": "https://shop.example/%2570",
    "https://B\u00dcCHER\u3002ex\u00adample/": "https://xn--bcher-kva.example/",
    "https://bu\u0308cher.example/": "https://xn--bcher-kva.example/",
    "https://XN--BCHER-KVA.example/": "https://xn--bcher-kva.example/",
    "https://ｍalware.example/": "https://malware.example/",
    "https://stra\u00dfe.example/": "https://xn--strae-oqa.example/",
    "http://[2001:DB8:0:0::1]:80/": "http://[2001:db8::1]/",
    "http://[::ffff:192.0.2.1]/": "http://[::ffff:c000:201]/",
    "http://192.0.2.1/": "http://192.0.2.1/",
}

NOT_ONE_DESTINATION = [
    "http://0x7f.1/", "http://2130706433/", "http://0177.0.0.1/", "http://127.1/", "http://127.0.0.1./",
    "http://1.2.3.256/", "http://1.2.3.4.5/", "http://a.0x/", "http://a.example.0x10/", "http://a.09/",
    "http://１２７.0.0.1/", "http://①.2.3.4/", "http://0xC0.0x00.0x02.0x01/",
    "http://[:]/", "http://[::1/", "http://[v1.x]/", "http://[::1%25eth0]/", "http://[1::2::3]/", "http://[12345::]/",
    "http://[::1]x/", "http://::1/", "http://[::ffff:192.0.2.01]/", "http://[]/", "http://[::1]]/",
    "http://a%2eexample/", "http://%61.example/", "http://a.example%00/", "http://a.example％2f.b.example/",
    "http://a.example／b.example/", "http://a.example＠b.example/", "http://a.example？b.example/",
    "http://a.example＃b.example/", "http://a.example：80/", "http://a.example\u2100b.example/",
    "http://a.example＼b.example/", "http://a.example\u2047b.example/",
    "http://a.example\\@b.example/", "http://user@b.example/", "http://user:pass@b.example/", "http://@b.example/",
    "http://a.example\t/", "http://a.exa\nmple/", " http://a.example/", "http://a.ex ample/", "http:a.example/",
    "http:/a.example/", "http:///a.example/", "http://a..example/", "http://.a.example/", "http://a.example../",
    "http://a\u00ad.\u00ad.example/", "http://./", "http://xn--/", "http://xn--a.example/", "http://xn--bcher-.example/",
    "http://xn--example-.example/", "http://xn--zn7c.example/", "http://xn--a-0fa.xn--ls8h=.example/",
    "http://xn--\u00fc.example/", "http://xn--abc.example/", "http://xn--tda4f4a.example/",
    "http://a\u200db.example/", "http://-a.example/", "http://a-.example/", "http://" + "a" * 64 + ".example/",
    "http://a.example:99999/", "http://a.example:８０/", "http://a.example:-1/", "http://a.example:80:80/",
]  # fmt: skip


@pytest.mark.parametrize(("url", "form"), FORMS.items(), ids=ascii)
def test_spellings_of_one_url_have_one_form(url: str, form: str) -> None:
    assert str(canonical(url)) == form
    assert str(canonical(urls.location(url))) == form


@pytest.mark.parametrize("url", NOT_ONE_DESTINATION, ids=ascii)
def test_what_readers_read_differently_is_refused(url: str) -> None:
    assert urls.refusal(url) is not None
    assert canonical(url) is None


@pytest.mark.parametrize(
    "url", ["https://a_b.example/", "https://_dmarc.a--b.example/", "https://☃.net/", "https://1.example/"]
)
def test_names_that_browsers_follow_are_let_through(url: str) -> None:
    assert urls.refusal(url) is None


@given(st.text(max_size=30), st.text(max_size=40))
def test_the_form_is_its_own_form_and_the_locations(authority: str, rest: str) -> None:
    for url in (f"https://{authority}/{rest}", f"http://a.example/{rest}"):
        form = canonical(url)
        if form is not None:
            assert canonical(str(form)) == form == canonical(urls.location(url))
            assert re.fullmatch(r"[!-~]+", str(form))


# --- other readers ------------------------------------------------------------------------------------------

PIECES = [
    "a", "A", "z", "0", "1", "7", "127", "0x7f", "255", "256", ".", ".", ".", "-", "_", "--", "xn--", "XN--",
    "bcher-kva", "[", "]", ":", "::", "80", "443", "%", "%2e", "%41", "@", "\\", "/", "?", "#", "ü", "u\u0308",
    "ß", "ς", "\u00ad", "\u200b", "\u200d", "\u2060", "。", "．", "｡", "／", "？", "＃", "＠", "％", "：",
    "［", "℀", "⁇", "①", "１", "ｘ", "☃", "א", "ا", "٣", "٠", "典", "\u0301", "İ", "K", "ſ", "example", "com",
    " ", "\t", "\n", "|", "^", "{", "'", "~", "\ufe0f", "👨\u200d👩", "\u3164", "\u180e", "\U000e0041", "ⅷ",
    "n3h", "zn7c",
]  # fmt: skip


def spelled(draw: random.Random) -> str:
    scheme = draw.choice(["http://", "https://", "HTTP://"])
    authority = "".join(draw.choices(PIECES, k=draw.randint(1, 6)))
    ending = draw.choice(["", ".example", ".com", "", ".127.0.0.1"])
    return scheme + authority + ending + draw.choice(["", "/", "/x", "?q", "#f", ":80/", "/@b.example"])


def hosts(url: str) -> dict[str, str]:
    """What Python's usual clients take the host to be; one that refuses the URL is not listed."""
    found = {}
    readers = {
        "urllib": lambda: urlsplit(url).hostname,
        "httpx": lambda: httpx.URL(url).raw_host.decode(),
        "urllib3": lambda: urllib3.util.parse_url(url).host,
    }
    for name, reader in readers.items():
        try:
            found[name] = (reader() or "").strip("[]").rstrip(".").lower()
        except (ValueError, httpx.InvalidURL, urllib3.exceptions.LocationParseError):
            continue
    return found


def test_every_reader_goes_where_the_check_looked() -> None:
    """30,000 generated URLs: all that is let through leads browsers and clients to the same host and port."""
    draw = random.Random(16)
    passed = [url for url in {spelled(draw) for _ in range(30_000)} if urls.refusal(url) is None]
    assert len(passed) > 2_000
    sent = [urls.location(url) for url in passed]
    for url, location, mailed, followed in zip(passed, sent, whatwg.read(passed), whatwg.read(sent), strict=True):
        form = canonical(url)
        assert form is not None
        assert followed is not None, location
        assert (followed.scheme, followed.port) == (form.scheme, form.port), location
        assert followed.host == form.host, location
        assert mailed is None or mailed.host == form.host, ascii(url)  # of a newer Unicode than the browser's
        for name, host in hosts(location).items():
            assert host == form.host.strip("[]") or form.host.startswith("["), (name, location)


def of_character(char: str) -> list[str]:
    labels = [char, f"a{char}b", *(f"xn--{text.encode('punycode').decode()}" for text in (char, f"a{char}b"))]
    return [f"https://{label}.example/" for label in labels]


def test_no_character_in_a_host_leads_a_browser_elsewhere() -> None:
    """12,000 of all characters, as themselves and in A-labels."""
    points = [point for point in range(0x80, 0x110000) if not 0xD800 <= point < 0xE000]
    chars = [
        *map(chr, random.Random(16).sample(points, 12_000)),
        *map(chr, range(0x80, 0x600)),
        "\u1806",
        "\u1e9e",
    ]
    passed = [url for char in chars for url in of_character(char) if urls.refusal(url) is None]
    assert len(passed) > 5_000
    sent = [urls.location(url) for url in passed]
    for url, mailed, followed in zip(passed, whatwg.read(passed), whatwg.read(sent), strict=True):
        form = canonical(url)
        assert form is not None
        assert followed is not None, ascii(url)
        assert followed.host == form.host, ascii(url)
        assert mailed is None or mailed.host == form.host, ascii(url)


# --- where the form is used ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("*.bücher.example/konto/*", "https://login.BÜCHER.example:443/konto/1"),
        ("login.acme.example./a/*", "https://login.acme.example./a/b"),
        ("acme.example/account/*", "https://acme.example/x/../%61ccount/7"),
        ("acme.example/account/*", "https://acme.example/./account/%2E/7"),
        ("acme.example/straße", "https://acme.example/stra%c3%9fe#top"),
        ("https://acme.example:443/a?", "https://ａcme.example/a"),
        ("acme.example:8443", "https://acme.example:8443/"),
    ],
)
def test_a_tenants_pattern_holds_for_every_spelling(pattern: str, url: str) -> None:
    assert policy.judge(Policy(exclude=(pattern,)), url) == "excluded"


def test_a_pattern_holds_for_no_other_url() -> None:
    for url in (
        "https://acme.example/accounts",
        "https://acme.example/account/../b",
        "https://acme.example:8443/",
    ):
        assert policy.judge(Policy(exclude=("acme.example/account/*", "acme.example:443/x")), url) == ""


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("https://CDN.acme.example:443/%6dedia/a%20b.png", "a%20b.png"),
        ("https://cdn.acme.example./media/ä.png?v=/2", "ä.png?v=/2"),
        ("https://cdn.acme.example/media", ""),
        ("https://cdn.acme.example/media/", ""),
        ("https://cdn.acme.example/media/../secret.png", ""),
        ("https://cdn.acme.example/x/%2e%2e/media/a.png", ""),
        ("https://cdn.acme.example?/media/a.png", ""),
    ],
)
def test_an_asset_is_found_by_every_spelling_of_its_prefix_and_named_as_written(url: str, inside: str) -> None:
    origins = (Origin("media", "file:///srv/", ("https://cdn.acme.example/media/",)),)
    assert policy.asset(Policy(), origins, url) == (("media", inside, "") if inside else "not an origin")


def test_a_storage_host_is_among_those_listed_by_every_spelling() -> None:
    assert host_matches("Media.BÜCHER.example.", "*.bücher.example")
    assert not host_matches("media.example", "*.bücher.example, other.example")
    assert not host_matches("", "*")
