"""Machine verdicts that need more than one event: a bounded memory of what else happened around each message.

A scanner opens every link of a mail at once, and the first of those clicks looks like a person's until the
others come. So each event is judged with its neighbours, and those before it are judged again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from brandproxy.core.machines import RULES, judge
from brandproxy.model import Event

WINDOW = 2_000_000  # microseconds before and after an event
_KEPT = 50_000  # messages remembered; the least lately seen go first
_MOST = 200  # events remembered for each; a mail hammered harder than that is decided already


class Neighbours:
    def __init__(self) -> None:
        self._around: OrderedDict[tuple[str, str, str], list[Event]] = OrderedDict()

    def judged(self, event: Event) -> list[Event]:
        """`event` with its verdict, first, then every earlier event whose verdict it has changed."""
        key = (event.tenant, event.message, event.recipient)
        if not (event.message or event.recipient):
            return [_with(event, ())]
        around = [
            e for e in self._around.pop(key, ()) if abs(e.at_us - event.at_us) <= WINDOW and e.id != event.id
        ]
        judged = _with(event, around)
        group = [*around, judged]
        again = [_with(e, [n for n in group if n is not e]) for e in around]
        changed = [new for old, new in zip(around, again, strict=True) if new.machine != old.machine]
        self._around[key] = [*again, judged][-_MOST:]
        if len(self._around) > _KEPT:
            self._around.popitem(last=False)
        return [judged, *changed]


def _with(event: Event, around: Sequence[Event]) -> Event:
    reasons = judge(event, around)
    return (
        event
        if reasons == event.machine and event.rules == RULES
        else replace(event, machine=reasons, rules=RULES)
    )
