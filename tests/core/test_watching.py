"""States move on agreeing observations only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.records import Verdict
from brandproxy.core.watching import DOWN, UP, Pace, Watch, moved, next_look, observe
from brandproxy.model import HostState

VERDICTS = st.lists(st.sampled_from(Verdict), max_size=40)


@given(VERDICTS, st.booleans())
def test_no_state_moves_without_enough_agreeing_votes(verdicts: list[Verdict], certified: bool) -> None:
    state, watch, votes = HostState.PENDING, Watch(), []
    for verdict in verdicts:
        watch = observe(watch, verdict, 1.0)
        votes += [verdict] if verdict is not Verdict.UNKNOWN else []
        after = moved(state, watch, certified)
        if after is not state:
            up = after in (HostState.VERIFIED, HostState.LIVE)
            needed = [Verdict.PROVEN] * UP if up else [Verdict.ABSENT] * DOWN
            assert votes[-len(needed) :] == needed
            assert (after is HostState.LIVE) == (up and certified)
        state = after


@given(VERDICTS)
def test_a_suspended_host_never_moves_by_itself(verdicts: list[Verdict]) -> None:
    watch = Watch()
    for verdict in verdicts:
        watch = observe(watch, verdict, 1.0)
        assert moved(HostState.SUSPENDED, watch, True) is HostState.SUSPENDED


@given(st.sampled_from(HostState), st.floats(0, 1e7), st.floats(0, 0.999))
def test_looks_come_neither_at_once_nor_too_late(state: HostState, age: float, luck: float) -> None:
    wait = next_look(state, 0.0, Watch(), age, Pace(15, 3600), luck) - age
    assert 0.8 * 15 - 1e-3 <= wait <= 1.2 * 6 * 3600 + 1e-3


def test_a_change_is_confirmed_quickly_and_a_forgotten_host_is_looked_at_ever_slower() -> None:
    pace, absent = Pace(15, 3600), Watch(Verdict.ABSENT, 1)
    assert next_look(HostState.LIVE, 0, absent, 1000, pace, 0.5) - 1000 == 60
    assert next_look(HostState.LIVE, 0, Watch(Verdict.PROVEN, 9), 1000, pace, 0.5) - 1000 == 3600
    assert next_look(HostState.PENDING, 0, Watch(Verdict.PROVEN, 1), 1000, pace, 0.5) - 1000 == 1
    assert next_look(HostState.PENDING, 0, absent, 86400, pace, 0.5) - 86400 == 8640
