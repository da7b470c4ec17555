"""The bodies of HTTP/1 messages: of known length, or in chunks (RFC 9112 §6.2, §7.1). Pure."""

from __future__ import annotations

import re
from typing import Literal

from brandproxy.errors import Final

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 §5.6.2
VALUE = rb"[\t \x21-\x7e\x80-\xff]*"  # §5.5

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[\t ]*;" + VALUE + rb")?")
_TRAILER = re.compile(TOKEN + rb":" + VALUE)
_LONGEST_LINE = 4096  # bytes: a chunk's size with its extensions, a trailer field
_EXTENSIONS = 4096  # bytes of chunk extensions in a body
_TRAILERS = 8192  # bytes of trailer section


class Refused(Final):
    """A message that is not read, or not to its end. `status` is the answer; the connection ends with it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Sized:
    """A body of `length` bytes."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def complete(self) -> bool:
        return not self._left

    def read(self, buffer: bytes) -> tuple[bytes, bytes]:
        """Content that is there, and what is left of the buffer."""
        if len(buffer) <= self._left:
            self._left -= len(buffer)
            return buffer, b""
        left, self._left = self._left, 0
        return buffer[:left], buffer[left:]


class Chunked:
    """A body in chunks, of at most `limit` bytes of content. Extensions and trailers are checked and dropped."""

    __slots__ = ("_content", "_extensions", "_left", "_limit", "_place", "_trailers", "complete")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._content = 0  # bytes until now, the chunk that has begun included
        self._extensions = 0
        self._trailers = 0
        self._left = 0  # bytes of the chunk that has begun
        self._place: Literal["size", "chunk", "behind", "trailers"] = "size"
        self.complete = False

    def read(self, buffer: bytes) -> tuple[bytes, bytes]:
        """Content that is there, of all chunks together, and what is left of the buffer. Raises Refused."""
        pieces: list[bytes] = []
        at = 0
        while not self.complete:
            if self._place == "chunk":
                piece = buffer[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
                if self._left:
                    break
                self._place = "behind"
            elif self._place == "behind":
                ending = buffer[at : at + 2]
                if not b"\r\n".startswith(ending):
                    raise Refused(400, "a chunk that is longer than its size")
                if len(ending) < 2:
                    break
                at += 2
                self._place = "size"
            else:
                end = _line_end(buffer, at)
                if end < 0:
                    break
                line, at = buffer[at:end], end + 2
                self._size(line) if self._place == "size" else self._trailer(line)
        return b"".join(pieces), buffer[at:]

    def _size(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise Refused(400, "a chunk without a size")
        self._left = int(match[1], 16)
        self._content += self._left
        self._extensions += len(line) - len(match[1])
        if self._content > self._limit or self._extensions > _EXTENSIONS:
            raise Refused(413, "the body is too large")
        self._place = "chunk" if self._left else "trailers"

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.complete = True
            return
        self._trailers += len(line)
        if not _TRAILER.fullmatch(line):
            raise Refused(400, "not a trailer field")
        if self._trailers > _TRAILERS:
            raise Refused(431, "too many trailer fields")


def _line_end(buffer: bytes, at: int) -> int:
    """Where the line's CR LF is, -1 while it is not there. Raises Refused for a line that cannot become one."""
    end = buffer.find(b"\r\n", at, at + _LONGEST_LINE)
    part = buffer[at : at + _LONGEST_LINE] if end < 0 else buffer[at:end]
    if b"\n" in part or b"\r" in (part[:-1] if end < 0 else part):
        raise Refused(400, "a line that does not end with CR LF")
    if end < 0 and len(buffer) - at >= _LONGEST_LINE:
        raise Refused(413, "a line of the body's framing is too long")
    return end
