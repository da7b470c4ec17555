"""Machine rules: each reason has a case that holds and a person who must not be caught by it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core import machines
from brandproxy.core.networks import Networks
from brandproxy.errors import BadInput
from brandproxy.model import Event

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile"
SENT = 1_790_000_000
PERSON = Event(
    "0" * 32, "click", (SENT + 600) * 1_000_000, "acme", "links.acme.example",
    message="m", link=1, sent_at=SENT, agent=CHROME,
)  # fmt: skip


def later(micros: int, link: int, **changes: object) -> Event:
    return replace(PERSON, at_us=PERSON.at_us + micros, link=link, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("agent", [CHROME, IPHONE, "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15"])
@pytest.mark.parametrize("kind", ["click", "open", "unsubscribe"])
def test_people_are_taken_for_people(agent: str, kind: str) -> None:
    assert machines.judge(replace(PERSON, agent=agent, kind=kind), ()) == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "HEAD"}, "head"),
        ({"machine": ("prefetch",)}, "prefetch"),
        ({"machine": ("data-centre",)}, "data-centre"),
        ({"agent": ""}, "no-agent"),
        ({"agent": "  "}, "no-agent"),
        ({"kind": "open", "agent": "Mozilla/5.0"}, "apple-mpp"),
        ({"kind": "open", "agent": "Mozilla/5.0 (via ggpht.com GoogleImageProxy)"}, "image-proxy"),
        ({"kind": "open", "agent": "YahooMailProxy; https://help.yahoo.com/kb/x"}, "image-proxy"),
        ({"agent": "curl/8.1"}, "agent"),
        ({"agent": "python-requests/2.31"}, "agent"),
        ({"agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}, "agent"),
        ({"agent": "Barracuda Sentinel (EE)"}, "agent"),
        ({"at_us": (SENT + 4) * 1_000_000}, "too-soon"),
        ({"at_us": (SENT - 30) * 1_000_000}, "too-soon"),  # clocks differ; nobody clicks before sending
        ({"kind": "open", "at_us": (SENT + 1) * 1_000_000}, "too-soon"),
    ],
)
def test_each_reason_is_found(changes: dict[str, object], reason: str) -> None:
    assert machines.judge(replace(PERSON, **changes), ()) == (reason,)  # type: ignore[arg-type]


def test_a_mail_without_a_sending_time_is_never_too_soon() -> None:
    assert machines.judge(replace(PERSON, sent_at=0, at_us=5), ()) == ()


def test_three_links_within_two_seconds_or_two_at_once_are_a_burst() -> None:
    assert machines.judge(PERSON, [later(-900_000, 2), later(-1_900_000, 3)]) == ("burst",)
    assert machines.judge(PERSON, [later(400_000, 2)]) == ("burst",)
    assert machines.judge(PERSON, [later(-900_000, 2)]) == ()
    assert machines.judge(PERSON, [later(-900_000, 2), later(-2_500_000, 3)]) == ()
    assert machines.judge(PERSON, [later(-100_000, 1), later(-200_000, 1)]) == ()  # a double click
    assert machines.judge(PERSON, [later(-100_000, 0, kind="open")]) == ()  # pictures load, then a click


def test_what_only_the_edge_saw_survives_reclassifying() -> None:
    event = replace(PERSON, machine=("prefetch", "burst"), rules=1)
    assert machines.judge(event, ()) == ("prefetch",)


@given(st.text(max_size=600), st.sampled_from(["click", "open", "unsubscribe"]))
def test_no_agent_breaks_the_rules(agent: str, kind: str) -> None:
    machines.judge(replace(PERSON, agent=agent, kind=kind), ())


def test_networks_tell_members_from_others() -> None:
    networks = Networks(["# clouds", "", "198.51.100.0/24  # one", "203.0.113.7/32", "2001:db8::/32"])
    for inside in ("198.51.100.255", "203.0.113.7", "2001:db8:ffff::1"):
        assert inside in networks
    for outside in ("198.51.101.0", "203.0.113.8", "2001:db9::1", "", "nonsense"):
        assert outside not in networks
    with pytest.raises(BadInput, match="line 2"):
        Networks(["10.0.0.0/8", "10.0.0.1/8"])
