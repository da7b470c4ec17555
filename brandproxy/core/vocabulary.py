"""Groups of element names the tree construction rules speak of (HTML §13.2.4.2, §13.2.6). Foreign elements are
written with their namespace before a blank: "svg foreignobject"."""

from __future__ import annotations


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


VOID = _set(
    "area base basefont bgsound br col embed frame hr image img input keygen link meta param source track wbr"
)
# Read the same in head and in body; noscript is not among them, since mail clients run no scripts.
HEAD = _set("base basefont bgsound command link meta noframes script style title")
HEADINGS = _set("h1 h2 h3 h4 h5 h6")
FORMATTING = _set("a b big code em font i nobr s small strike strong tt u")
ROW_GROUPS = _set("tbody tfoot thead")
CELLS = _set("td th")
TABLE_PARTS = ROW_GROUPS | CELLS | _set("caption col colgroup tr")
CLOSES_SELECT = ROW_GROUPS | CELLS | _set("caption table tr")  # a select inside a table
RAW_IN_BODY = _set("iframe noembed textarea xmp")
IMPLIED_END = _set("dd dt li option optgroup p rp rt")

# Blocks: their start tag ends an open p. END_BLOCKS: their end tag closes them if they are in scope.
_PLAIN_BLOCKS = _set(
    "address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer header"
    " hgroup listing main menu nav ol pre search section summary ul"
)
BLOCKS = _PLAIN_BLOCKS | HEADINGS | _set("form hr p plaintext table xmp")
END_BLOCKS = _PLAIN_BLOCKS | {"button"}

FRAMESET_NOT_OK = _set(
    "applet area body br button dd dt embed hr iframe image img input keygen li listing marquee object pre select"
    " table textarea wbr xmp"
)

_FOREIGN_SCOPE = frozenset(f"math {name}" for name in ("mi", "mo", "mn", "ms", "mtext", "annotation-xml")) | {
    f"svg {name}" for name in ("foreignobject", "desc", "title")
}
SCOPE = _FOREIGN_SCOPE | _set("applet caption html marquee object table td th")
BUTTON_SCOPE = SCOPE | {"button"}
LIST_SCOPE = SCOPE | {"ol", "ul"}
TABLE_SCOPE = _set("html table")
SPECIAL = _FOREIGN_SCOPE | _set(
    "address applet area article aside base basefont bgsound blockquote body br button caption center col colgroup"
    " command dd details dir div dl dt embed fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5"
    " h6 head header hgroup hr html iframe img input keygen li link listing main marquee menu meta nav noembed"
    " noframes noscript object ol p param plaintext pre script search section select source style summary table"
    " tbody td textarea tfoot th thead title tr track ul wbr xmp"
)

# Start tags that end svg and math (§13.2.6.5); font does so only with color, face or size.
BREAKOUT = HEADINGS | _set(
    "b big blockquote body br center code dd div dl dt em embed head hr i img li listing menu meta nobr ol p pre"
    " ruby s small span strong strike sub sup table tt u ul var"
)
