"""Why something was left alone, in a sentence for people: the words of the report and what they mean.

docs/rewriting.md has the same table; a test keeps the two together.
"""

from __future__ import annotations

URL = {
    "already ours": "it carries a valid token of this tenant, on whatever host",
    "already processed": "its body was rewritten before for this message; marks are gone, so nothing is guessed",
    "opted out": "it, or an element around it, carries an opt-out mark",
    "template placeholder": "somebody else fills it in later: {{x}}, *|x|*, %%x%%, <%x%>, [[x]], ${x} …",
    "not http(s)": "mailto:, tel:, cid:, a relative URL without a base …",
    "user-info": "it holds a user name, which mail clients treat in different ways",
    "backslash": "it holds a backslash, which readers take for different hosts",
    "bad host": "its host is none that could be looked up",
    "control character": "it holds a character that no URL may hold",
    "too long": "it is over 4 KB",
    "excluded": "the tenant excludes this destination",
    "not included": "the tenant includes other destinations only",
    "clicks off": "the tenant wants no links rewritten",
    "assets off": "the tenant wants no assets rewritten",
    "unsubscribe off": "the tenant keeps List-Unsubscribe as it is",
    "unsubscribe link": "the tenant keeps unsubscribe links as they are",
    "not an origin": "an image that lies under none of the tenant's origins",
    "text names another host": "the visible text is a URL of another host, and the tenant leaves those alone",
    "over the link cap": "max_links links were rewritten before it",
    "form fields would be lost": "a GET form: its fields would replace the query",
    "no scheme": "plain text that is only perhaps a URL",
    "broken over lines": "plain text in which a URL is broken where no line was too long",
    "AMP needs https": "AMP allows https only",
    "one-click needs https": "RFC 8058 allows https only",
    "line too long": "the new line would be over 998 octets, with no place for a line end",
    "no usable host": "no host of the tenant answers yet",
    "no usable key": "every signing key of the tenant is revoked",
    "already signed": "the message has a DKIM or ARC signature, which a change would break",
}
PART = {
    "attachment": "by Content-Disposition, or a file name inside a multipart",
    "attached message": "a message inside the message",
    "not text": "neither text/html nor text/plain",
    "signed part": "a change would break its signature",
    "encrypted part": "its content is encrypted",
    "PKCS#7": "S/MIME",
    "inline PGP": "signed or encrypted in its text",
    "delivery report": "it quotes another message",
    "unknown transfer encoding": "Content-Transfer-Encoding is none of RFC 2045",
    "malformed quoted-printable": "readers repair it in different ways",
    "irregular base64": "it would not encode back to the same bytes",
    "unknown charset": "no mail client knows this charset",
    "charset is not ASCII-compatible": "UTF-16, UTF-7 and other charsets in which ASCII is not written as ASCII",
    "undecodable": "its bytes are none of its charset",
    "no boundary": "a multipart that does not name its boundary",
    "boundary never found": "a multipart without a part",
    "ambiguous boundary": "its boundary is like another one that is open",
    "encoded multipart": "a multipart in a transfer encoding",
    "nested too deeply": "over 50 levels",
    "broken header": "readers disagree about where the header ends",
    "ambiguous header": "a header or parameter that decides is given twice",
    "unreadable content type": "Content-Type cannot be read",
}
_ALL = PART | URL


def meaning(reason: str) -> str:
    """What a reason of the report means, or "" for a word that needs no explanation."""
    return _ALL.get(reason, "")
