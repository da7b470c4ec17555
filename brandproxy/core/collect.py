"""What one start tag or style sheet holds: the URLs that a client follows or loads, and the opt-out marks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from brandproxy.core import charrefs, css, srcset
from brandproxy.core.places import (
    SVG_ATTRIBUTES,
    URL_ATTRIBUTES,
    VML,
    loads_asset,
    mark,
    mark_span,
    refresh_span,
    resolve,
    trim,
)
from brandproxy.core.tokenizer import MARKS

Span = tuple[int, int, int, int]  # of an attribute: value start and end, attribute start and end
Attributes = dict[str, Span]
Cover = tuple[str, bool]  # off, private: what marks say about an element

_Item = tuple[int, int, str, str, str, Cover, tuple[int, int]]  # Found's fields, the URL not yet resolved
_start = itemgetter(0)
_OPEN_REFERENCE = re.compile(r"&[A-Za-z][A-Za-z0-9]*+")


class Found(NamedTuple):
    """One URL. `start:end` is the span that holds it, to be replaced as a whole."""

    start: int
    end: int
    url: str  # what a client would follow: references and escapes decoded, trimmed, resolved against <base>
    place: str  # stable words: "a href", "img srcset", "css url()", "style attr url()", "@import", …
    role: str  # "link" | "asset"
    off: str  # the mark that opts it out, or ""
    private: bool  # data-brandproxy="private"
    content: tuple[int, int]  # what the link encloses, (0, 0) when it encloses nothing


class Collector:
    """Gathers from one text. `links` are the links whose content has not ended: element → (index, start)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[_Item] = []
        self.markers: list[tuple[int, int]] = []
        self.base: str | None = None
        self.links: dict[str, tuple[int, int]] = {}
        self.post_form = False

    def results(self) -> tuple[Found, ...]:
        """All that was found, in order, resolved against the first base."""
        base = resolve(self.base or "", "")
        if not base[:8].lower().startswith(("http://", "https://")):
            base = ""
        self.found.sort(key=_start)
        return tuple(
            [  # a list first: faster than a generator
                Found(start, end, resolve(url, base), place, role, off, private, content)
                for start, end, url, place, role, (off, private), content in self.found
            ]
        )

    # -- marks -----------------------------------------------------------------------------------------

    def marks(self, attributes: Attributes, again: Sequence[Span]) -> Cover:
        """What the marks among the attributes say; they are noted for deletion, those said `again` with them."""
        off, private, spans = "", False, list(again)
        for name in attributes.keys() & set(MARKS):
            said = mark(name, self.value(attributes[name]))
            if not said:
                continue
            private = private or said == "private"
            off = off or ("" if said == "private" else said)
            spans.append(attributes[name])
        if off or private:
            found = (mark_span(self.text, *span[2:]) for span in spans)
            self.markers += [span for span in found if span[1]]
        return off, private

    # -- elements --------------------------------------------------------------------------------------

    def element(self, name: str, ns: str, attributes: Attributes, end: int, cover: Cover) -> None:
        """Note what the start tag of `name`, which ends at `end`, holds."""
        urls = VML if name.startswith("v:") else (SVG_ATTRIBUTES if ns else URL_ATTRIBUTES).get(name, {})
        for attribute, span in attributes.items():
            role = urls.get(attribute, "")
            if role and self.loads(name, attributes):
                self.attribute(name, attribute, role, span, end, cover)
            elif attribute == "background" and not ns:
                self.add(span[0], span[1], self.value(span), f"{name} background", "asset", cover)
            elif attribute == "style":
                self.style_attribute(span, cover)
        if name == "meta" and "content" in attributes and "http-equiv" in attributes:
            self.refresh(attributes, cover)
        elif name in ("form", "button", "input"):
            self.form(name, attributes, cover)

    def loads(self, name: str, attributes: Attributes) -> bool:
        if name not in ("input", "link"):
            return True
        return loads_asset(name, {key: self.value(attributes[key]) for key in attributes.keys() & {"type", "rel"}})

    def attribute(self, name: str, attribute: str, role: str, span: Span, end: int, cover: Cover) -> None:
        if attribute == "srcset":
            value, offsets = charrefs.decode_with_offsets(self.text[span[0] : span[1]])
            for start, stop in srcset.urls(value):
                self.part(span[0], offsets, start, stop, value[start:stop], f"{name} srcset", role, cover)
            return
        added = self.add(span[0], span[1], self.value(span), f"{name} {attribute}", role, cover)
        if added and role == "link" and name != "area":
            self.links[name] = len(self.found) - 1, end

    def form(self, name: str, attributes: Attributes, cover: Cover) -> None:
        """A GET form's address is followed with its fields as the query (HTML §4.10.22.3)."""
        attribute, method = ("action", "method") if name == "form" else ("formaction", "formmethod")
        posts = self.post_form and name != "form"
        if method in attributes:
            posts = self.value(attributes[method]).strip().lower() in ("post", "dialog")
        if name == "form":
            self.post_form = posts
        if attribute in attributes and not posts:
            span = attributes[attribute]
            self.add(span[0], span[1], self.value(span), f"{name} {attribute}", "link", cover)

    def refresh(self, attributes: Attributes, cover: Cover) -> None:
        if self.value(attributes["http-equiv"]).lower() == "refresh":
            span = attributes["content"]
            value, offsets = charrefs.decode_with_offsets(self.text[span[0] : span[1]])
            start, stop = refresh_span(value)
            self.part(span[0], offsets, start, stop, value[start:stop], "meta refresh", "link", cover)

    # -- style -----------------------------------------------------------------------------------------

    def style_attribute(self, span: Span, cover: Cover) -> None:
        value, offsets = charrefs.decode_with_offsets(self.text[span[0] : span[1]])
        for start, stop, url, place in css.urls(value):
            self.part(span[0], offsets, start, stop, url, f"style attr {place}", "asset", cover)

    def style_sheet(self, start: int, end: int, cover: Cover) -> None:
        for at, stop, url, place in css.urls(self.text[start:end]):
            words = place if place == "@import" else f"css {place}"
            self.add(start + at, start + stop, url, words, "asset", cover)

    # -- URLs ------------------------------------------------------------------------------------------

    def value(self, span: Span) -> str:
        return charrefs.decode(self.text[span[0] : span[1]])

    def part(
        self,
        base: int,
        offsets: list[int] | None,
        start: int,
        stop: int,
        url: str,
        place: str,
        role: str,
        cover: Cover,
    ) -> None:
        """A URL that is a part of an attribute's decoded value."""
        if offsets is not None:
            before, start, stop = offsets[start - 1] if start else 0, offsets[start], offsets[stop]
            if _OPEN_REFERENCE.fullmatch(self.text, base + before, base + start):
                return  # "&quot//e.com" reads as a quote, "&quothttps:" would not
        self.add(base + start, base + stop, url, place, role, cover)

    def add(
        self,
        start: int,
        end: int,
        url: str,
        place: str,
        role: str,
        cover: Cover,
        content: tuple[int, int] = (0, 0),
    ) -> bool:
        url = trim(url)
        if not url or url[0] == "#" or url[:5].lower() == "data:":
            return False
        if "+" in url[4:6] and url[:14].lower().startswith(("http+notrack:", "https+notrack:")):
            at = self.text.find("+", start, end)
            if self.text[at : at + 8].lower() == "+notrack":
                self.markers.append((at, at + 8))
                url, cover = url.partition("+")[0] + ":" + url.partition(":")[2], ("http+notrack", cover[1])
        self.found.append((start, end, url, place, role, cover, content))
        return True

    def set_base(self, attributes: Attributes) -> None:
        """The first `<base href>` counts (HTML §2.4.3), whatever it says."""
        if self.base is None and "href" in attributes:
            self.base = trim(self.value(attributes["href"]))

    def end_link(self, name: str, at: int) -> None:
        """The content of the open link `name`, if any, ends at `at`."""
        open_link = self.links.pop(name, None)
        if open_link is not None:
            index, start = open_link
            self.found[index] = (*self.found[index][:6], (start, at))
