"""The message after DATA: one end only, wherever the stream is cut, and what stands behind it is kept."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.filters import receiving
from brandproxy.filters.nexthop import transparent

BITS = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r\n.", b"\r\n..", b"\n", b"\r", b"x", b"\n.\n", b"\r\n.\n"]), max_size=12
)


async def receive(*pieces: bytes, limit: int = 1000) -> tuple[bytes | None, bytes]:
    """What was taken for the message, and what the reader holds for the next command."""
    reader = asyncio.StreamReader()

    async def feed() -> None:
        for piece in pieces:
            reader.feed_data(piece)
            await asyncio.sleep(0)

    feeding = asyncio.ensure_future(feed())
    content = await receiving.message(reader, limit, lambda: None)
    await feeding
    reader.feed_eof()
    return content, await reader.read()


@given(BITS, st.lists(st.integers(1, 7), max_size=20))
async def test_what_was_made_transparent_comes_back_wherever_it_is_cut(bits: list[bytes], cuts: list[int]) -> None:
    wire = transparent(b"".join(bits))
    rest, pieces = wire + b"RSET\r\n", []
    for cut in (*cuts, len(rest)):
        pieces.append(rest[:cut])
        rest = rest[cut:]
    content, behind = await receive(*filter(None, pieces))
    assert content is not None
    assert transparent(content) == wire
    assert behind == b"RSET\r\n"


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r.\r", b"\r\n\0.\r\n"]
)
async def test_nothing_but_the_one_end_is_an_end(end: bytes) -> None:
    content, behind = await receive(b"a" + end + b"b\r\n.\r\nQUIT\r\n")
    assert content is not None
    assert content.startswith(b"a")
    assert content.endswith(b"b\r\n")
    assert behind == b"QUIT\r\n"


@pytest.mark.parametrize(
    ("wire", "content"),
    [(b".\r\n", b""), (b"\r\n.\r\n", b"\r\n"), (b"..\r\n.\r\n", b".\r\n"), (b"a\r\n..b\r\n.\r\n", b"a\r\n.b\r\n")],
)
async def test_dots_are_undone(wire: bytes, content: bytes) -> None:
    assert await receive(wire) == (content, b"")


@pytest.mark.parametrize("size", [9, 10, 11, 12, 40])
async def test_what_is_too_large_is_read_to_its_end_and_not_kept(size: int) -> None:
    text = b"x" * (size - 2) + b"\r\n"
    content, behind = await receive(text[:7], text[7:] + b".\r", b"\nNOOP\r\n", limit=10)
    assert content == (text if size <= 10 else None)
    assert behind == b"NOOP\r\n"


async def test_a_client_that_goes_away_has_sent_no_message() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"half a mail\r\n")
    reader.feed_eof()
    with pytest.raises(EOFError):
        await receiving.message(reader, 1000, lambda: None)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (b"A: b\r\r\nC: d\r\n\r\nx\r\n", b"A: b\r\nC: d\r\n\r\nx\r\n"),  # no empty line that ends the header early
        (b"A: b\rC: d\r\n\r\nx\r\n", b"A: b C: d\r\n\r\nx\r\n"),  # no header field that nobody saw
        (b"A: b\nC: d\n\nx\n", b"A: b\r\nC: d\r\n\r\nx\r\n"),
        (b"A: b\r\n\r\nx\n.\nMAIL FROM:<a@b>\r", b"A: b\r\n\r\nx\r\n..\r\nMAIL FROM:<a@b> \r\n"),
    ],
)
def test_bare_line_ends_never_reach_the_next_hop(given: bytes, sent: bytes) -> None:
    assert transparent(given) == sent + b".\r\n"
