"""html5lib as the judge of scan(): what a browser with scripting off would follow, and what a splice changed.

`judge(text)` splices a stand-in for every URL found and compares the trees. It returns complaints:
"changed …" (the trees differ in more than URLs), "missed …" (a URL in the tree that was not found) and
"ignored …" (a URL was found in a tag that the tree does not have).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Comment, Element

import html5lib

from brandproxy.core import charrefs
from brandproxy.core.html import Scan, scan

HTML = "{http://www.w3.org/1999/xhtml}"
URLS = {
    "a": ("href",), "area": ("href",), "img": ("src",), "video": ("src", "poster"), "audio": ("src",),
    "source": ("src",), "amp-img": ("src",),
}  # fmt: skip
STAND_IN = re.compile(r"https://l\.example/c/(\d+)\.")

# What random markup is made of: tags whose rules are hard, with attributes; other pieces; bare characters.
LINK = '<a href="http://e.test/1?a=1&amp;b=2">L</a>'
NAMES = (
    *("svg", "math", "select", "option", "optgroup", "frameset", "plaintext", "table", "tr", "td", "th", "tbody"),
    *("thead", "caption", "colgroup", "col", "p", "div", "span", "b", "i", "a", "nobr", "font", "li", "ul", "dd"),
    *(
        "dt",
        "button",
        "h1",
        "h2",
        "form",
        "input",
        "textarea",
        "style",
        "script",
        "title",
        "foreignObject",
        "desc",
    ),
    *("mi", "mo", "annotation-xml", "mglyph", "ruby", "rt", "applet", "object", "iframe", "noframes", "noscript"),
    *("template", "pre", "br", "hr", "img", "body", "html", "head", "x"),
)
ATTRIBUTES = [
    "",
    "",
    "",
    "/",
    " color=x",
    " type=hidden",
    " encoding=text/html",
    " href=//e.test/h",
    " src=//e.test/s",
]
PIECES = [
    "x",
    " ",
    "\n",
    "&amp;",
    "\0",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<!x>",
    "<?x>",
    "</>",
    LINK,
    "<a href=/a>",
]
CHARACTERS = [
    *"<>/=\"' \n\r\t\f\0!-?aA&#;x\x01\x80é", "href", "HREF", "style", "script", "title", "img", "src", "plaintext",
    "http://e.test/1", "//e.test/2", "&amp;", "&amp", "&copy", "&copy=", "&#47;", "&#x2f", "<!--", "-->", "--!>",
    '<a href="http://e.test/&amp;x">', "</a>", "<img src=", "</", "<script>", "</script>", "<style>", "</style",
    "<title>", "</title>", "<!", "<?", "[CDATA[", "]]>", "doctype", "data:", "<base href=//b.test/>",
    " href=//e.test/3",
]  # fmt: skip


def splice(text: str, result: Scan) -> str:
    parts, at = [], 0
    for number, found in enumerate(result.found):
        parts += text[at : found.start], f"https://l.example/c/{number}."
        at = found.end
    return "".join([*parts, text[at:]])


def tree(text: str) -> Element:
    """html5lib's tree with all comments; noscript is markup in it."""
    parsed = html5lib.HTMLParser(html5lib.getTreeBuilder("etree", fullTree=True)).parse(text, scripting=False)
    assert isinstance(parsed, Element)
    return parsed


def followed(root: Element) -> Iterator[str]:
    """Values of the attributes that a client follows or loads, whole-value ones only."""
    for element in root.iter():
        if not isinstance(element.tag, str):
            continue
        name = element.tag.removeprefix(HTML)
        for attribute in (*URLS.get(name, ()), *(() if name.startswith("{") else ("background",))):
            value = element.get(attribute, "").strip("".join(map(chr, range(0x21))))
            if value and not value.startswith("#") and value[:5].lower() != "data:":
                yield value
        if name == "{http://www.w3.org/2000/svg}a":
            yield from filter(None, (element.get("href"), element.get("{http://www.w3.org/1999/xlink}href")))


def judge(text: str) -> list[str]:
    result = scan(text)
    spliced = splice(text, result)
    before, after = list(tree(text).iter()), list(tree(spliced).iter())

    def same(old: str | None, new: str | None) -> bool:
        if old == new:
            return True
        if old is None or new is None:
            return False
        spans = [text[found.start : found.end] for found in result.found]
        raw = STAND_IN.sub(lambda match: normal(spans[int(match[1])]), new)
        decoded = STAND_IN.sub(lambda match: normal(charrefs.decode(spans[int(match[1])])), new)
        return old in (raw, decoded)

    complaints = [f"changed {len(before)} to {len(after)} nodes"] if len(before) != len(after) else []
    for one, two in zip(before, after, strict=False):
        if (
            one.tag != two.tag or not same(one.text, two.text) or not same(one.tail, two.tail)
            or one.keys() != two.keys() or not all(same(one.get(key), two.get(key)) for key, _ in one.items())
        ):  # fmt: skip
            complaints.append(
                f"changed {one.tag} {one.attrib} {one.text!r} {one.tail!r} -> {two.attrib} {two.text!r}"
            )
    complaints += [f"missed {value}" for value in followed(tree(spliced)) if not STAND_IN.fullmatch(value)]
    seen = {number for node in after for text in texts(node) for number in STAND_IN.findall(text)}
    for number, found in enumerate(result.found):
        if str(number) not in seen:
            complaints.append(f"ignored {found.place} {found.url}")
    return complaints


def texts(node: Element) -> list[str]:
    values = [value for key, value in node.items()]
    if node.tag is Comment or node.tag == HTML + "style":
        values.append(node.text or "")
    return values


def normal(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def html5lib_cases(folder: Path) -> Iterator[str]:
    """Every input of the html5lib-tests below `folder`."""
    for path in sorted(folder.rglob("*.dat")):
        for block in re.split(r"(?:^|\n)#data\n", path.read_bytes().decode("utf-8", "replace"))[1:]:
            yield block.split("\n#errors", 1)[0]
    for path in sorted(folder.rglob("*.test")):
        for test in next(iter(json.loads(path.read_text("utf-8")).values())):
            text = test["input"]
            if test.get("doubleEscaped"):
                text = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), text)
            yield re.sub("[\ud800-\udfff]", "\ufffd", text)
