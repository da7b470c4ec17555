"""When certificates are ordered, and never too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.sim_renewal import Case, simulate
from brandproxy.core.renewal import (
    DAY,
    HOUR,
    Candidate,
    Limit,
    Window,
    ari_id,
    backoff,
    for_new,
    free_at,
    ordered,
    renew_at,
)


def test_ari_id_is_the_one_of_the_standard() -> None:
    # RFC 9773 §4.1
    key = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
    assert ari_id(key, 0x87654321) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


@given(st.integers(1, 10_000_000), st.floats(0, 0.999))
def test_without_a_window_a_third_of_the_lifetime_is_left_a_half_of_a_short_one(length: int, luck: float) -> None:
    left = (length - renew_at(0, length, None, luck)) / length
    least = 1 / 2 if length < 10 * DAY else 1 / 3
    assert least - 1e-6 <= left <= least + 0.05 + 1 / length


@given(st.integers(0, 10**9), st.integers(1, 10**7), st.floats(0, 0.999))
def test_the_cas_window_is_kept(start: int, length: int, luck: float) -> None:
    chosen = renew_at(-(10**8), 10**9, Window(start, start + length), luck)
    assert start <= chosen <= start + length


def test_a_window_that_is_always_over_does_not_renew_what_was_just_issued() -> None:
    assert renew_at(0, 45 * DAY, Window(-DAY, -HOUR), 0.5) == HOUR + 45 * DAY // 100
    assert renew_at(0, 160 * HOUR, Window(-DAY, 1), 0.5) == HOUR + 160 * HOUR // 100


@given(st.lists(st.integers(0, 100_000), max_size=60), st.integers(1, 20), st.integers(1, 10_000))
def test_no_window_ever_holds_more_than_the_limit(asked: list[int], count: int, seconds: int) -> None:
    limit, taken = Limit(count, seconds), []
    for at in sorted(asked):
        if free_at(taken, limit, at) == at:
            taken.append(float(at))
    for begin in taken:
        assert sum(begin <= at < begin + seconds for at in taken) <= count


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.integers(1, 5))
def test_the_promised_time_is_the_first_at_which_one_fits(taken: list[int], count: int) -> None:
    limit, now = Limit(count, 100), 1000
    free = free_at(taken, limit, now)
    assert free_at(taken, limit, free) == free
    assert free == now or free_at(taken, limit, free - 1) == free


def test_expiring_come_before_new_and_new_ones_leave_room() -> None:
    new, soon, later = Candidate("n", 0, 1), Candidate("s", 10, 9), Candidate("l", 20, 0)
    assert ordered([new, later, soon]) == [soon, later, new]
    assert for_new(Limit(300, HOUR)).count == 225


def test_back_off_grows_but_never_eats_what_is_left() -> None:
    assert [backoff(n) for n in range(1, 6)] == [60, 600, 6000, DAY, DAY]
    assert backoff(9, left=DAY) == DAY // 20
    assert backoff(9, left=-5) == 600


@pytest.mark.parametrize(("lifetime", "ari"), [(90 * DAY, False), (45 * DAY, True), (160 * HOUR, True)])
def test_nothing_expires_in_400_days_while_the_ca_is_up_on_99_percent_of_them(lifetime: int, ari: bool) -> None:
    outcome = simulate(Case("small", 300, lifetime, ari))
    assert outcome.expired == 0
    assert outcome.most <= 300
    assert outcome.orders > 300 * 400 * DAY / lifetime
