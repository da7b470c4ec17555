"""What the Content-* header values of a part mean, read by the standard library and kept for the next message."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache

_COMMENT = re.compile(r"[ \t]*\([^()\\]*\)[ \t]*\Z")
_TYPE = re.compile(rf"[^\s/();,]+/[^\s/();,]+(?:{_COMMENT.pattern})?")


@dataclass(frozen=True, slots=True)
class ContentType:
    """Lower-case names. `attachment`: "attachment" when said so, "named" when only a file name hints at it."""

    type: str
    boundary: str = ""
    charset: str = ""
    encoding: str = "7bit"
    flowed: bool = False
    delsp: bool = False
    attachment: str = ""
    reason: str = ""


@lru_cache(1024)
def content_type(value: bytes, encoding: bytes, attachment: str) -> ContentType:
    """Read a Content-Type value (RFC 2045 §5.1, RFC 2231, RFC 3676) and a Content-Transfer-Encoding value."""
    try:
        message = _holder("content-type", value)
        params = message.get_params(unquote=True) or []
        said = {(name.lower(), str(value)) for name, value in params[1:]}
        names = [name for name, _ in said]
        if any(names.count(name) > 1 for name in ("boundary", "charset", "format", "delsp")):
            return ContentType("", reason="ambiguous header")
        return ContentType(
            _COMMENT.sub("", message.get_content_type()),
            message.get_boundary("") or "",
            (message.get_content_charset("") or "").strip().lower(),
            encoding.decode("latin-1").strip().lower() or "7bit",
            _plain(message.get_param("format")) == "flowed",
            _plain(message.get_param("delsp")) == "yes",
            attachment or ("named" if "name" in names else ""),
            "" if _TYPE.fullmatch(params[0][0]) else "unreadable content type",
        )
    except Exception:  # the standard library raises what it likes on hostile parameters
        return ContentType("", reason="unreadable content type")


@lru_cache(1024)
def attached(disposition: bytes) -> str:
    """ "attachment" unless shown inline without a file name (RFC 2183 §2.8: unknown types are attachments)."""
    if not disposition:
        return ""
    try:
        params = _holder("content-disposition", disposition).get_params(header="content-disposition") or []
        names = {name.lower() for name, _ in params[1:]}
        return "" if params[0][0].lower().strip() == "inline" and "filename" not in names else "attachment"
    except Exception:  # as above: what cannot be read is not ours to change
        return "attachment"


def _holder(name: str, value: bytes) -> Message:
    message = Message()
    message[name] = value.decode("latin-1")
    return message


def _plain(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""
