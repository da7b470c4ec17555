"""The message after DATA, read as it arrives in pieces rather than line by line: ten times cheaper.

Only CRLF . CRLF ends a message (RFC 5321 §4.1.1.4): a client that says LF . LF, or any mixture, has not ended it,
so that nothing is smuggled past this proxy by an end that only one side sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_END = b"\r\n.\r\n"
_ALL = 1 << 24  # more than a StreamReader ever holds, so that what is handed back is what comes next


async def message(reader: asyncio.StreamReader, limit: int, alive: Callable[[], None]) -> bytes | None:
    """Up to the final dot, with doubled dots undone (§4.5.2); None when larger than `limit`: read, not kept.

    `alive` is called with each piece. What the client sent behind the message (RFC 2920) stays with the reader.
    """
    held = bytearray(b"\r\n")  # the line end of the command: a message may be its final dot alone
    kept = True
    while True:
        piece = await reader.read(_ALL)
        if not piece:
            raise EOFError("the client went away in mid-message")
        alive()
        searched = max(0, len(held) - len(_END) + 1)
        held += piece
        end = held.find(_END, searched)
        # `end` is the content's length; without one, all but the first line end and a begun end is content.
        kept = kept and (len(held) - 2 - len(_END) if end < 0 else end) <= limit
        if end >= 0:
            break
        if not kept:
            del held[: 1 - len(_END)]
    if len(held) > end + len(_END) and not reader.at_eof():
        reader.feed_data(bytes(memoryview(held)[end + len(_END) :]))
    return _plain(held, end) if kept else None


def _plain(held: bytearray, end: int) -> bytes:
    content = bytes(memoryview(held)[2 : end + 2])
    held.clear()
    if content.startswith(b"."):
        content = content[1:]
    return content.replace(b"\r\n.", b"\r\n") if b"\r\n." in content else content
