"""The milter protocol: what comes in what order, and that edits say exactly what changed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.fields import Field, by_name, changes, split
from brandproxy.core.milter import CHUNK, Phase, ProtocolError, Session, Step, packet

OFFER = packet(b"O", struct.pack("!III", 6, 0x1FF, 0x1FFFFF))
POOR_OFFER = packet(b"O", struct.pack("!III", 2, 0x3F, 0x7F))
MAIL = packet(b"M", b"<a@example.org>\0SIZE=10\0")
RCPT = packet(b"R", b"<b@example.org>\0")
SUBJECT = packet(b"L", b"Subject\0 hello\0")
END_HEADERS, END = packet(b"N"), packet(b"E")
WHOLE = MAIL + RCPT + SUBJECT + END_HEADERS + packet(b"B", b"text\r\n") + END


def drive(session: Session, data: bytes) -> list[Step]:
    """Feed, let everything go on, and tell the steps seen."""
    steps = []
    for step in session.feed(data):
        steps.append(step)
        if step is not Step.CLOSED:
            session.go_on()
    return steps


def agreed(offer: bytes = OFFER) -> Session:
    session = Session()
    assert drive(session, offer) == []
    session.output()
    return session


def replies(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while data:
        (length,) = struct.unpack_from("!I", data)
        found.append((data[4:5], data[5 : 4 + length]))
        data = data[4 + length :]
    return found


def test_negotiation_asks_only_for_what_is_needed() -> None:
    session = Session()
    drive(session, OFFER)
    (command, content), = replies(session.output())  # fmt: skip
    version, actions, steps = struct.unpack_from("!III", content)
    assert (command, version) == (b"O", 6)
    assert actions == 0x001 | 0x002 | 0x010 | 0x100  # add headers, change body and headers, name the macros
    assert steps == 0x001 | 0x002 | 0x100 | 0x200 | 0x8000 | 0x80 | 0x80000 | 0x100000


def test_nothing_is_agreed_that_was_not_offered() -> None:
    session = Session()
    drive(session, POOR_OFFER)
    version, actions, steps = struct.unpack("!III", replies(session.output())[0][1])
    assert (version, actions, steps) == (2, 0x13, 0x03)


@pytest.mark.parametrize("offer", [(1, 0x1FF, 0), (6, 0x01, 0), (6, 0, 0x1FFFFF)])
def test_a_server_that_lets_us_change_nothing_is_refused(offer: tuple[int, int, int]) -> None:
    with pytest.raises(ProtocolError):
        drive(Session(), packet(b"O", struct.pack("!III", *offer)))


def test_a_message_is_seen_whole_with_its_envelope() -> None:
    session = agreed()
    macros = packet(b"D", b"M{auth_authen}\0shop\0") + MAIL + RCPT + packet(b"D", b"Ei\x004ABC\0")
    assert drive(session, macros) == [Step.BEGUN]
    for step in session.feed(SUBJECT + END_HEADERS + packet(b"B", b"one\r\n") + packet(b"E", b"two\r\n")):
        if step is Step.ENDED:
            mail = session.mail
            assert (mail.sender, mail.user, mail.queue_id) == (b"a@example.org", b"shop", b"4ABC")
            assert mail.recipients == [b"b@example.org"]
            assert session.message() == b"Subject: hello\r\n\r\none\r\ntwo\r\n"
        session.go_on()


def test_without_the_quiet_agreement_every_step_gets_its_go_on() -> None:
    session = agreed(POOR_OFFER)
    drive(session, packet(b"C", b"x\0U") + packet(b"H", b"helo\0") + WHOLE)
    assert replies(session.output()) == [(b"c", b"")] * 8


def test_with_it_only_the_three_steps_we_decide_at() -> None:
    session = agreed()
    assert drive(session, WHOLE) == [Step.BEGUN, Step.HEADED, Step.ENDED]
    assert replies(session.output()) == [(b"c", b"")] * 3


def test_several_messages_share_a_connection_and_nothing_else() -> None:
    session = agreed()
    drive(session, packet(b"D", b"M{auth_authen}\0shop\0") + WHOLE)
    for step in session.feed(WHOLE):
        assert session.mail.user == b""  # never the user of the message before
        assert len(session.mail.fields) <= 1
        session.go_on()
        if step is Step.ENDED:
            session._reset()


@pytest.mark.parametrize("cut", [packet(b"A"), MAIL, packet(b"K")])
def test_abort_a_new_sender_and_a_new_connection_drop_the_message(cut: bytes) -> None:
    session = agreed()
    drive(session, MAIL + RCPT + SUBJECT + cut)
    assert session.mail.recipients == session.mail.fields == []


WRONG = {
    "before the negotiation": (MAIL, b""),
    "negotiation twice": (OFFER, OFFER),
    "recipient without sender": (RCPT, OFFER),
    "header without sender": (SUBJECT, OFFER),
    "body before the headers end": (packet(b"B", b"x"), OFFER + MAIL + RCPT + SUBJECT),
    "end before the headers end": (END, OFFER + MAIL + RCPT + SUBJECT),
    "end without anything": (END, OFFER),
    "recipient after headers": (RCPT, OFFER + MAIL + SUBJECT),
    "header after body": (SUBJECT, OFFER + MAIL + END_HEADERS + packet(b"B", b"x")),
    "headers end twice": (END_HEADERS, OFFER + MAIL + END_HEADERS),
    "connect within a message": (packet(b"C", b"x\0U"), OFFER + MAIL),
    "unknown command": (packet(b"Z"), OFFER),
    "empty packet": (b"\0\0\0\0\0", OFFER),
    "endless packet": (b"\xff\xff\xff\xffB", OFFER),
    "short negotiation": (packet(b"O", b"\0\0\0\6"), b""),
    "sender without its end": (packet(b"M", b"<a@b>"), OFFER),
    "header without a value": (packet(b"L", b"Subject\0"), OFFER + MAIL),
    "header with three parts": (packet(b"L", b"A\0b\0c\0"), OFFER + MAIL),
    "header name with a colon": (packet(b"L", b"A: b\0c\0"), OFFER + MAIL),
    "header without a name": (packet(b"L", b"\0c\0"), OFFER + MAIL),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_order_and_broken_packets_end_the_conversation(name: str) -> None:
    wrong, before = WRONG[name]
    session = Session()
    drive(session, before)
    with pytest.raises(ProtocolError):
        drive(session, wrong)


@given(st.lists(st.integers(1, 40), max_size=30))
def test_it_does_not_matter_where_the_stream_is_cut(cuts: list[int]) -> None:
    session, steps, data = Session(), [], OFFER + WHOLE + WHOLE + packet(b"Q")
    for cut in (*cuts, len(data)):
        steps += drive(session, data[:cut])
        data = data[cut:]
    assert steps == [Step.BEGUN, Step.HEADED, Step.ENDED] * 2 + [Step.CLOSED]


COMMANDS = st.sampled_from([bytes([c]) for c in b"ODCHMRTLNBEAUKQZ"])


@given(st.lists(st.tuples(COMMANDS, st.binary(max_size=40)), max_size=40), st.booleans())
def test_no_sequence_of_packets_crashes_or_gets_two_answers(packets: list[tuple[bytes, bytes]], ok: bool) -> None:
    session = agreed() if ok else Session()
    try:
        for command, content in packets:
            steps = drive(session, packet(command, content))
            answers = replies(session.output())
            assert len(answers) <= 1
            if steps and steps != [Step.CLOSED]:
                assert answers == [(b"c", b"")]
    except ProtocolError:
        pass


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(data: bytes) -> None:
    try:
        drive(agreed(), data)
    except ProtocolError:
        pass


def test_a_body_over_the_limit_is_not_kept() -> None:
    session = Session(max_body=10)
    drive(session, OFFER + MAIL + END_HEADERS)
    for step in session.feed(packet(b"B", b"12345678") * 2 + END):
        assert step is Step.ENDED
        assert session.mail.oversize
        assert session.mail.body == []
        session.accept()
    assert session.phase is Phase.IDLE


def test_endless_headers_end_the_conversation() -> None:
    session = agreed()
    drive(session, MAIL)
    with pytest.raises(ProtocolError):
        drive(session, packet(b"L", b"X\0" + b"a" * 500_000 + b"\0") * 10)


def ended(message_body: bytes, *fields: Field) -> Session:
    """A session at the end of a message, its answer due."""
    session = agreed()
    headers = b"".join(packet(b"L", name + b"\0" + value + b"\0") for name, value in fields)
    drive(session, MAIL + RCPT + headers + END_HEADERS)
    feed = session.feed(packet(b"E", message_body))
    assert next(feed) is Step.ENDED
    session.output()
    return session


@pytest.mark.parametrize("size", [1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_a_new_body_comes_in_pieces_of_at_most_a_chunk(size: int) -> None:
    session = ended(b"old", (b"A", b" b"))
    before = session.message()
    assert before is not None
    session.finish(session.edits(before, before.replace(b"old", b"n" * size)))
    *pieces, last = replies(session.output())
    assert last == (b"c", b"")
    assert {command for command, _ in pieces} == {b"b"}
    assert b"".join(content for _, content in pieces) == b"n" * size
    assert max(len(content) for _, content in pieces) <= CHUNK


def test_an_unchanged_message_is_accepted_without_an_edit() -> None:
    session = ended(b"same", (b"A", b" b"))
    before = session.message()
    assert before is not None
    session.finish(session.edits(before, before))
    assert replies(session.output()) == [(b"c", b"")]


def test_header_edits_name_their_namesake_by_number() -> None:
    session = ended(b"same", (b"X", b" 1"), (b"L", b" old,\n\tfolded"), (b"x", b" 2"), (b"X", b" 3"))
    before = session.message()
    assert before is not None
    after = before.replace(b"x: 2\r\n", b"").replace(b"old,\r\n\tfolded", b"new,\r\n\tfolded") + b""
    session.finish(session.edits(before, after))
    number = struct.Struct("!I").pack
    assert replies(session.output()) == [
        (b"m", number(1) + b"L\0 new,\n\tfolded\0"),
        (b"m", number(2) + b"x\0\0"),
        (b"c", b""),
    ]


def test_a_refusal_is_one_clean_reply() -> None:
    session = ended(b"same")
    session.refuse("451 4.3.0 100% away\r\n250 forged")
    assert replies(session.output()) == [(b"y", b"451 4.3.0 100 away250 forged\0")]


def test_a_header_that_would_read_back_differently_makes_no_message() -> None:
    session = ended(b"same", (b"A", b" b\nInjected: yes"))
    assert session.message() is None


def apply(fields: list[Field], edits: list[tuple[bytes, int, bytes | None]], renumbers: bool) -> list[Field]:
    """A mail server's side: one renumbers namesakes after a deletion (Postfix), another does not (Sendmail)."""
    held: list[Field | None] = list(fields)
    for name, index, value in edits:
        if index == 0:
            assert value is not None
            held.append((name, value))
            continue
        places = [
            at for at, pair in enumerate(held if renumbers else fields)
            if pair is not None and pair[0].lower() == name.lower()
        ]  # fmt: skip
        old = held[places[index - 1]]
        held[places[index - 1]] = None if value is None or old is None else (old[0], value)
        if renumbers:
            held = [pair for pair in held if pair is not None]
    return [pair for pair in held if pair is not None]


NAMES = st.sampled_from([b"A", b"a", b"B", b"List-Unsubscribe"])
FIELDS = st.lists(st.tuples(NAMES, st.sampled_from([b" 1", b" 2", b" 3", b""])), max_size=8)


@given(FIELDS, FIELDS, st.booleans())
def test_edits_lead_from_any_headers_to_any_others(
    before: list[Field], after: list[Field], renumbers: bool
) -> None:
    result = apply(before, changes(before, after), renumbers)

    def values(fields: list[Field]) -> dict[bytes, list[bytes]]:
        return {key: [value for _, value in pairs] for key, pairs in by_name(fields).items()}

    assert values(result) == values(after)


@given(
    st.lists(st.tuples(NAMES, st.sampled_from([b" 1", b"", b" a\n\tb", b" a\n b\n c"])), max_size=5), st.binary()
)
def test_what_is_joined_splits_again(fields: list[Field], body: bytes) -> None:
    session = agreed()
    session.mail.fields, session.mail.body = fields, [body]
    message = session.message()
    assert message is not None
    assert split(message) == (fields, body)
