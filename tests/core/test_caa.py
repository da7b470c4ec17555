"""CAA as RFC 8659 and RFC 8657 have it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.caa import Caa, Issuer, allows, climb

US = Issuer(("ca.example", "ca.test"), "https://ca.example/acct/1", "http-01")


@pytest.mark.parametrize(
    ("records", "wildcard", "allowed"),
    [
        ([], False, True),
        ([(0, "issue", "ca.example")], False, True),
        ([(0, "ISSUE", " CA.Example ; ")], False, True),
        ([(0, "issue", "ca.test")], False, True),
        ([(0, "issue", "other.example")], False, False),
        ([(0, "issue", "other.example"), (0, "issue", "ca.example")], False, True),
        ([(0, "issue", ";")], False, False),
        ([(0, "issue", "")], False, False),
        ([(0, "iodef", "mailto:a@b.example")], False, True),
        ([(0, "issuewild", "other.example")], False, True),  # says nothing about plain names (§4.3)
        ([(0, "issuewild", "other.example")], True, False),
        ([(0, "issue", "ca.example"), (0, "issuewild", ";")], True, False),
        ([(0, "issue", "ca.example")], True, True),
        ([(128, "future", "x"), (0, "issue", "ca.example")], False, False),  # unknown and critical (§4.1)
        ([(0, "future", "x"), (0, "issue", "ca.example")], False, True),
        ([(128, "issue", "ca.example")], False, True),
        ([(0, "issue", "ca.example; accounturi=https://ca.example/acct/1")], False, True),
        ([(0, "issue", "ca.example; accounturi=https://ca.example/acct/2")], False, False),
        ([(0, "issue", "ca.example; validationmethods=dns-01")], False, False),
        ([(0, "issue", "ca.example; validationmethods=dns-01,http-01")], False, True),
        ([(0, "issue", "ca.example; validationmethods=http-01 ; policy=ev")], False, True),
        ([(0, "issue", "ca.example; %%%%")], False, False),  # cannot be read: fits nobody (§4.2)
    ],
)
def test_a_set_allows_whom_it_names(records: list[tuple[int, str, str]], wildcard: bool, allowed: bool) -> None:
    assert allows([Caa(*record) for record in records], US, wildcard) is allowed


def test_the_tree_is_climbed_from_the_name_to_the_top() -> None:
    assert climb("*.a.b.example") == ["a.b.example", "b.example", "example"]


@given(st.lists(st.tuples(st.integers(0, 255), st.text(max_size=12), st.text(max_size=40)), max_size=5))
def test_hostile_records_never_crash(records: list[tuple[int, str, str]]) -> None:
    allows([Caa(*record) for record in records], US, wildcard=True)
