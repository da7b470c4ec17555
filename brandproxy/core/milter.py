"""The Sendmail milter protocol, version 6, from the milter's side: bytes in, events out, no socket.

Invariant: each step the mail server waits on gets exactly one answer, and a step it agreed not to wait on gets
none. What may come when stands in `_STEPS`; anything else raises `ProtocolError`, the caller closes, and the mail
server falls back to its own default action. No mail is ever answered for that was not seen whole.

We ask for as little as the work needs: no connect, HELO, DATA or unknown commands, no waiting on recipients,
headers or body pieces, two macros. We wait at MAIL (to refuse early under load), at the end of the headers (to
let a mail go that is not ours, before its body is sent) and at the end of the message.

A milter edits a message once, for all of its recipients.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from brandproxy.core.fields import Field, changes, split
from brandproxy.errors import Final

CHUNK = 65_535  # MILTER_CHUNK_SIZE: data bytes of one body packet, either way
MAX_PACKET = 1 << 20  # a header can be larger than a chunk; nothing we negotiate is larger than this
MAX_HEAD = 4 << 20  # envelope and headers of one message together


class ProtocolError(Final):
    """The peer broke the protocol; close the connection."""

    action = "Point only a mail server's milter client at this port."


# What we may do (SMFIF_*) and which steps to leave out or not to wait on (SMFIP_*).
_ADD_HEADERS, _CHANGE_BODY, _CHANGE_HEADERS, _SET_MACROS = 0x001, 0x002, 0x010, 0x100
_ACTIONS = _ADD_HEADERS | _CHANGE_BODY | _CHANGE_HEADERS
_NO_CONNECT, _NO_HELO, _NO_UNKNOWN, _NO_DATA = 0x001, 0x002, 0x100, 0x200
_QUIET_CONNECT, _QUIET_HELO, _QUIET_RCPT, _QUIET_DATA = 0x1000, 0x2000, 0x8000, 0x10000
_QUIET_HEADER, _QUIET_UNKNOWN, _QUIET_BODY, _LEADING_SPACE = 0x80, 0x20000, 0x80000, 0x100000
_STEPS_WANTED = (
    _NO_CONNECT | _NO_HELO | _NO_UNKNOWN | _NO_DATA | _QUIET_RCPT | _QUIET_HEADER | _QUIET_BODY | _LEADING_SPACE
)
_MACROS = ((0, b""), (1, b""), (2, b"{auth_authen}"), (3, b""), (4, b""), (5, b"i"), (6, b""))  # SMFIM_* stages


class Phase(Enum):
    NEW = auto()  # nothing agreed yet
    IDLE = auto()  # between messages
    ENVELOPE = auto()  # MAIL seen
    HEADERS = auto()  # at least one header seen
    BODY = auto()  # end of headers seen
    CLOSED = auto()


_AGREED = frozenset(Phase) - {Phase.NEW, Phase.CLOSED}

# command -> (name, phases it may come in, phase after it or None for the same, its "do not wait" bit or 0).
# MAIL in the midst of a message drops that message unanswered: servers do so after a refused MAIL.
_STEPS: dict[int, tuple[str, frozenset[Phase], Phase | None, int]] = {
    ord("O"): ("negotiate", frozenset({Phase.NEW}), Phase.IDLE, 0),
    ord("D"): ("macros", _AGREED, None, 0),
    ord("C"): ("connect", frozenset({Phase.IDLE}), None, _QUIET_CONNECT),
    ord("H"): ("hello", _AGREED, None, _QUIET_HELO),
    ord("M"): ("mail", _AGREED, Phase.ENVELOPE, 0),
    ord("R"): ("recipient", frozenset({Phase.ENVELOPE}), None, _QUIET_RCPT),
    ord("T"): ("data", frozenset({Phase.ENVELOPE}), None, _QUIET_DATA),
    ord("L"): ("header", frozenset({Phase.ENVELOPE, Phase.HEADERS}), Phase.HEADERS, _QUIET_HEADER),
    ord("N"): ("end_of_headers", frozenset({Phase.ENVELOPE, Phase.HEADERS}), Phase.BODY, 0),
    ord("B"): ("body", frozenset({Phase.BODY}), None, _QUIET_BODY),
    ord("E"): ("end_of_message", frozenset({Phase.BODY}), Phase.IDLE, 0),
    ord("A"): ("abort", _AGREED, Phase.IDLE, 0),
    ord("U"): ("unknown", _AGREED, None, _QUIET_UNKNOWN),
    ord("K"): ("new_connection", _AGREED, Phase.IDLE, 0),
    ord("Q"): ("quit", frozenset(Phase), Phase.CLOSED, 0),
}
_AUTO = frozenset("CHRTLBU")  # answered "go on" here when the server waits; the others by the caller or not at all


@dataclass(slots=True)
class Mail:
    """A message as the server has told it so far. `oversize`: the body passed the limit and was not kept."""

    sender: bytes = b""
    recipients: list[bytes] = field(default_factory=list)
    user: bytes = b""
    queue_id: bytes = b""
    fields: list[Field] = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)
    size: int = 0
    oversize: bool = False


class Step(Enum):
    """Where the caller is asked: answer each event once, by a method of the session."""

    BEGUN = auto()  # MAIL; `go_on` or `refuse`
    HEADED = auto()  # end of headers; `go_on`, `accept` or `refuse`
    ENDED = auto()  # end of message; `finish`, `accept` or `refuse`
    CLOSED = auto()  # the server said goodbye; nothing to answer


class Session:
    """One connection. Feed it what arrives; answer each step it yields; send what `output` gives."""

    def __init__(self, max_body: int = 50 << 20) -> None:
        self.mail = Mail()
        self.phase = Phase.NEW
        self._max_body = max_body
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._quiet = 0
        self._user = self._queue_id = b""  # of the MAIL that comes next
        self._due = False

    @property
    def idle(self) -> bool:
        """No message is underway and no answer is due."""
        return self.phase in (Phase.NEW, Phase.IDLE) and not self._due

    def feed(self, data: bytes) -> Iterator[Step]:
        """The steps that want an answer, each to be answered before the next is drawn. Raises ProtocolError."""
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= 5:
                (length,) = _LENGTH.unpack_from(self._buffer, start)
                if not 1 <= length <= MAX_PACKET:
                    raise ProtocolError(f"milter packet of {length} bytes")
                if len(self._buffer) - start < 4 + length:
                    break
                command = self._buffer[start + 4]
                content = bytes(memoryview(self._buffer)[start + 5 : start + 4 + length])
                start += 4 + length
                step = self._take(command, content)
                if step is not None:
                    yield step
                    if self._due:
                        raise AssertionError(f"{step} was not answered")
        finally:
            del self._buffer[:start]

    def output(self) -> bytes:
        """What is to be sent now; forgotten here."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def go_on(self) -> None:
        self._answer(_GO_ON)

    def accept(self) -> None:
        """Let this message go as it is; the server sends no more of it."""
        self._answer(packet(b"a"))
        self._reset()

    def refuse(self, text: str) -> None:
        """Give the client this reply, e.g. `451 4.3.0 try again later` (RFC 5321 §4.2, RFC 3463)."""
        line = "".join(c for c in text if c.isprintable() and c != "%")[:500]  # Sendmail formats "%"
        self._answer(packet(b"y", line.encode("ascii", "replace") + b"\0"))
        self._reset()

    def finish(self, edits: Sequence[bytes]) -> None:
        """Apply the edits (`edits()` makes them) and accept the message."""
        self._out.extend(edits)
        self._answer(_GO_ON)
        self._reset()

    def message(self) -> bytes | None:
        """RFC 5322 bytes of the mail held, or None when its headers cannot stand in a message as told."""
        lines: list[bytes] = []
        for name, value in self.mail.fields:
            if not _plain(value):
                return None
            lines += name, b":", value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), b"\r\n"
        return b"".join((*lines, b"\r\n", *self.mail.body))

    def edits(self, before: bytes, after: bytes) -> list[bytes]:
        """The packets that turn the message `before` (as `message()` gave it) into `after`."""
        if before == after:
            return []
        _, body_before = split(before)
        fields, body = split(after)
        packets = [self._edit(*change) for change in changes(self.mail.fields, fields)]
        if body != body_before:
            packets += [packet(b"b", body[at : at + CHUNK]) for at in range(0, len(body) or 1, CHUNK)]
        return packets

    def _edit(self, name: bytes, index: int, value: bytes | None) -> bytes:
        if value is not None and not self._quiet & _LEADING_SPACE:
            value = value.removeprefix(b" ")  # the server puts one there itself
        if index == 0:
            return packet(b"h", name + b"\0" + (value or b"") + b"\0")
        return packet(b"m", _LENGTH.pack(index) + name + b"\0" + (value or b"") + b"\0")

    def _take(self, command: int, content: bytes) -> Step | None:
        step = _STEPS.get(command)
        if step is None:
            raise ProtocolError(f"unknown milter command {command:#x}")
        name, phases, after, quiet = step
        if self.phase not in phases:
            raise ProtocolError(f"milter command {name} while {self.phase.name.lower()}")
        result: Step | None = getattr(self, "_on_" + name, _nothing)(content)
        if after is not None:
            self.phase = after
        if chr(command) in _AUTO and not self._quiet & quiet:
            self._out.append(_GO_ON)
        self._due = result is not None and result is not Step.CLOSED
        return result

    def _on_negotiate(self, content: bytes) -> None:
        if len(content) < 12:
            raise ProtocolError("short milter negotiation")
        version, actions, steps = struct.unpack_from("!III", content)
        if version < 2 or actions & _ACTIONS != _ACTIONS:
            raise ProtocolError("the mail server lets no milter change headers and body")
        self._quiet = steps & _STEPS_WANTED
        macros = b""
        if actions & _SET_MACROS and version >= 6:
            macros = b"".join(_LENGTH.pack(stage) + names + b"\0" for stage, names in _MACROS)
        wanted = _ACTIONS | (_SET_MACROS if macros else 0)
        self._out.append(packet(b"O", struct.pack("!III", min(version, 6), wanted, self._quiet) + macros))

    def _on_macros(self, content: bytes) -> None:
        words = content[1:].split(b"\0")
        for name, value in zip(words[::2], words[1::2], strict=False):
            if name.strip(b"{}") == b"auth_authen" and content[:1] == b"M":
                self._user = value
            elif name.strip(b"{}") == b"i" and content[:1] == b"M":
                self._queue_id = value  # Sendmail knows it already then, Postfix only later
            elif name.strip(b"{}") == b"i":
                self.mail.queue_id = value

    def _on_mail(self, content: bytes) -> Step:
        self.mail = Mail(sender=_address(content), user=self._user, queue_id=self._queue_id)
        self._user = self._queue_id = b""  # nobody's mail is ever taken for the one before
        return Step.BEGUN

    def _on_recipient(self, content: bytes) -> None:
        self._hold(len(content))
        self.mail.recipients.append(_address(content))

    def _on_header(self, content: bytes) -> None:
        name, found, rest = content.partition(b"\0")
        value, ends, tail = rest.partition(b"\0")
        if not (found and ends) or tail or not name or b":" in name or b"\n" in name:
            raise ProtocolError("malformed milter header packet")
        self._hold(len(content))
        self.mail.fields.append((name, value if self._quiet & _LEADING_SPACE else b" " + value))

    def _on_end_of_headers(self, content: bytes) -> Step:
        self.mail.size = 0
        return Step.HEADED

    def _on_body(self, content: bytes) -> None:
        self.mail.size += len(content)
        if self.mail.size > self._max_body:
            self.mail.oversize = True
            self.mail.body.clear()
        elif content:
            self.mail.body.append(content)

    def _on_end_of_message(self, content: bytes) -> Step:
        self._on_body(content)  # the last piece may come with the end
        return Step.ENDED

    def _on_abort(self, content: bytes) -> None:
        self._reset()

    def _on_new_connection(self, content: bytes) -> None:
        self._reset()

    def _on_quit(self, content: bytes) -> Step:
        return Step.CLOSED

    def _hold(self, size: int) -> None:
        self.mail.size += size + 32
        if self.mail.size > MAX_HEAD:
            raise ProtocolError("milter: envelope and headers are too large")

    def _answer(self, reply: bytes) -> None:
        assert self._due, "no answer is due"
        self._due = False
        self._out.append(reply)

    def _reset(self) -> None:
        self.mail = Mail()
        self._user = self._queue_id = b""
        self.phase = Phase.IDLE


def packet(command: bytes, content: bytes = b"") -> bytes:
    return _LENGTH.pack(1 + len(content)) + command + content


def _address(content: bytes) -> bytes:
    """The address of a MAIL or RCPT packet, without its angle brackets; ESMTP parameters follow a NUL."""
    address, found, _ = content.partition(b"\0")
    if not found:
        raise ProtocolError("malformed milter envelope packet")
    return address.strip().removeprefix(b"<").removesuffix(b">")


def _plain(value: bytes) -> bool:
    """Whether each line after the first is a folded one, so that the field reads back as told."""
    return all(line[:1] in (b" ", b"\t") for line in value.split(b"\n")[1:])


def _nothing(content: bytes) -> None:
    """A step that says nothing to us."""


_LENGTH = struct.Struct("!I")
_GO_ON = packet(b"c")
