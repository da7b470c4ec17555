"""Names typed by people, and ids that sort by time."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.ids import uuid7
from brandproxy.core.names import hostname, slug
from brandproxy.errors import BadInput


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [("Links.ACME.com.", "links.acme.com"), ("links.bücher.example", "links.xn--bcher-kva.example")],
)
def test_a_host_name_becomes_lower_case_a_labels(given_name: str, kept: str) -> None:
    assert hostname(given_name) == kept


@pytest.mark.parametrize(
    "name",
    ["", "localhost", "a..b", "-a.com", "a-.com", "a b.com", "1.2.3.4", "../etc/passwd.com", "a/b.com",
     "x" * 64 + ".com", ".".join(["a" * 60] * 5), "*.acme.com", "a\x00.com"],
)  # fmt: skip
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        hostname(name)


@pytest.mark.parametrize("name", ["", "Acme", "a/b", "-a", "a-", "a" * 64, "a.b", "ä", "a\n"])
def test_a_slug_is_a_plain_short_name(name: str) -> None:
    with pytest.raises(BadInput):
        slug(name)


@given(st.text(max_size=80))
def test_no_text_crashes_the_host_check(text: str) -> None:
    try:
        assert hostname(hostname(text)) == hostname(text)
    except BadInput:
        pass


def test_ids_are_uuid7_and_sort_by_their_time() -> None:
    early, late = uuid7(1_764_000_000_000), uuid7(1_764_000_000_001)
    assert early < late
    assert uuid.UUID(early).version == 7
    assert uuid.UUID(early).variant == uuid.RFC_4122
    assert len({uuid7(1) for _ in range(1000)}) == 1000
