"""Destinations: what may be signed and followed, and that Location says exactly the same."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core import urls

GOOD = [
    "https://acme.com/",
    "HTTP://acme.com",
    "https://acme.com/people/@ines?a=1&b=%20&c=+#frag?x",
    "https://acme.com:8443/a;b=c/d(e)!*'~",
    "https://xn--bcher-kva.example/%E2%82%AC",
    "https://bücher.example/straße?ö=ä#ü",
    "https://[2001:db8::1]:443/",
    "https://a_b.example/under_score",
    "https://☃.net/",
    "http://acme.com/path with blank",
    "https://acme.com/?q=back\\slash",
]

BAD = {
    "javascript:alert(1)": "not http(s)",
    "data:text/html,x": "not http(s)",
    "//acme.com/": "not http(s)",
    "": "not http(s)",
    "https://acme.com/\r\nSet-Cookie: a=b": "control character",
    "https://acme.com/\x00": "control character",
    "https://acme.com/\u2028": "control character",
    "https://acme.com\\@evil.example/": "backslash",
    "https:\\\\evil.example/": "backslash",
    "https://acme.com/a\\b": "backslash",
    "https://user@acme.com/": "user-info",
    "https://user:secret@acme.com/": "user-info",
    "https:///acme.com/": "bad host",
    "https://": "bad host",
    "https://a b/": "bad host",
    "https://acme..com/": "bad host",
    "https://acme.com:99999/": "bad host",
    "https://ac%6de.com/": "bad host",
    "https://acme.com/" + "a" * 4096: "too long",
    "https://acme.com/" + "ü" * 2100: "too long",
}


@pytest.mark.parametrize("url", GOOD)
def test_an_ordinary_web_address_is_let_through(url: str) -> None:
    assert urls.refusal(url) is None


@pytest.mark.parametrize(("url", "reason"), BAD.items(), ids=[repr(url[:30]) for url in BAD])
def test_a_dangerous_address_is_refused_with_its_reason(url: str, reason: str) -> None:
    assert urls.refusal(url) == reason
    with pytest.raises(ValueError, match=re.escape(reason)):
        urls.location(url)


@pytest.mark.parametrize("url", [url for url in GOOD if url.isascii() and " " not in url])
def test_an_ascii_address_is_sent_byte_for_byte(url: str) -> None:
    assert urls.location(url) == url


def test_what_is_not_ascii_is_percent_encoded_and_the_host_becomes_a_labels() -> None:
    found = urls.location("https://bücher.example:81/straße a?ö=ä&x=%20#ü")
    assert found == "https://xn--bcher-kva.example:81/stra%C3%9Fe%20a?%C3%B6=%C3%A4&x=%20#%C3%BC"


@given(st.text(max_size=60))
def test_no_text_crashes_and_no_location_can_split_a_header(tail: str) -> None:
    url = "https://acme.com/" + tail
    if urls.refusal(url) is None:
        sent = urls.location(url)
        assert sent.isascii()
        assert not re.search(r"[\x00-\x20\x7f]", sent)
        assert unquote(sent) == unquote(url)
        assert urlsplit(sent).hostname == "acme.com"


@given(st.text(max_size=40))
def test_the_host_that_was_checked_is_the_host_that_is_sent(authority: str) -> None:
    url = f"https://{authority}/x"
    if urls.refusal(url) is None:
        assert urls.host_of(url) == urls.host_of(urls.location(url)) != ""
