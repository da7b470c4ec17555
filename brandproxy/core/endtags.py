"""What end tags do to the open elements, by insertion mode (HTML §13.2.6.4)."""

from __future__ import annotations

from brandproxy.core.openelements import Node, OpenElements
from brandproxy.core.vocabulary import (
    CELLS,
    CLOSES_SELECT,
    END_BLOCKS,
    FORMATTING,
    HEADINGS,
    LIST_SCOPE,
    ROW_GROUPS,
    SCOPE,
    SPECIAL,
    TABLE_PARTS,
    TABLE_SCOPE,
)


class EndTags(OpenElements):
    def html_end(self, name: str) -> None:
        mode = self.mode
        if mode == "head":
            if name in ("body", "html", "br"):
                self.open_body()
                self.html_end(name)
        elif mode == "select":
            self.end_in_select(name)
        elif mode == "frameset":
            if name == "frameset" and len(self.stack) > 1:
                self.pop()
                self.mode = mode if self.stack[-1].name == "frameset" else "done"
        elif mode == "done":
            return
        elif mode != "body" and (name in TABLE_PARTS or name in ("table", "body", "html")):
            self.end_table_part(name)
        else:
            if mode == "colgroup":
                self.end_colgroup()
            self.end_in_body(name)

    def end_in_select(self, name: str) -> None:
        top, below = self.stack[-1].name, self.stack[-2].name
        if name == "option" and top == "option":
            self.pop()
        elif name == "optgroup":
            if top == "option" and below == "optgroup":
                self.pop()
            if self.stack[-1].name == "optgroup":
                self.pop()
        elif name == "select":
            if node := self.find(("select",), frozenset()):
                self.pop_through(node)
            self.reset_mode()
        elif self.select_in_table and name in CLOSES_SELECT and self.find((name,), TABLE_SCOPE):
            self.end_in_select("select")
            self.html_end(name)

    def end_table_part(self, name: str) -> None:
        """The end tag of a table part, of body or html, in a table mode."""
        mode = self.mode
        if mode == "cell":
            self.end_in_cell(name)
        elif mode == "caption":
            if name in ("caption", "table") and self.end_caption() and name == "table":
                self.html_end(name)
        elif mode == "colgroup":
            if name != "col" and self.end_colgroup() and name != "colgroup":
                self.html_end(name)
        elif mode == "row" and (name in ROW_GROUPS or name in ("tr", "table")):
            wanted = name not in ROW_GROUPS or self.find((name,), TABLE_SCOPE) is not None
            if wanted and self.end_row() and name != "tr":
                self.html_end(name)
        elif mode == "rows" and name in ROW_GROUPS:
            if self.find((name,), TABLE_SCOPE):
                self.clear_to(ROW_GROUPS)
                self.pop()
                self.mode = "table"
        elif name == "table" and (mode == "table" or self.end_rows()):
            self.end_table()

    def end_in_cell(self, name: str) -> None:
        if name in CELLS:
            if node := self.find((name,), TABLE_SCOPE):
                self.end_implied(name)
                self.pop_through(node)
                self.clear_formatting()
                self.mode = "row"
        elif name not in ("caption", "col", "colgroup", "body", "html") and (
            self.find((name,), TABLE_SCOPE) and self.close_cell()
        ):
            self.html_end(name)

    def end_in_body(self, name: str) -> None:
        if name in FORMATTING:
            self.adopt(name)
        elif name == "form":
            node, self.form = self.form, None
            if node is not None and node.open and self.find(("form",), SCOPE):
                self.end_implied()
                self.remove(node)
        elif name == "p":
            self.close_p()
        elif name == "br":
            self.reconstruct()
            self.frameset_ok = False
        elif name in HEADINGS or name in END_BLOCKS or name in ("li", "dd", "dt", "applet", "marquee", "object"):
            names = HEADINGS if name in HEADINGS else (name,)
            if node := self.find(names, LIST_SCOPE if name == "li" else SCOPE):
                self.end_implied(name if name in ("li", "dd", "dt") else "")
                self.pop_through(self.find(names, SCOPE) or node)
                if name in ("applet", "marquee", "object"):
                    self.clear_formatting()
        elif name not in ("body", "html"):
            self.end_other(name)

    def end_other(self, name: str) -> None:
        for node in reversed(self.stack if self.count.get(name) else ()):
            if node.name == name and node.key != "svg foreignobject":  # it is ended in foreign content only
                self.end_implied(name)
                self.pop_through(node)
                return
            if node.key in SPECIAL:
                return

    def end_table(self) -> bool:
        node = self.find(("table",), frozenset(("html",)))
        if node:
            self.pop_through(node)
            self.reset_mode()
        return node is not None

    def end_caption(self) -> bool:
        node = self.find(("caption",), TABLE_SCOPE)
        if node:
            self.pop_through(node)
            self.clear_formatting()
            self.mode = "table"
        return node is not None

    def end_colgroup(self) -> bool:
        self.pop()
        self.mode = "table"
        return True

    def end_row(self) -> bool:
        if not self.find(("tr",), TABLE_SCOPE):
            return False
        self.clear_to(("tr",))
        self.pop()
        self.mode = "rows"
        return True

    def end_rows(self) -> bool:
        if not self.find(ROW_GROUPS, TABLE_SCOPE):
            return False
        self.clear_to(ROW_GROUPS)
        self.pop()
        self.mode = "table"
        return True

    def close_cell(self) -> bool:
        node = self.find(CELLS, TABLE_SCOPE)
        if node:
            self.end_in_cell(node.name)
        return node is not None

    # -- the adoption agency -------------------------------------------------------------------------

    def adopt(self, name: str) -> None:
        """The adoption agency algorithm (§13.2.6.4.7)."""
        for _ in range(8):
            element = self.last_formatting(name)
            if element is None:
                self.end_other(name)
                return
            if not element.open:
                self.formatting.remove(element)
                return
            if self.find((name,), SCOPE) is None:
                return
            at = self.stack.index(element)
            block = next((node for node in self.stack[at:] if node.key in SPECIAL), None)
            if block is None:
                self.pop_through(element)
                self.formatting.remove(element)
                return
            self.move_out(element, block)

    def move_out(self, element: Node, block: Node) -> None:
        """One round of it: `element` ends before `block` and a clone of it opens inside."""
        bookmark = self.formatting.index(element)
        at, inner = self.stack.index(element), self.stack.index(block)
        kept = []
        for count, node in enumerate(reversed(self.stack[at + 1 : inner]), 1):
            if node in self.formatting and count <= 3:
                kept.append(node)
            elif node in self.formatting:
                bookmark -= self.formatting.index(node) < bookmark
                self.formatting.remove(node)
        if kept:
            bookmark = self.formatting.index(kept[0]) + 1
        clone = Node(element.name)
        self.formatting.insert(bookmark, clone)
        self.formatting.remove(element)
        for node in self.stack[at:inner]:
            if node not in kept:
                self.left(node)
        self.stack[at : inner + 1] = [*reversed(kept), block, clone]
        self.entered(clone)
