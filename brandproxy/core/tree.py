"""The stack of open elements (HTML §13.2.4.2–13.2.6), as far as it decides how later tags are read.

Most mail never needs it. It is asked only for texts with svg, math, select, frameset, plaintext or an opt-out
mark, where the open elements decide: in svg and math, `<style>` and `<title>` hold markup and `<![CDATA[` is
text; in select and frameset most tags are dropped; a mark covers what its element encloses. Nodes are not
built: there are only names, so that foster parenting and cloned formatting elements leave no trace.

Invariant: after every `start`, `end` and `text`, `stack` names the elements open at that point of the text.
Depth is limited to 512 as in browsers, so that no text costs more than linear time.
"""

from __future__ import annotations

from collections.abc import Mapping

from brandproxy.core.endtags import EndTags
from brandproxy.core.openelements import Node
from brandproxy.core.vocabulary import (
    BLOCKS,
    BREAKOUT,
    CELLS,
    CLOSES_SELECT,
    FORMATTING,
    FRAMESET_NOT_OK,
    HEAD,
    HEADINGS,
    RAW_IN_BODY,
    ROW_GROUPS,
    SCOPE,
    TABLE_PARTS,
    TABLE_SCOPE,
    VOID,
)


class Tree(EndTags):
    """`pushed` is the node of the last start tag if it is open, `ns` the namespace of its element."""

    # -- what the tokenizer asks and tells -------------------------------------------------------------

    @property
    def foreign(self) -> bool:
        """Whether the current node is in svg or math, where CDATA sections exist."""
        return bool(self.stack[-1].ns)

    @property
    def takes_image(self) -> bool:
        """Whether an img here would be in the tree as it stands."""
        return not self.foreign and self.mode not in ("select", "frameset", "done")

    def start(self, name: str, attributes: Mapping[str, str], closed: bool) -> bool:
        """A start tag (`closed`: it ends in "/>"); False when the tree drops it. `pushed` is its node, if open."""
        self.pushed = self.stack[0] if name == "html" else None
        self.ns = ""
        kept = self.start_anywhere(name, attributes, closed)
        if self.pushed is not None and self.pushed.name != name:
            self.pushed = None  # opened on the way: a body, a tbody, formatting elements again
        return kept

    def start_anywhere(self, name: str, attributes: Mapping[str, str], closed: bool) -> bool:
        top = self.stack[-1]
        if (
            not top.ns or top.integration
            or (top.text_integration and name not in ("mglyph", "malignmark"))
            or (top.key == "math annotation-xml" and name == "svg")
        ):  # fmt: skip
            return self.html_start("img" if name == "image" else name, attributes, closed)
        if name in BREAKOUT or (name == "font" and not attributes.keys().isdisjoint(("color", "face", "size"))):
            while self.stack[-1].ns and not (self.stack[-1].integration or self.stack[-1].text_integration):
                self.pop()
            return self.html_start(name, attributes, closed)
        self.ns = top.ns
        if not closed:
            self.push_foreign(name, top.ns, attributes)
        return True

    def end(self, name: str) -> None:
        if self.stack[-1].ns:
            for node in reversed(self.stack):
                if not node.ns:
                    break
                if node.name == name:
                    self.pop_through(node)
                    return
        self.html_end(name)

    def text(self, blank: bool) -> None:
        """Characters in the data state."""
        if blank:
            return
        if self.mode == "head" and not self.foreign:
            self.open_body()
        elif self.mode == "colgroup" and not self.foreign:
            self.end_colgroup()
        if self.mode not in ("select", "frameset", "done") and not self.foreign:
            self.reconstruct()
        self.frameset_ok = False

    # -- start tags ------------------------------------------------------------------------------------

    def html_start(self, name: str, attributes: Mapping[str, str], closed: bool) -> bool:
        mode = self.mode
        if mode == "head":
            return self.start_in_head(name, attributes, closed)
        if mode in ("frameset", "done"):
            if name == "frameset" and mode == "frameset":
                self.push(name)
            return name == "noframes" or (mode == "frameset" and name in ("frameset", "frame"))
        if mode == "select":
            return self.start_in_select(name, attributes, closed)
        if mode != "body" and (name in TABLE_PARTS or name == "table"):
            outcome = self.start_table_part(name)
            if outcome is not None:
                return self.html_start(name, attributes, closed) if outcome == "again" else outcome == "in"
        if mode == "colgroup" and name not in HEAD:
            self.end_colgroup()
        if self.mode in ("table", "rows", "row") and name == "form":
            self.form = self.form or Node("form")
            return True
        return self.start_in_body(name, attributes, closed)

    def start_in_head(self, name: str, attributes: Mapping[str, str], closed: bool) -> bool:
        if name in HEAD or name in ("html", "head", "noscript"):
            return True
        if name == "frameset":
            self.mode = "frameset"
            self.push(name)
            return True
        self.open_body()
        if name == "body":
            self.frameset_ok = False
            return True
        return self.html_start(name, attributes, closed)

    def start_in_select(self, name: str, attributes: Mapping[str, str], closed: bool) -> bool:
        if name in ("option", "optgroup"):
            for inner in ("option", name):
                if self.stack[-1].key == inner:
                    self.pop()
            self.push(name)
            return True
        if name == "script":
            return True
        in_table = self.select_in_table and name in CLOSES_SELECT
        if name == "select" or in_table or name in ("input", "keygen", "textarea"):
            self.html_end("select")
            return name != "select" and self.html_start(name, attributes, closed)
        return False

    def start_in_body(self, name: str, attributes: Mapping[str, str], closed: bool) -> bool:
        if name in FRAMESET_NOT_OK and not (name == "input" and attributes.get("type", "").lower() == "hidden"):
            self.frameset_ok = False
        if name in HEAD or name in ("html", "head", "body", "frame") or name in TABLE_PARTS:
            return name in HEAD or name in ("html", "body")
        if name == "frameset":
            return self.replace_body()
        if name == "form" and self.form is not None:
            return False
        self.close_for(name)
        if name in VOID:
            return True
        if name in ("svg", "math"):
            self.ns = name
            if not closed:
                self.push_foreign(name, name, attributes)
            return True
        if name not in RAW_IN_BODY:
            self.open(name)
        return True

    def open(self, name: str) -> None:
        """Push an element of body, with what opening it sets."""
        self.push(name)
        node = self.stack[-1]
        if name in FORMATTING:
            self.formatting.append(node)
            self.limit_formatting(name)
        elif name in ("applet", "marquee", "object"):
            self.formatting.append(None)
        elif name == "form":
            self.form = node
        elif name == "table":
            self.mode = "table"
        elif name == "select":
            self.select_in_table, self.mode = self.mode != "body", "select"

    def replace_body(self) -> bool:
        """A frameset in a body that shows nothing yet."""
        if self.frameset_ok:
            self.clear_to(("html",))
            self.push("frameset")
            self.mode = "frameset"
        return self.frameset_ok

    def close_for(self, name: str) -> None:
        """End what the start tag `name` ends by itself in body."""
        if name in BLOCKS and not (name == "table" and self.quirks):
            self.close_p()
        if name in HEADINGS and self.stack[-1].key in HEADINGS:
            self.pop()
        elif name in ("li", "dd", "dt"):
            self.close_item(("li",) if name == "li" else ("dd", "dt"))
            self.close_p()
        elif name == "a" and (open_a := self.last_formatting("a")):
            self.adopt("a")
            self.forget(open_a)
        elif name == "button" and self.find(("button",), SCOPE):
            self.html_end("button")
        elif name in ("option", "optgroup") and self.stack[-1].key == "option":
            self.pop()
        elif name in ("rp", "rt") and self.find(("ruby",), SCOPE):
            self.end_implied()
        if name == "nobr":
            self.reconstruct()
            if self.find(("nobr",), SCOPE):
                self.adopt("nobr")
        if name not in BLOCKS and name not in ("li", "dd", "dt", "rp", "rt"):
            self.reconstruct()

    def start_table_part(self, name: str) -> str | None:
        """A table part in a table mode: "in" the tree, "out", "again", or None: as in body."""
        mode = self.mode
        if mode in ("cell", "caption"):
            if name == "table":
                return None
            if mode == "caption":
                return "again" if self.end_caption() else "out"
            return "again" if self.close_cell() else "out"
        if mode == "colgroup":
            if name == "col":
                return "in"
            return "again" if self.end_colgroup() else "out"
        if name == "table":
            if self.find(("table",), TABLE_SCOPE) is None:
                return "out"
            self.html_end("table")
            return "again"
        if mode == "row":
            if name in CELLS:
                self.clear_to(("tr",))
                return self.open_part(name, "cell")
            return "again" if self.end_row() else "out"
        if mode == "rows":
            if name == "tr" or name in CELLS:
                self.clear_to(ROW_GROUPS)
                self.open_part("tr", "row")
                return "in" if name == "tr" else "again"
            return "again" if self.end_rows() else "out"
        return self.start_in_table(name)

    def start_in_table(self, name: str) -> str:
        self.clear_to(("table",))
        if name == "caption":
            return self.open_part(name, "caption")
        if name in ("colgroup", "col"):
            self.open_part("colgroup", "colgroup")
            return "in" if name == "colgroup" else "again"
        self.open_part(name if name in ROW_GROUPS else "tbody", "rows")
        return "in" if name in ROW_GROUPS else "again"

    def open_part(self, name: str, mode: str) -> str:
        self.push(name)
        self.mode = mode
        if mode in ("cell", "caption"):
            self.formatting.append(None)
        return "in"
