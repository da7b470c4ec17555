"""The rule of who has a name."""

from __future__ import annotations

import pytest

from brandproxy.core.claims import Standing, gives_way, standing
from brandproxy.model import Host, HostState


def test_a_name_is_taken_from_nobody_who_proved_it_and_whose_record_is_there() -> None:
    assert gives_way(None)
    assert gives_way(Standing(proven=False))
    assert gives_way(Standing(proven=False, fixed=True))  # a suspended claim keeps nobody out either
    assert not gives_way(Standing(proven=True))
    assert gives_way(Standing(proven=True, gone=True))
    assert not gives_way(Standing(proven=True, gone=True, fixed=True))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (Host("a.example", "a", "t", HostState.PENDING, proven_at=0), True),
        (Host("a.example", "a", "t", HostState.SUSPENDED, proven_at=0), True),
        (Host("a.example", "a", "t", HostState.BROKEN, proven_at=0), True),
        (Host("a.example", "a", "t", HostState.BROKEN, proven_at=5), True),
        (Host("a.example", "a", "t", HostState.BROKEN, proven_at=5, accepted="ours"), False),
        (Host("a.example", "a", "t", HostState.VERIFIED, proven_at=5), False),
        (Host("a.example", "a", "t", HostState.LIVE, proven_at=5), False),
        (Host("a.example", "a", "t", HostState.SUSPENDED, proven_at=5), False),
        (Host("a.example", "a", "t", HostState.LIVE), False),  # a record from before `proven_at`
    ],
)
def test_what_a_hosts_state_says_of_its_hold(host: Host, expected: bool) -> None:
    assert gives_way(standing(host)) is expected
