"""Neighbours: what came before is judged again when what comes after sheds light on it."""

from __future__ import annotations

import pytest

from brandproxy.core import neighbours
from brandproxy.model import Event


def click(number: int, at_us: int, message: str = "m") -> Event:
    return Event(
        f"{number:032x}", "click", at_us, "acme", "links.acme.example", message=message, link=number, agent="x"
    )


@pytest.fixture(autouse=True)
def burst_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(event: Event, around: list[Event]) -> tuple[str, ...]:
        return ("burst",) if len({e.link for e in (event, *around)}) >= 3 else ()

    monkeypatch.setattr(neighbours, "judge", judge)


def test_the_third_link_at_once_convicts_the_two_before() -> None:
    memory = neighbours.Neighbours()
    assert [e.machine for e in memory.judged(click(1, 1_000_000))] == [()]
    assert [e.machine for e in memory.judged(click(2, 1_500_000))] == [()]
    third = memory.judged(click(3, 1_900_000))
    assert sorted((e.link, e.machine) for e in third) == [(1, ("burst",)), (2, ("burst",)), (3, ("burst",))]
    assert third[0].link == 3
    assert [e.link for e in memory.judged(click(4, 2_000_000))] == [4]


def test_slow_readers_and_other_messages_are_no_neighbours() -> None:
    memory = neighbours.Neighbours()
    for number in range(5):
        assert [e.machine for e in memory.judged(click(number, number * 3_000_000))] == [()]
        assert [e.machine for e in memory.judged(click(number, 1_000_000, f"m{number}"))] == [()]


def test_a_record_seen_twice_is_one_neighbour() -> None:
    memory = neighbours.Neighbours()
    for _ in range(5):
        assert [e.machine for e in memory.judged(click(1, 1_000_000))] == [()]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_KEPT", 10)
    monkeypatch.setattr(neighbours, "_MOST", 5)
    memory = neighbours.Neighbours()
    for number in range(100):
        memory.judged(click(number, 1_000_000 + number, f"m{number}"))
        memory.judged(click(number, 1_000_000 + number, "m99"))
    assert len(memory._around) <= 10
    assert max(map(len, memory._around.values())) <= 5
