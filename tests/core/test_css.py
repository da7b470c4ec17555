"""The CSS reader beside Chromium's: random sheets, with a stand-in for every URL found, mean the same to it.

"The same" is the serialised rules with all URLs blanked; and after the splice no URL but stand-ins is left.
"""

from __future__ import annotations

import random
import re

from playwright.async_api import async_playwright

from brandproxy.core import css
from tests.conftest import need_program

PIECES = [
    "url(", ")", '"', "'", "\\", "\n", "/*", "*/", "@import ", "@namespace ", "image-set(",
    "-webkit-image-set(", ";", "{", "}", "a{b:c}", "a{background:", "a{background-image:", "(", " ",
    "http://e.test/1", "//e.test/2", "x.png", "\\72 ", "\\6c", "u\\72 l(", "uRL(", 'URL( "http://e.test/3" )',
    "url('x')", " 1x", ",", "!", "<!--", "-->", "#url(", "10url(", "_url(", "-url(", "url (", "@media x{",
    "@font-face{src:", "#", "é", '"url(x)"', "\\\n", '\\"', "url(a b)", "\t", "content:", '@charset "x";',
    "\f", "/", "*", "@import url(x.css);", '@import "y.css" screen;', "\\66 oo", "\x01", "\0", "\r\n",
    "\\26\r\n",
]  # fmt: skip
RULES = """sheets => sheets.map(pair => {
  const page = document.implementation.createHTMLDocument('');
  return pair.map(text => {
    const style = page.createElement('style');
    style.textContent = text;
    page.head.appendChild(style);
    const rules = style.sheet ? [...style.sheet.cssRules].map(rule => rule.cssText).join(' ') : 'none';
    style.remove();
    return rules;
  });
})"""
URL = re.compile(r'url\("((?:[^"\\]|\\.)*)"\)', re.DOTALL)


def splice(sheet: str) -> str:
    parts, at = [], 0
    for start, end, _, _ in css.urls(sheet):
        parts += sheet[at:start], "https://l.example/c/1"
        at = end
    return "".join([*parts, sheet[at:]])


async def test_chromium_reads_the_same_rules_before_and_after_a_splice() -> None:
    chance = random.Random(7)
    sheets = ["".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(3000)]
    sheets += ["a{background:" + sheet for sheet in sheets]
    async with async_playwright() as play:
        program = need_program("chromium", "chromium")
        browser = await play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page()
        seen = await page.evaluate(RULES, [[sheet, splice(sheet)] for sheet in sheets])
        await browser.close()
    found = 0
    for sheet, (before, after) in zip(sheets, seen, strict=True):
        assert URL.sub("URL", before) == URL.sub("URL", after), sheet
        urls = URL.findall(after) if "@namespace" not in after else []
        assert not {url for url in urls if not url.startswith(("https://l.example/", "#")) and url}, sheet
        found += len(urls)
    assert found > 150


def test_urls_are_unescaped_and_placed() -> None:
    sheet = r"""@import 'a\62 c.css' screen; @namespace url(no); p { background: url( x\) ) , image-set("i\
j" 1x) }"""
    assert [(url, place) for _, _, url, place in css.urls(sheet)] == [
        ("abc.css", "@import"), ("x)", "url()"), ("ij", "image-set()"),
    ]  # fmt: skip
