"""The part of the WHATWG tokenizer (HTML §13.2.5) that decides what is a tag and what is an attribute.

Invariant: every pattern runs in time linear in what it passes over, because each repeat is possessive and
each choice is decided by its first character, or is a common form before the general one, passed over at most
twice. A general pattern that fails on a construct has reached the end of the text: nothing after it can be
markup, so the caller stops there.

Possessive groups end in `|(?!)`: before CPython 3.11.5 a last, failing round of such a group moved the
position (python/cpython#106052); a choice that fails at once puts it back.
"""

from __future__ import annotations

import re

_W = r"[\t\n\f\r ]"
_VALUE = r"""(?:"[^"]*+"|'[^']*+'|[^\t\n\f\r >"'][^\t\n\f\r >]*+|(?=>))"""
_ATTRIBUTE = rf"[^\t\n\f\r />][^\t\n\f\r />=]*+(?:{_W}*+={_W}*+{_VALUE}|(?!{_W}*+=))"
_NAME_END = r"(?=[\t\n\f\r />=])"

# Attributes by which senders opt a link, or all in an element, out of tracking; `places.mark` reads them.
MARKS = (
    "data-brandproxy", "clicktracking", "ses:no-track", "data-msys-clicktrack", "data-pm-no-track",
    "mautic:disable-tracking", "data-skip-click", "disable-tracking", "mc:disable-tracking",
)  # fmt: skip

# A style attribute matters if it may hold "url(" or "image-set(", also by CSS escapes or character references.
_NO_URL = r"{quote}(?:[^{quote}(&\\]++|\((?<![lLtT]\()|&(?!\#|lpar|bsol)|(?!))*+{quote}"
_NO_URL = "|".join(_NO_URL.format(quote=quote) for quote in "\"'")
_STYLE = rf"style{_NAME_END}(?!{_W}*+={_W}*+(?:{_NO_URL}))"


def _interest(names: str) -> str:
    """A choice of attribute names, with the marks and the styles that matter."""
    return rf"(?i:(?:{'|'.join((*names.split(), *MARKS))}){_NAME_END}|{_STYLE})"


def _step(names: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?:[\t\n\f\r /]++|(?!{_interest(names)}){_ATTRIBUTE}|(?!))*+"
        rf"""(?:>|([^\t\n\f\r />][^\t\n\f\r />=]*+)"""
        rf"""(?:{_W}*+={_W}*+(?:"([^"]*+)"|'([^']*+)'|([^\t\n\f\r >"'][^\t\n\f\r >]*+)|(?=>))|(?!{_W}*+=)))"""
    )


_ELEMENTS = (
    r"(?:a|area|img|image|source|video|audio|input|link|base|form|button|style|script|title|textarea|xmp|iframe"
    r"|noembed|noframes|plaintext|amp-img|amp-anim|amp-video|svg|math|select|frameset|v:[^\t\n\f\r />]++)"
    r"(?=[\t\n\f\r />])"
)
_ENDS = r"(?:a|body|html|form|v:[^\t\n\f\r />]++)(?=[\t\n\f\r />])"
_BARE = r"<(?![A-Za-z/!?])"  # a "<" that is text
_TEXT = rf"[^<]++|{_BARE}"
# The common forms of what matters nowhere come first, each a part of the general form that stands after it.
_COMMON_ATTRIBUTE = (
    r"""[ \t\n\r]++(?:style="[^"(&\\]*+"|class="[^"]*+"|[aefgijkln-rt-z][a-z]*+="[^"]*+\""""
    r"""|(?:border|cellpadding|cellspacing|bgcolor|height|content|hspace)="[^"]*+")"""
)
_COMMON = (
    r"/[c-eg-uw-zC-EG-UW-Z][A-Za-z0-9]*+>"
    r"|(?:t[dr]|table|tbody|div|p|span|br|center|strong|h[1-6r]|b|li|ul|meta)(?=[ >\t\n\r])"
    rf"(?:{_COMMON_ATTRIBUTE}|(?!))*+[ \t\n\r]*+/?>"
    r"|!--[^\[<>-]*+(?:-->|(?:-[^\[<>-]++|(?!))*+-->)"
)
# http-equiv matters unless it says what is no refresh.
_REFRESH = rf"""(?i:http-equiv{_NAME_END}(?!{_W}*+={_W}*+"(?:content-type|x-ua-compatible)"))"""
_START_TAG = (
    rf"(?!(?i:{_ELEMENTS}))[A-Za-z][^\t\n\f\r />]*+"
    rf"(?:{_COMMON_ATTRIBUTE}|[\t\n\f\r /]++|(?!{_interest('background')}|{_REFRESH}){_ATTRIBUTE}|(?!))*+>"
)
_END_TAG = rf"/(?!(?i:{_ENDS}))[A-Za-z][^\t\n\f\r />]*+(?:[\t\n\f\r /]++|{_ATTRIBUTE}|(?!))*+>"
_COMMENT = r"!--(?:-?>|(?!\s*+\[(?i:if))(?:[^-]++|-(?!-!?>)|(?!))*+--!?>)|[!?](?!--)[^>]*+>"
_TITLE = "title>[^<]*+</title>"  # as senders write it; any other is looked at
# A drawing of shapes alone: whatever is open around it, nothing in it names a file or changes how tags are read.
_SHAPE = (
    r"(?=[\t\n\f\r />])"
    rf"(?:[\t\n\f\r /]++|(?!{_interest('background')}){_ATTRIBUTE}|(?!))*+>"
)
_DRAWING = (
    rf"svg{_SHAPE}[^<]*+"
    rf"(?:</?+(?:path|g|circle|ellipse|rect|line|polyline|polygon){_SHAPE}[^<]*+|(?!))*+</svg>"
)

# Passes over text only: every tag is looked at.
SKIP_TEXT = re.compile(rf"(?:{_TEXT}|(?!))*+")
NAME = re.compile(r"</?([A-Za-z][^\t\n\f\r />]*+)")
END_TAG = re.compile(rf"</([A-Za-z][^\t\n\f\r />]*+)(?:[\t\n\f\r /]++|{_ATTRIBUTE}|(?!))*+>")
# A start tag that has nothing of interest, whatever its element: the common form.
EMPTY = re.compile(
    r"""<([a-z][a-z0-9]*+)(?: (?:style="[^"(&\\]*+\""""
    r"""|(?:class|id|width|height|align|valign|border|bgcolor|cellpadding|cellspacing)="[^"]*+")|(?!))*+>"""
)
# A style element as senders open it.
STYLE = re.compile(r"""<style(?: (?:type|media|rel|id|class|lang|title)="[^"]*+"|(?!))*+>""")
# From inside a tag to its next attribute of interest (groups: name, value in "", in '', unquoted) or its end.
STEP = _step(
    "href src srcset xlink:href background poster action formaction method formmethod type rel http-equiv content"
    " encoding color face size"
)
STEPS = {  # for the commonest, only what matters there
    "a": _step("href xlink:href background"),
    "img": _step("src srcset background"),
    "style": _step("background"),
}


def _plain(name: str, names: str, attribute: str) -> str:
    """A start tag with one attribute of interest, in double quotes."""
    rest = rf"(?:{_COMMON_ATTRIBUTE}|[\t\n\f\r /]++|(?!{_interest(names)}){_ATTRIBUTE}|(?!))*+"
    return rf"""{name}(?=[\t\n\f\r ]){rest}{attribute}="([^"]*+)"{rest}>"""


# The commonest tags of interest (groups: a link's address; its content, if it is text; an image's address).
_PLAIN = (
    rf"<(?:{_plain('a', 'href xlink:href background', 'href')}(?:([^<]*+)</a>|)"
    rf"|{_plain('img', 'src srcset background', 'src')})"
)
# Passes over text, comments without conditions, and tags that can hold nothing of interest, and over one of the
# commonest tags of interest if that is what follows.
SKIP = re.compile(
    rf"[^<]*+(?:<(?:{_COMMON}|{_START_TAG}|{_END_TAG}|(?![A-Za-z/!?])|{_COMMENT}|{_TITLE}|{_DRAWING})[^<]*+|(?!))*+"
    rf"(?:{_PLAIN}|)"
)
_COMMENT_END = re.compile(r"--!?>")
CONDITION = re.compile(r"<!--\s*+\[if\b[^\]<>]{0,256}\]\s*+>", re.IGNORECASE)
_DOCTYPE = re.compile(
    r"(?:[\t\n\f\r ]++|<!--(?:(?!-->)[\s\S])*+-->|(?!))*+<!doctype\s+html\b([^>]*+)>", re.IGNORECASE
)
_SCRIPT = re.compile(r"<!--|-->|<(/?)script(?=[\t\n\f\r />])", re.IGNORECASE)

# Elements whose content is text up to their own end tag (§13.2.5.2–4). noscript is not among them: mail
# clients run no scripts, so its content is markup.
RAW = frozenset({"style", "xmp", "iframe", "noembed", "noframes", "title", "textarea", "script"})
_RAW_END = {name: re.compile(rf"</{name}(?=[\t\n\f\r />])", re.IGNORECASE) for name in RAW if name != "script"}


# Attributes by which the tree decides.
TREE_ATTRIBUTES = frozenset(("type", "encoding", "color", "face", "size"))
# Elements after which the open elements decide what a tag is: they need a `tree`.
HARD = frozenset(("svg", "math", "select", "frameset", "plaintext"))


def raw_end(text: str, pos: int, end: int, name: str) -> int:
    """Where the end tag `</name` of a raw text element opened before `pos` starts, or -1."""
    if name == "script":
        return _script_end(text, pos, end)
    pattern = _RAW_END[name]
    first = text.find("<", pos, end)  # nearly always the end already, and found far faster than by a pattern
    if first < 0 or pattern.match(text, first, end):
        return first
    match = pattern.search(text, first, end)
    return match.start() if match else -1


def _script_end(text: str, pos: int, end: int) -> int:
    """§13.2.5.15–31: `<!--` escapes, and `<script` inside an escape hides the next `</script`."""
    depth = 0  # 0 data, 1 escaped, 2 double escaped
    while match := _SCRIPT.search(text, pos, end):
        pos = match.end()
        if match[0] == "<!--":
            depth = depth or 1
            pos -= 2  # the dashes may already be those of "-->"
        elif match[0] == "-->":
            depth = 0
        elif not match[1]:
            depth = 2 if depth else 0
        elif depth == 2:
            depth = 1
        else:
            return match.start()
    return -1


def declaration_end(text: str, pos: int, end: int) -> int:
    """The end of the comment, doctype or bogus comment that starts at `pos`, or -1 when it has none."""
    if not text.startswith("<!--", pos):
        close = text.find(">", pos + 2, end)
        return close + 1 if close >= 0 else -1
    for short in ("<!-->", "<!--->"):
        if text.startswith(short, pos) and pos + len(short) <= end:
            return pos + len(short)
    match = _COMMENT_END.search(text, pos + 4, end)
    return match.end() if match else -1


def cdata_end(text: str, pos: int, end: int) -> int:
    """The end of the CDATA section that starts at `pos` (§13.2.5.69–71), or -1."""
    close = text.find("]]>", pos, end)
    return close + 3 if close >= 0 else -1


def is_quirky(text: str) -> bool:
    """Whether `text` starts without a doctype that asks for a standards mode (§13.2.6.4.1, the common ones)."""
    match = _DOCTYPE.match(text)
    if match is None:
        return True
    ids = match[1].lower()
    return (
        "//dtd" in ids
        and "xhtml 1." not in ids
        and ("4.01" not in ids or ids.count("//dtd") + ids.count("http") < 2)
    )
