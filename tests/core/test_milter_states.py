"""Every milter command in every state, and every way a mail server may negotiate: what is taken, what is refused.

The tables here are written from the protocol (Sendmail's libmilter, MILTER_README of Postfix), not from our code.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.milter import MAX_PACKET, ProtocolError, Session, Step, packet
from tests.core.test_milter import END, END_HEADERS, MAIL, OFFER, RCPT, SUBJECT, WHOLE, agreed, drive, replies

BODY = packet(b"B", b"text\r\n")
PACKETS = {
    "O": OFFER, "D": packet(b"D", b"Mi\0004ABC\0"), "C": packet(b"C", b"host\0004\0\x19127.0.0.1\0"),
    "H": packet(b"H", b"helo\0"), "M": MAIL, "R": RCPT, "T": packet(b"T"), "L": SUBJECT, "N": END_HEADERS,
    "B": BODY, "E": END, "A": packet(b"A"), "U": packet(b"U", b"VRFY x\0"), "K": packet(b"K"), "Q": packet(b"Q"),
}  # fmt: skip
STATES = {  # what was said before, and the commands that may follow
    "nothing": (b"", "OQ"),
    "agreed": (OFFER, "CDHMAUKQ"),
    "sender": (OFFER + MAIL, "DHMRTLNAUKQ"),
    "recipient": (OFFER + MAIL + RCPT, "DHMRTLNAUKQ"),
    "header": (OFFER + MAIL + RCPT + SUBJECT, "DHMLNAUKQ"),
    "headers ended": (OFFER + MAIL + RCPT + SUBJECT + END_HEADERS, "DHMBEAUKQ"),
    "body": (OFFER + MAIL + RCPT + END_HEADERS + BODY, "DHMBEAUKQ"),
    "aborted": (OFFER + MAIL + RCPT + SUBJECT + packet(b"A"), "CDHMAUKQ"),
    "ended": (OFFER + WHOLE, "CDHMAUKQ"),
    "next connection": (OFFER + MAIL + packet(b"K"), "CDHMAUKQ"),
    "left": (OFFER + packet(b"Q"), "Q"),
}
WAITED_ON = {"M": Step.BEGUN, "N": Step.HEADED, "E": Step.ENDED, "Q": Step.CLOSED}


def let_go(session: Session, data: bytes) -> list[Step]:
    """As `drive`, and the message's end is answered as the shell answers it."""
    steps = []
    for step in session.feed(data):
        steps.append(step)
        if step is Step.ENDED:
            session.finish([])
        elif step is not Step.CLOSED:
            session.go_on()
    return steps


@pytest.mark.parametrize("command", PACKETS)
@pytest.mark.parametrize("state", STATES)
def test_each_command_in_each_state(state: str, command: str) -> None:
    before, taken = STATES[state]
    session = Session()
    let_go(session, before)
    session.output()
    if command not in taken:
        with pytest.raises(ProtocolError):
            let_go(session, PACKETS[command])
        assert session.output() == b""  # no verdict on what was not understood
        return
    steps = let_go(session, PACKETS[command])
    assert steps == ([WAITED_ON[command]] if command in WAITED_ON else [])
    if command in "MNE":
        assert replies(session.output()) == [(b"c", b"")]


@pytest.mark.parametrize("state", ["agreed", "sender", "recipient", "header", "headers ended", "body", "ended"])
@pytest.mark.parametrize("cut", ["A", "K"])
def test_after_an_abort_anywhere_the_next_message_is_seen_as_the_first(state: str, cut: str) -> None:
    session = Session()
    let_go(session, STATES[state][0] + PACKETS[cut])
    session.output()
    for step in session.feed(WHOLE):
        if step is Step.ENDED:
            assert session.mail.recipients == [b"b@example.org"]
            assert session.message() == b"Subject: hello\r\n\r\ntext\r\n"
        session.go_on()


# Steps a server leaves out, and steps it does not wait on, when it and the milter agree (SMFIP_NO*, SMFIP_NR_*).
LEFT_OUT = {"C": 0x01, "H": 0x02, "M": 0x04, "R": 0x08, "B": 0x10, "L": 0x20, "N": 0x40, "U": 0x100, "T": 0x200}
UNANSWERED = {
    "C": 0x1000, "H": 0x2000, "M": 0x4000, "R": 0x8000, "T": 0x10000, "U": 0x20000, "N": 0x40000, "B": 0x80000,
    "L": 0x80,
}  # fmt: skip


@given(st.integers(0, 0x1FFFFF), st.integers(2, 6), st.booleans())
def test_whatever_a_server_offers_each_step_it_waits_on_gets_one_answer(
    steps: int, version: int, names_macros: bool
) -> None:
    session = Session()
    actions = 0x3F | (0x100 if names_macros else 0)
    drive(session, packet(b"O", struct.pack("!III", version, actions, steps)))
    ((command, content),) = replies(session.output())
    spoken, asked, agreed_steps = struct.unpack_from("!III", content)
    assert (command, spoken) == (b"O", version)
    assert asked & ~actions == 0
    assert agreed_steps & ~steps == 0
    assert (len(content) > 12) == bool(asked & 0x100)
    for name in "CHUMRTLNBEM":
        if name in LEFT_OUT and agreed_steps & LEFT_OUT[name]:
            continue
        let_go(session, PACKETS[name])
        answered = name == "E" or not agreed_steps & UNANSWERED[name]
        assert replies(session.output()) == ([(b"c", b"")] if answered else []), name


def test_packets_one_byte_at_a_time() -> None:
    session, steps = Session(), []
    for byte in OFFER + WHOLE + WHOLE + packet(b"Q"):
        steps += let_go(session, bytes([byte]))
    assert steps == [Step.BEGUN, Step.HEADED, Step.ENDED] * 2 + [Step.CLOSED]


def test_the_largest_packet_is_taken_and_one_byte_more_is_not() -> None:
    def header(size: int) -> bytes:
        return packet(b"L", b"X\0" + b"a" * (size - 4) + b"\0")

    session = agreed()
    drive(session, MAIL + header(MAX_PACKET))
    assert len(session.mail.fields) == 1
    with pytest.raises(ProtocolError):
        drive(session, header(MAX_PACKET + 1))


def test_a_packet_too_large_is_refused_by_its_length_alone() -> None:
    with pytest.raises(ProtocolError):
        drive(agreed(), struct.pack("!I", MAX_PACKET + 1) + b"B")


QUEUE_ID = {
    "at the sender, as Sendmail": packet(b"D", b"Mi\0004ABC\0") + WHOLE,
    "at a recipient": MAIL + packet(b"D", b"R{i}\0004ABC\0") + RCPT + SUBJECT + END_HEADERS + END,
    "at the end, as Postfix": MAIL + RCPT + SUBJECT + END_HEADERS + packet(b"D", b"Ei\0004ABC\0") + END,
}


@pytest.mark.parametrize("place", QUEUE_ID)
def test_the_queue_id_is_known_wherever_it_is_told(place: str) -> None:
    session, seen = agreed(), []
    for data in (QUEUE_ID[place], WHOLE):
        for step in session.feed(data):
            if step is Step.ENDED:
                seen.append(session.mail.queue_id)
                session.finish([])
            else:
                session.go_on()
    assert seen == [b"4ABC", b""]  # never that of the message before


@pytest.mark.parametrize(
    "content", [b"", b"M", b"M{auth_authen}", b"M\0\0\0", b"M{auth_authen}\0a\0b", b"Zx\0y\0", b"M{}\0x\0"]
)
def test_macros_in_any_shape_break_nothing(content: bytes) -> None:
    session = agreed()
    assert drive(session, packet(b"D", content) + MAIL) == [Step.BEGUN]


def test_a_user_told_elsewhere_than_at_the_sender_is_nobodys_login() -> None:
    session = agreed()
    drive(session, packet(b"D", b"C{auth_authen}\0shop\0") + MAIL + packet(b"D", b"R{auth_authen}\0shop\0") + RCPT)
    assert session.mail.user == b""
