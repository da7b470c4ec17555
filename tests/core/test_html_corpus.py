"""Real mails: what scan() finds is what three other parsers find, and a splice leaves their trees alone."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from selectolax.lexbor import LexborHTMLParser

from brandproxy.core.html import scan
from tests.core.html_oracle import judge, splice

ATTRIBUTES = {"a": "href", "area": "href", "img": "src"}


@pytest.fixture(scope="module")
def mails(corpus: Path) -> dict[str, str]:
    files = sorted(corpus.rglob("*.html"))
    assert len(files) > 100
    return {str(path.relative_to(corpus)): path.read_text("utf-8", "replace") for path in files}


def test_html5lib_agrees_on_real_mails(mails: dict[str, str]) -> None:
    warnings.simplefilter("ignore")
    assert {name: bad for name, text in mails.items() if (bad := judge(text))} == {}


def test_lexbor_and_beautifulsoup_agree_on_real_mails(mails: dict[str, str]) -> None:
    """Every a, area and img of either parser holds a URL we replaced, and the text of the mail is the same."""
    replaced: Counter[str] = Counter()
    for name, text in mails.items():
        spliced = splice(text, scan(text))
        before, after = LexborHTMLParser(text), LexborHTMLParser(spliced)
        before.strip_tags(["style"])
        after.strip_tags(["style"])
        assert before.text() == after.text(), name
        soup = BeautifulSoup(spliced, "html.parser")
        for tag, attribute in ATTRIBUTES.items():
            values = [node.attributes.get(attribute) for node in after.css(tag)]
            values += [str(node.get(attribute) or "") for node in soup.find_all(tag)]
            for value in filter(None, values):
                ours = value.startswith("https://l.example/c/")
                assert ours or value.strip().startswith(("#", "data:")), (name, tag, value)
                replaced[tag] += ours
    assert replaced["a"] > 500
    assert replaced["img"] > 300
