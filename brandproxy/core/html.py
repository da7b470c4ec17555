"""Every URL in an HTML text that a mail client could follow or load, with its exact place.

`scan(text)` gives spans to splice; nothing is serialised. What it reports:

- links: `a`, `area` and VML `href`, `meta refresh`, `action`/`formaction` of GET forms, svg `a`
- assets: `src`, `srcset`, `background`, `poster`, style sheets and icons, `url()`, `@import`, `image-set()`
  in `<style>` and style attributes, VML `src`, svg `image`
- the same inside Outlook's conditional comments, whose content is read again as HTML

Every URL that is not empty, no pure fragment and no `data:` is given, `mailto:` and placeholders too: the
caller judges it and can say why it was left alone. A replacement made of `A-Za-z0-9-_./:%` needs no escaping
in any of these places.

How a text is read:
1. Fast: one pattern passes over text and over all tags that hold nothing of interest; the few others are
   looked at one by one. What is open does not matter, as in nearly every mail.
2. When a tag appears that makes it matter (svg, math, select, frameset, plaintext, an opt-out mark on anything
   but a link), from the start again with every tag shown to a `Tree`, which knows the open elements.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from brandproxy.core import charrefs
from brandproxy.core.collect import Attributes, Collector, Cover, Found, Span
from brandproxy.core.tokenizer import (
    CONDITION,
    EMPTY,
    END_TAG,
    HARD,
    MARKS,
    NAME,
    RAW,
    SKIP,
    SKIP_TEXT,
    STEP,
    STEPS,
    STYLE,
    TREE_ATTRIBUTES,
    cdata_end,
    declaration_end,
    is_quirky,
    raw_end,
)
from brandproxy.core.tree import Tree
from brandproxy.core.vocabulary import VOID

__all__ = ["FORMS", "Found", "Scan", "scan"]

FORMS = frozenset(("form action", "button formaction", "input formaction"))  # followed with fields as the query
_BLANK = "\t\n\f\r \0"
_UNMARKED: Cover = ("", False)


class Scan(NamedTuple):
    found: tuple[Found, ...]  # ordered by start, never overlapping
    markers: tuple[tuple[int, int], ...]  # spans to delete: opt-out marks with the blank before them
    pixel_at: int | None  # before </body>, else the end; None when an element there would not be seen


def scan(text: str) -> Scan:
    """All of the above, in time linear in `text`. Never raises."""
    try:
        return _Scanner(text, None).scan()
    except _TreeNeeded:
        return _Scanner(text, Tree(is_quirky(text))).scan()


class _TreeNeeded(Exception):
    pass


class _Scanner:
    def __init__(self, text: str, tree: Tree | None) -> None:
        self.text = text
        self.tree = tree
        self.out = Collector(text)
        self.in_comment = self.unclosed = False  # inside a conditional comment; one that has no end
        self.link_cover = _UNMARKED  # of the link that is open, when there is no tree
        self.pixel_at: int | None = None
        self.in_head: int | None = None  # how much was found before the body began

    def scan(self) -> Scan:
        end = len(self.text)
        complete = self.run(0, end)
        for name in tuple(self.out.links):
            self.out.end_link(name, end)
        at = end if self.pixel_at is None else self.pixel_at
        visible = complete and (self.tree is None or self.tree.takes_image)
        return Scan(self.out.results(), tuple(sorted(self.out.markers)), at if visible else None)

    def run(self, pos: int, end: int) -> bool:
        """Scan `text[pos:end]`; False when it ends inside a comment, a tag or raw text."""
        text, tree = self.text, self.tree
        skip = SKIP.match if tree is None else SKIP_TEXT.match
        while pos >= 0:
            begin, passed = pos, skip(text, pos, end)
            pos = passed.end()  # type: ignore[union-attr]
            if tree is not None and pos > begin:
                tree.text(not text[begin:pos].strip(_BLANK))
            if passed.lastindex:  # type: ignore[union-attr]
                self.plain(passed)  # type: ignore[arg-type]
            elif pos >= end:
                return True
            elif text.startswith("/", pos + 1):
                pos = self.end_tag(pos, end)
            elif text.startswith(("!", "?"), pos + 1):
                pos = self.declaration(pos, end)
            elif tree is None and (tag := STYLE.match(text, pos, end)):
                pos = self.style(tag.end(), end)
            else:
                pos = self.start_tag(pos, end)
        return False

    def declaration(self, pos: int, end: int) -> int:
        """A comment, doctype, `<![if …]>` or CDATA section; where to go on, or -1 at the end of the text."""
        if self.tree is not None and self.tree.foreign and self.text.startswith("<![CDATA[", pos):
            self.tree.text(False)
            return cdata_end(self.text, pos, end)
        if self.in_comment and self.unclosed and self.text.startswith("<!--", pos):
            close = -1  # the comment around it has no end: nor has this one, and looking again would cost
        else:
            close = declaration_end(self.text, pos, end)
        condition = CONDITION.match(self.text, pos, end if close < 0 else close)
        if condition is None:
            return close
        if close < 0:
            self.unclosed = True
            if self.in_comment:
                return condition.end()
        tail = 0 if close < 0 else 4 if self.text[close - 2] == "!" else 3  # "--!>" or "-->"
        self.comment(condition.end(), max((end if close < 0 else close) - tail, condition.end()))
        return close

    def comment(self, pos: int, end: int) -> None:
        """Read the content of a conditional comment as Outlook does: as HTML of its own."""
        out, tree = self.out, self.tree
        outer, out.links, link_cover = out.links, {}, self.link_cover
        if tree is not None:
            self.tree = Tree(quirks=True)
            self.tree.open_body()
            self.tree.stack[0].off = self.tree.stack[1].off = tree.stack[-1].off
            self.tree.stack[0].private = self.tree.stack[1].private = tree.stack[-1].private
        self.in_comment = True
        self.run(pos, end)
        for name in tuple(out.links):
            out.end_link(name, end)
        self.in_comment = self.unclosed = False
        self.tree, out.links, self.link_cover = tree, outer, link_cover

    def end_tag(self, pos: int, end: int) -> int:
        if self.tree is None and self.text.startswith("</a>", pos, end):  # the commonest by far
            self.out.end_link("a", pos)
            self.link_cover = _UNMARKED
            return pos + 4
        tag = END_TAG.match(self.text, pos, end)
        if tag is None:  # no end, or </> or a bogus comment
            close = -1 if NAME.match(self.text, pos, end) else self.text.find(">", pos + 2, end)
            return close + 1 if close >= 0 else -1
        name = tag[1].lower()
        self.out.end_link(name, pos)
        if name == "a":
            self.link_cover = _UNMARKED
        if name == "form":
            self.out.post_form = False
        elif not self.in_comment and (name == "body" or (name == "html" and self.pixel_at is None)):
            self.pixel_at = pos
        if self.tree is not None:
            self.tree.end(name)
        return tag.end()

    def plain(self, tag: re.Match[str]) -> None:
        """What `element` and `end_tag` do for a link or an image without marks when there is no tree."""
        out, group = self.out, tag.lastindex
        if group == 3:
            out.add(*tag.span(3), charrefs.decode(tag[3]), "img src", "asset", self.link_cover)
            return
        content = tag.span(2) if group == 2 else (0, 0)
        begin = content[0] or tag.end()
        if out.links:
            out.end_link("a", begin)
        self.link_cover = _UNMARKED
        added = out.add(*tag.span(1), charrefs.decode(tag[1]), "a href", "link", _UNMARKED, content)
        if added and group == 1:
            out.links["a"] = len(out.found) - 1, begin

    def style(self, pos: int, end: int) -> int:
        """What `element` does for a style element without marks when there is no tree."""
        close = raw_end(self.text, pos, end, "style")
        self.out.style_sheet(pos, end if close < 0 else close, self.link_cover)
        return close

    def start_tag(self, pos: int, end: int) -> int:
        tag = EMPTY.match(self.text, pos, end)
        if tag is not None:
            return self.element(tag[1], {}, tag.end(), end)
        head = NAME.match(self.text, pos, end)
        if head is None:
            return -1
        name = head[1].lower()
        following = STEPS.get(name, STEP).match
        attributes: Attributes = {}
        again: list[Span] = []  # marks that the tag says twice: the first counts, all go
        step = following(self.text, head.end(), end)
        while step and (group := step.lastindex):
            value = step.span(group) if group > 1 else (step.end(), step.end())
            key, span = step[1].lower(), (*value, step.start(1), step.end())
            if attributes.setdefault(key, span) is not span and key in MARKS:
                again.append(span)
            step = following(self.text, step.end(), end)
        return -1 if step is None else self.element(name, attributes, step.end(), end, again)

    def element(self, name: str, attributes: Attributes, pos: int, end: int, again: Sequence[Span] = ()) -> int:
        """A start tag that ends at `pos`; where to go on: after its raw text, if that is what follows."""
        out = self.out
        marked = attributes and not attributes.keys().isdisjoint(MARKS)
        cover = out.marks(attributes, again) if marked else _UNMARKED
        ns = ""
        if self.tree is not None:
            if not self.enter(self.tree, name, attributes, pos):
                return pos
            ns, cover = self.tree.ns, self.covered(self.tree, cover)
        else:
            cover = self.covered_by_link(name, cover)
        if name in out.links:
            out.end_link(name, pos)
        if attributes or name == "form":
            out.element(name, ns, attributes, pos, cover)
        if name == "base" and not self.in_comment and not ns:
            out.set_base(attributes)
        if ns or name not in RAW:
            return -1 if name == "plaintext" and not ns else pos
        close = raw_end(self.text, pos, end, name)
        if name == "style":
            out.style_sheet(pos, end if close < 0 else close, cover)
        return close

    def covered_by_link(self, name: str, own: Cover) -> Cover:
        """Without a tree: marks of the element and of the link around it; links hold no links, so none nest."""
        if name in HARD or (own != _UNMARKED and name != "a" and name not in VOID):
            raise _TreeNeeded
        if name == "a":
            self.link_cover = own
        return own[0] or self.link_cover[0], own[1] or self.link_cover[1]

    def enter(self, tree: Tree, name: str, attributes: Attributes, pos: int) -> bool:
        """Show the tree a start tag; False when it drops it."""
        values: Mapping[str, str] = {}
        if attributes:
            values = {key: self.out.value(attributes[key]) for key in attributes.keys() & TREE_ATTRIBUTES}
        closed = self.text[pos - 2] == "/" and all(
            span[1] != pos - 1 or span[0] == span[1] for span in attributes.values()
        )
        before = tree.mode
        kept = tree.start(name, values, closed)
        if self.in_comment:
            return kept
        if self.in_head is None and tree.mode != "head":
            self.in_head = len(self.out.found)
        if name == "frameset" and kept and not tree.ns and before != "frameset":  # it takes the place of the body
            del self.out.found[self.in_head :]
            self.out.links.clear()
        return kept

    @staticmethod
    def covered(tree: Tree, own: Cover) -> Cover:
        """What the marks of an element and of those around it say together."""
        node = tree.pushed or tree.stack[-1]
        if own == _UNMARKED:
            return node.off, node.private
        cover = own[0] or node.off, own[1] or node.private
        if tree.pushed is not None:
            node.off, node.private = cover
        return cover
