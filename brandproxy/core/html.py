"""Every URL in an HTML text that a mail client could follow or load, with its exact place.

`scan(text)` gives spans to splice; nothing is serialised. What it reports:

- links: `a`, `area` and VML `href`, `meta refresh`, `action`/`formaction` of GET forms
- assets: `src`, `srcset`, `background`, `poster`, style sheets and icons, `url()`, `@import`, `image-set()`
  in `<style>` and style attributes, VML `src`, svg `image`
- the same inside Outlook's conditional comments, whose content is read again as HTML

Every URL that is not empty, no pure fragment and no `data:` is given, `mailto:` and placeholders too: the
caller judges it and can say why it was left alone. A replacement made of `A-Za-z0-9-_./:%` needs no escaping
in any of these places.
"""

from __future__ import annotations

from dataclasses import dataclass

from brandproxy.core import charrefs, css, srcset
from brandproxy.core.places import (
    URL_ATTRIBUTES,
    VML,
    VOID,
    loads_asset,
    mark,
    mark_span,
    refresh_span,
    resolve,
    trim,
)
from brandproxy.core.tokenizer import (
    CONDITION,
    MARKS,
    NAME,
    RAW,
    SKIP,
    SKIP_TEXT,
    STEP,
    declaration_end,
    raw_end,
)


@dataclass(frozen=True, slots=True)
class Found:
    """One URL. `start:end` is the span that holds it, to be replaced as a whole."""

    start: int
    end: int
    url: str  # what a client would follow: references and escapes decoded, trimmed, resolved against <base>
    place: str  # stable words: "a href", "img srcset", "css url()", "style attr url()", "@import", …
    role: str  # "link" | "asset"
    off: str  # the mark that opts it out, or ""
    private: bool  # data-brandproxy="private"
    content: tuple[int, int]  # what the link encloses, (0, 0) when it encloses nothing


@dataclass(frozen=True, slots=True)
class Scan:
    found: tuple[Found, ...]  # ordered by start, never overlapping
    markers: tuple[tuple[int, int], ...]  # spans to delete: opt-out marks with the blank before them
    pixel_at: int | None  # before </body>, else the end; None when an element there would not be seen


def scan(text: str) -> Scan:
    """All of the above, in time linear in `text`. Never raises."""
    scanner = _Scanner(text)
    safe = scanner.run(0, len(text))
    scanner.close_links(len(text))
    return scanner.result(safe)


class _Marked:
    """An open element whose mark covers what is in it."""

    __slots__ = ("depth", "name", "off", "private")

    def __init__(self, name: str, off: str, private: bool) -> None:
        self.name, self.off, self.private, self.depth = name, off, private, 1


_Attributes = dict[str, tuple[int, int, int, int]]  # name → value start and end, attribute start and end


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[Found] = []
        self.markers: list[tuple[int, int]] = []
        self.base: str | None = None
        self.body_end = self.html_end = -1
        self.links: dict[str, tuple[int, int]] = {}  # open link's element → (index in found, content start)
        self.marked: list[_Marked] = []
        self.in_comment = False
        self.post_form = False

    def result(self, safe: bool) -> Scan:
        base = resolve(self.base or "", "")
        if not base.lower().startswith(("http://", "https://")):
            base = ""
        found = tuple(
            Found(f.start, f.end, resolve(f.url, base), f.place, f.role, f.off, f.private, f.content)
            for f in sorted(self.found, key=lambda f: f.start)
        )
        at = self.body_end if self.body_end >= 0 else self.html_end if self.html_end >= 0 else len(self.text)
        return Scan(found, tuple(sorted(span for span in self.markers if span[1])), at if safe else None)

    def run(self, pos: int, end: int) -> bool:
        """Scan `text[pos:end]`; False when it ends inside a comment, a tag or raw text."""
        text = self.text
        while True:
            skip = SKIP_TEXT if self.marked else SKIP
            pos = skip.match(text, pos, end).end()  # type: ignore[union-attr]
            if pos >= end:
                return True
            following = text[pos + 1 : pos + 2]
            if following in ("!", "?"):
                pos = self.declaration(pos, end)
            elif following != "/":
                pos = self.start_tag(pos, end)
            else:
                pos = self.end_tag(pos, end)
            if pos < 0:
                return False

    def declaration(self, pos: int, end: int) -> int:
        """A comment, doctype or `<![if …]>`; where to go on, or -1 at the end of the text."""
        close = declaration_end(self.text, pos, end)
        condition = CONDITION.match(self.text, pos, end if close < 0 else close)
        if condition is None:
            return close
        if close < 0 and self.in_comment:
            return condition.end()
        stop = end if close < 0 else max(close - 3, condition.end())
        outer = self.in_comment, self.links
        self.in_comment, self.links = True, {}
        self.run(condition.end(), stop)
        self.close_links(stop)
        self.in_comment, self.links = outer
        return close

    def end_tag(self, pos: int, end: int) -> int:
        text = self.text
        head = NAME.match(text, pos, end)
        if head is None:  # </> or a bogus comment
            close = text.find(">", pos + 2, end)
            return close + 1 if close >= 0 else -1
        step = STEP.match(text, head.end(), end)
        while step and step[1]:
            step = STEP.match(text, step.end(), end)
        if step is None:
            return -1
        name = head[1].lower()
        if name in self.links:
            self.close_link(name, pos)
        elif name == "form":
            self.post_form = False
        elif name == "body" and not self.in_comment:
            self.body_end = pos
        elif name == "html" and not self.in_comment:
            self.html_end = pos
        for at in range(len(self.marked) - 1, -1, -1):
            if self.marked[at].name == name:
                self.marked[at].depth -= 1
                if not self.marked[at].depth:
                    del self.marked[at:]
                break
        return step.end()

    def start_tag(self, pos: int, end: int) -> int:
        text = self.text
        head = NAME.match(text, pos, end)
        if head is None:
            return -1
        attributes: _Attributes = {}
        step = STEP.match(text, head.end(), end)
        while step and step[1]:
            group = step.lastindex or 1
            value = step.span(group) if group > 1 else (step.end(), step.end())
            attributes.setdefault(step[1].lower(), (*value, step.start(1), step.end()))
            step = STEP.match(text, step.end(), end)
        if step is None:
            return -1
        name = head[1].lower()
        if name in self.links:
            self.close_link(name, pos)
        self.element(name, attributes, step.end())
        if name == "plaintext":
            return -1
        if name not in RAW:
            return step.end()
        close = raw_end(text, step.end(), end, name)
        if name == "style":
            self.css(step.end(), end if close < 0 else close, "css ", *self.covered())
        return close

    def covered(self) -> tuple[str, bool]:
        off = next((marked.off for marked in self.marked if marked.off), "")
        return off, any(marked.private for marked in self.marked)

    def close_link(self, name: str, at: int) -> None:
        index, start = self.links.pop(name)
        f = self.found[index]
        self.found[index] = Found(f.start, f.end, f.url, f.place, f.role, f.off, f.private, (start, at))

    def close_links(self, at: int) -> None:
        for name in tuple(self.links):
            self.close_link(name, at)

    def value(self, span: tuple[int, int, int, int]) -> str:
        return charrefs.decode(self.text[span[0] : span[1]])

    def element(self, name: str, attributes: _Attributes, end: int) -> None:
        """Note what the start tag of `name`, which ends at `end`, holds."""
        off, private = self.covered() if self.marked else ("", False)
        for attribute in attributes.keys() & MARKS.keys():
            said = mark(attribute, self.value(attributes[attribute]))
            private = private or said == "private"
            off = off or (said if said != "private" else "")
            if said:
                self.markers.append(mark_span(self.text, *attributes[attribute][2:]))
        if off or private or self.marked:
            self.cover(name, off, private)
        vml = name.startswith("v:")
        urls = VML if vml else URL_ATTRIBUTES.get(name, {})
        for attribute, span in attributes.items():
            role = urls.get(attribute, "asset" if attribute == "background" else "")
            if role:
                self.attribute(name, attribute, role, attributes, off, private, end)
            elif attribute == "style":
                self.css_value(span, off, private)
        if name == "base" and self.base is None and not self.in_comment and "href" in attributes:
            self.base = trim(self.value(attributes["href"]))
        elif name == "meta" and "content" in attributes and "http-equiv" in attributes:
            self.refresh(attributes, off, private)
        elif name in ("form", "button", "input"):
            self.form(name, attributes, off, private)

    def attribute(
        self, name: str, attribute: str, role: str, attributes: _Attributes, off: str, private: bool, end: int
    ) -> None:
        span = attributes[attribute]
        if name in ("input", "link") and attribute != "background":
            other = {key: self.value(attributes[key]) for key in attributes.keys() & {"type", "rel"}}
            if not loads_asset(name, attribute, other):
                return
        if attribute == "srcset":
            value, offsets = charrefs.decode_with_offsets(self.text[span[0] : span[1]])
            for start, stop in srcset.urls(value):
                self.part(span[0], value, offsets, start, stop, f"{name} srcset", role, off, private)
            return
        if self.add(span[0], span[1], self.value(span), f"{name} {attribute}", role, off, private) and (
            role == "link" and name != "area"
        ):
            self.links[name] = len(self.found) - 1, end

    def form(self, name: str, attributes: _Attributes, off: str, private: bool) -> None:
        attribute, method = ("action", "method") if name == "form" else ("formaction", "formmethod")
        post = method in attributes and self.value(attributes[method]).strip().lower() in ("post", "dialog")
        if name == "form":
            self.post_form = post
        if attribute in attributes and not post and not self.post_form:
            span = attributes[attribute]
            self.add(span[0], span[1], self.value(span), f"{name} {attribute}", "link", off, private)

    def refresh(self, attributes: _Attributes, off: str, private: bool) -> None:
        if self.value(attributes["http-equiv"]).lower() != "refresh":
            return
        span = attributes["content"]
        value, offsets = charrefs.decode_with_offsets(self.text[span[0] : span[1]])
        self.part(span[0], value, offsets, *refresh_span(value), "meta refresh", "link", off, private)

    def css_value(self, span: tuple[int, int, int, int], off: str, private: bool) -> None:
        value, offsets = charrefs.decode_with_offsets(self.text[span[0] : span[1]])
        for start, stop, url, place in css.urls(value):
            self.part(span[0], value, offsets, start, stop, f"style attr {place}", "asset", off, private, url)

    def css(self, start: int, end: int, prefix: str, off: str, private: bool) -> None:
        for at, stop, url, place in css.urls(self.text[start:end]):
            words = place if place.startswith("@") else prefix + place
            self.add(start + at, start + stop, url, words, "asset", off, private)

    def part(
        self, base: int, value: str, offsets: list[int] | None, start: int, stop: int,
        place: str, role: str, off: str, private: bool, url: str | None = None,
    ) -> None:  # fmt: skip
        """A URL that is a part of an attribute's decoded value."""
        url = value[start:stop] if url is None else url
        if offsets is not None:
            start, stop = offsets[start], offsets[stop]
        self.add(base + start, base + stop, url, place, role, off, private)

    def add(self, start: int, end: int, url: str, place: str, role: str, off: str, private: bool) -> bool:
        url = trim(url)
        if not url or url[0] == "#" or url[:5].lower() == "data:":
            return False
        self.found.append(Found(start, end, url, place, role, off, private, (0, 0)))
        return True

    def cover(self, name: str, off: str, private: bool) -> None:
        for marked in self.marked:
            if marked.name == name:
                marked.depth += 1
                break
        else:
            if name not in VOID:
                self.marked.append(_Marked(name, off, private))
