"""Every grammar that hides a URL in an attribute: srcset, meta refresh, base, conditional comments, forms, AMP."""

from __future__ import annotations

import pytest

from brandproxy.core.html import scan
from brandproxy.core.places import resolve

A, B = "http://e.com/a", "http://e.com/b"


def urls(text: str) -> list[str]:
    return [found.url for found in scan(text).found]


@pytest.mark.parametrize(
    ("srcset", "found"),
    [
        (f"{A} 1x, {B} 2x", [A, B]),
        (f"{A} 1x,{B} 2x", [A, B]),
        (f"\n {A}\t300w\r\n,\f{B}\n600w", [A, B]),
        (f",, {A},, {B}", [A, B]),
        (f"{A},{B} 1x", [f"{A},{B}"]),  # a comma without a blank is part of the URL (HTML §4.8.4.2.1)
        (f"{A} (x, y) 1x, {B}", [A, B]),
        (f"{A} (x, {B}", [A]),
        (f"{A} 100w 50h , {B},", [A, B]),
        (f"data:image/png;base64,AA 1x, {B} 2x", [B]),
        ("http://e.com/?x=1&amp;y=2 1x", ["http://e.com/?x=1&y=2"]),
        (" , ", []),
        ("", []),
    ],
)
def test_the_candidates_of_a_srcset_are_found_as_browsers_find_them(srcset: str, found: list[str]) -> None:
    assert urls(f'<img srcset="{srcset}">') == found
    assert urls(f"<picture><source srcset='{srcset}' media=x></picture>") == found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (f"0;url={A}", [A]),
        (f"5; URL = '{A}' x", [A]),
        (f"0,{A}", [A]),
        (f" .5 ; {A}", [A]),
        (f"0 {A}", [A]),
        (f"0;url=&quot;{A}", [A]),
        (f"0; uRl={A}", [A]),
        (f"url={A}", []),
        (f"x;url={A}", []),
        ("5", []),
        ("5;", []),
    ],
)
def test_a_refresh_is_followed_as_browsers_follow_it(content: str, found: list[str]) -> None:
    assert urls(f'<meta content="{content}" http-equiv=ReFresh>') == found
    assert urls(f'<meta content="{content}" name=refresh>') == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<base href=http://e.com/a/b?x#y><a href='?q'>", ["http://e.com/a/b?q"]),
        ("<base target=_blank><base href=http://e.com/><a href=y>", ["http://e.com/y"]),
        ("<a href=y><base href=' http://e.com/ '>", ["http://e.com/y"]),
        ("<base href=//e.com/><img src=y>", ["https://e.com/y"]),
        ("<base href=mailto:x><a href=y>", ["y"]),
        ("<base href=x><base href=http://no.com/><a href=y>", ["y"]),
        ("<svg><base href=http://no.com/></svg><a href=y>", ["y"]),
        ("<!--[if mso]><base href=http://no.com/><![endif]--><a href=y>", ["y"]),
        ("<base href=http://e.com/><a href='#x'><a href=''>", []),
        ("<base href=http://e.com/><p style='background:url(y)'>", ["http://e.com/y"]),
    ],
)
def test_the_first_base_decides_about_relative_urls(text: str, found: list[str]) -> None:
    assert urls(text) == found


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        # RFC 3986 §5.4
        ("g", "http://a/b/c/g"), ("./g", "http://a/b/c/g"), ("g/", "http://a/b/c/g/"), ("/g", "http://a/g"),
        ("?y", "http://a/b/c/d;p?y"), ("g?y", "http://a/b/c/g?y"), ("#s", "http://a/b/c/d;p?q#s"),
        ("g?y#s", "http://a/b/c/g?y#s"), (";x", "http://a/b/c/;x"), ("g;x?y#s", "http://a/b/c/g;x?y#s"),
        (".", "http://a/b/c/"), ("..", "http://a/b/"), ("../..", "http://a/"), ("../../../../g", "http://a/g"),
        ("/./g", "http://a/g"), ("g.", "http://a/b/c/g."), ("..g", "http://a/b/c/..g"),
        ("./g/.", "http://a/b/c/g/"), ("g;x=1/../y", "http://a/b/c/y"), ("g?y/../x", "http://a/b/c/g?y/../x"),
        ("g#s/../x", "http://a/b/c/g#s/../x"), ("//g/x", "http://g/x"), ("g:h", "g:h"),
        # and as browsers add
        ("x//y", "http://a/b/c/x//y"), ("..//y", "http://a/b//y"), ("%2E%2e/y", "http://a/b/y"),
        ("g;x=1/..;y", "http://a/b/c/g;x=1/..;y"), ("/", "http://a/"),
    ],
)  # fmt: skip
def test_references_resolve_as_in_a_browser(reference: str, url: str) -> None:
    assert resolve(reference, "http://a/b/c/d;p?q") == url
    assert resolve("x", "http://a") == resolve("x", "http://a/.") == "http://a/x"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"<!--[if mso]><!-- x --><a href={A}>x</a><![endif]-->", [A]),
        (f"<!--[if mso]><a href={A}></a><!--<![endif]--><a href={B}>", [A, B]),
        (f"<!--[if !mso]><!-- --><a href={A}></a><!--<![endif]-->", [A]),
        (f"<!--[if !mso]>--><a href={A}></a><!--<![endif]-->", [A]),
        (f"<!--[if (gte mso 9)|(IE)]><td background={A} style='background:url({B})'><![endif]-->", [A, B]),
        (f"<!--[if vml]><v:image src={A} href={B} /><![endif]-->", [A, B]),
        (f"<!--[if mso]><style>a{{b:url({A})}}</style><![endif]--><![if !mso]><img src={B}><![endif]>", [A, B]),
        (f"<!--[if mso]><a href={A}><img src={B}>", [A, B]),
        (f"<!--[if mso]><xml><o:a/></xml><![endif]--><a href={A}>", [A]),
        (f"<!-- if mso><a href={A}> -->", []),
    ],
)
def test_what_outlook_reads_is_found(text: str, found: list[str]) -> None:
    assert urls(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"<amp-img src={A} srcset='{B} 2x'></amp-img>", [A, B]),
        (f"<amp-carousel><amp-img src={A}></amp-img></amp-carousel><amp-anim src={B}></amp-anim>", [A, B]),
        ("<amp-list src=https://no.com/><form method=post action-xhr=https://no.com/>", []),
        ("<a href='http&colon;//e.com&sol;a'>", [A]),
        ("<a href='ht&Tab;tp://e.com/&NewLine;a'>", [A]),
        ("<a href='\x01 http://e.com/a\x1f'>", [A]),
        (f"<a\nhref\n=\n{A}\n>", [A]),
        (f"<a/href={A}>", [A]),
        (f'<a "href={A}>', []),
        (f"<a href=={A}>", [f"={A}"]),
        (f"<input type=image src={A} formaction={B}>", [A, B]),
        (f"<link rel='shortcut icon' href={A}><link rel=apple-touch-icon href={B}>", [A, B]),
        (
            "<blockquote cite=http://no.com/><img longdesc=http://no.com/><a ping=//no.com><input src=//no.com>",
            [],
        ),
        ("<iframe src=http://no.com/></iframe><object data=http://no.com/><embed src=http://no.com/>", []),
    ],
)
def test_attributes_are_read_as_browsers_read_them(text: str, found: list[str]) -> None:
    assert urls(text) == found
