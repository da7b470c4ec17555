"""The stack of open elements and the list of active formatting elements (HTML §13.2.4.2–3), as names only."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from brandproxy.core.vocabulary import BUTTON_SCOPE, IMPLIED_END, SPECIAL

_MAX_DEPTH = 512  # as in browsers: what is deeper becomes a sibling

_MODES = {  # the insertion mode an open element asks for
    "td": "cell", "th": "cell", "tr": "row", "tbody": "rows", "tfoot": "rows", "thead": "rows", "table": "table",
    "caption": "caption", "colgroup": "colgroup", "select": "select", "frameset": "frameset",
}  # fmt: skip


class Node:
    """An open element: `ns` is "" (HTML), "svg" or "math"; off and private are its marks and its ancestors'."""

    __slots__ = ("integration", "key", "name", "ns", "off", "open", "private", "text_integration")

    def __init__(self, name: str, ns: str = "", integration: bool = False) -> None:
        self.name = self.key = name
        self.ns, self.off, self.private = ns, "", False
        self.open = False  # on the stack
        self.integration = integration  # HTML integration point
        self.text_integration = False
        if ns:
            self.key = f"{ns} {name}"  # as scopes and special elements are listed
            self.text_integration = ns == "math" and name in ("mi", "mo", "mn", "ms", "mtext")


class OpenElements:
    def __init__(self, quirks: bool) -> None:
        self.stack = [Node("html")]
        self.count: dict[str, int] = {}  # how many of a name are open: what is not open is not looked for
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
        stack = self.stack
        if len(stack) >= _MAX_DEPTH:
            self.pop()
        node.off, node.private = stack[-1].off, stack[-1].private
        stack.append(node)
        self.entered(node)
        self.pushed = node

    def entered(self, node: Node) -> None:
        node.open = True
        self.count[node.name] = self.count.get(node.name, 0) + 1

    def left(self, node: Node) -> None:
        node.open = False
        self.count[node.name] -= 1

    def pop(self) -> Node:
        node = self.stack.pop()
        self.left(node)
        return node

    def remove(self, node: Node) -> None:
        if node.open:
            self.stack.remove(node)
            self.left(node)

    def any_open(self, names: Collection[str]) -> bool:
        return any(map(self.count.get, names))

    def find(self, names: Collection[str], scope: Collection[str]) -> Node | None:
        """The innermost open element of these names within a scope."""
        if not self.any_open(names):
            return None
        for node in reversed(self.stack):
            if node.name in names:
                return node
            if node.key in scope:
                return None
        return None

    def pop_through(self, node: Node) -> None:
        while self.pop() is not node:
            pass

    def clear_to(self, names: Collection[str]) -> None:
        while self.stack[-1].name not in names and len(self.stack) > 1:
            self.pop()

    def end_implied(self, but: str = "") -> None:
        while self.stack[-1].name in IMPLIED_END and self.stack[-1].name != but:
            self.pop()

    def close_p(self) -> None:
        if node := self.find(("p",), BUTTON_SCOPE):
            self.pop_through(node)

    def close_item(self, names: tuple[str, ...]) -> None:
        for node in reversed(self.stack if self.any_open(names) else ()):
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
        open_ones = reversed(self.stack if self.any_open(_MODES) else ())
        self.mode = next((_MODES[node.key] for node in open_ones if node.key in _MODES), "body")

    # -- active formatting elements --------------------------------------------------------------------

    def last_formatting(self, name: str) -> Node | None:
        for node in reversed(self.formatting):
            if node is None or node.name == name:
                return node
        return None

    def forget(self, node: Node) -> None:
        if node in self.formatting:
            self.formatting.remove(node)
        self.remove(node)

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
        while at and (node := self.formatting[at - 1]) is not None and not node.open:
            at -= 1
        for again in range(at, len(self.formatting)):
            old = self.formatting[again]
            assert old is not None  # the loop above stopped at markers
            self.push(old.name)
            self.formatting[again] = self.stack[-1]
