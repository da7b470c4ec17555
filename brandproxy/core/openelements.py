"""The stack of open elements and the list of active formatting elements (HTML §13.2.4.2–3), as names only."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from brandproxy.core.vocabulary import BUTTON_SCOPE, IMPLIED_END, ROW_GROUPS, SPECIAL

_MAX_DEPTH = 512  # as in browsers: what is deeper becomes a sibling


class Node:
    """An open element: `ns` is "" (HTML), "svg" or "math"; off and private are its marks and its ancestors'."""

    __slots__ = ("integration", "key", "name", "ns", "off", "private", "text_integration")

    def __init__(self, name: str, ns: str = "", integration: bool = False) -> None:
        self.name, self.ns, self.off, self.private = name, ns, "", False
        self.key = f"{ns} {name}" if ns else name  # as scopes and special elements are listed
        self.integration = integration  # HTML integration point
        self.text_integration = ns == "math" and name in ("mi", "mo", "mn", "ms", "mtext")


class OpenElements:
    def __init__(self, quirks: bool) -> None:
        self.stack = [Node("html")]
        self.formatting: list[Node | None] = []  # None is a marker
        self.mode = "head"  # head body table caption colgroup rows row cell select frameset done
        self.quirks = quirks
        self.frameset_ok = True
        self.form: Node | None = None
        self.select_in_table = False
        self.pushed: Node | None = None
        self.ns = ""  # of the last start tag's element, pushed or not

    # -- the stack -------------------------------------------------------------------------------------

    def push(self, name: str) -> None:
        self.append(Node(name))

    def push_foreign(self, name: str, ns: str, attributes: Mapping[str, str]) -> None:
        integration = ns == "svg" and name in ("foreignobject", "desc", "title")
        if ns == "math" and name == "annotation-xml":
            integration = attributes.get("encoding", "").lower() in ("text/html", "application/xhtml+xml")
        self.append(Node(name, ns, integration))

    def append(self, node: Node) -> None:
        if len(self.stack) >= _MAX_DEPTH:
            self.stack.pop()
        node.off, node.private = self.stack[-1].off, self.stack[-1].private
        self.stack.append(node)
        self.pushed = node

    def find(self, names: Collection[str], scope: Collection[str]) -> Node | None:
        """The innermost open element of these names within a scope."""
        for node in reversed(self.stack):
            if node.name in names:
                return node
            if node.key in scope:
                return None
        return None

    def pop_through(self, node: Node) -> None:
        while self.stack.pop() is not node:
            pass

    def clear_to(self, names: Collection[str]) -> None:
        while self.stack[-1].name not in names and len(self.stack) > 1:
            self.stack.pop()

    def end_implied(self, but: str = "") -> None:
        while self.stack[-1].name in IMPLIED_END and self.stack[-1].name != but:
            self.stack.pop()

    def close_p(self) -> None:
        if node := self.find(("p",), BUTTON_SCOPE):
            self.pop_through(node)

    def close_item(self, names: tuple[str, ...]) -> None:
        for node in reversed(self.stack):
            if node.name in names:
                self.pop_through(node)
                return
            if node.key in SPECIAL and node.key not in ("address", "div", "p"):
                return

    def open_body(self) -> None:
        self.push("body")
        self.mode, self.frameset_ok = "body", True

    def reset_mode(self) -> None:
        """§13.2.4.1 reset the insertion mode appropriately."""
        modes = {"td": "cell", "th": "cell", "tr": "row", "caption": "caption", "colgroup": "colgroup"}
        modes |= {"table": "table", "select": "select", "frameset": "frameset", "body": "body"}
        modes |= dict.fromkeys(ROW_GROUPS, "rows")
        self.mode = next((modes[node.key] for node in reversed(self.stack) if node.key in modes), "body")

    # -- active formatting elements --------------------------------------------------------------------

    def last_formatting(self, name: str) -> Node | None:
        for node in reversed(self.formatting):
            if node is None or node.name == name:
                return node
        return None

    def forget(self, node: Node) -> None:
        if node in self.formatting:
            self.formatting.remove(node)
        if node in self.stack:
            self.stack.remove(node)

    def limit_formatting(self, name: str) -> None:
        """At most three of a name since the last marker (§13.2.4.3; we do not look at their attributes)."""
        same: list[int] = []
        for at in range(len(self.formatting) - 1, -1, -1):
            node = self.formatting[at]
            if node is None:
                break
            if node.name == name:
                same.append(at)
        if len(same) > 3:
            del self.formatting[same[-1]]

    def clear_formatting(self) -> None:
        while self.formatting and self.formatting.pop() is not None:
            pass

    def reconstruct(self) -> None:
        """Open again the formatting elements that a block's end closed."""
        at = len(self.formatting)
        while at and (node := self.formatting[at - 1]) is not None and node not in self.stack:
            at -= 1
        for again in range(at, len(self.formatting)):
            old = self.formatting[again]
            assert old is not None  # the loop above stopped at markers
            self.push(old.name)
            self.formatting[again] = self.stack[-1]
