"""What a look found: kept under `watch/<host>`, shown by the command line, the API and the page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from brandproxy.core.alignment import Alignment, by_hand, leads
from brandproxy.core.records import Finding, Observation, Verdict, Wanted
from brandproxy.core.senders import Sending
from brandproxy.core.watching import Watch
from brandproxy.model import Host


@dataclass(frozen=True, slots=True)
class Line:
    """A wanted record beside what was seen. `state`: right, wrong, missing, unknown (DNS did not answer)."""

    wanted: Wanted
    seen: tuple[str, ...]
    state: str


@dataclass(frozen=True, slots=True)
class Report:
    """The last look. `watch.next_at` is when the next one is due; `claimed`: a node is at it until then."""

    watch: Watch = field(default_factory=Watch)
    lines: tuple[Line, ...] = ()
    findings: tuple[Finding, ...] = ()
    alignment: tuple[Alignment, ...] = ()
    claimed: bool = False
    target: str = ""  # of the host that was looked at

    def votes(self, host: Host) -> Watch:
        """What counts of it: nothing from before the host changed hands or state."""
        same = self.target == host.target and self.watch.checked_at >= host.since
        return self.watch if same else Watch(next_at=self.watch.next_at)

    @property
    def fatal(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.fatal)

    def due(self, at: float) -> Report:
        return replace(self, watch=replace(self.watch, next_at=at), claimed=False)

    def claim(self, until: float) -> Report:
        return replace(self, watch=replace(self.watch, next_at=until), claimed=True)


_REPORT = TypeAdapter(Report)


def dump(report: Report) -> bytes:
    return _REPORT.dump_json(report)


def load(value: bytes) -> Report:
    """A report as stored; one that cannot be read is as if there had been no look yet."""
    try:
        found = _REPORT.validate_json(value)
    except ValueError:
        return Report()
    return found if all(0 <= at <= 1e11 for at in (found.watch.next_at, found.watch.checked_at)) else Report()


def lines(
    wanted: list[Wanted], seen: Observation, verdict: Verdict, sending: Sending | None = None
) -> tuple[Line, ...]:
    return tuple(_line(record, seen, verdict, sending) for record in wanted)


def _line(record: Wanted, seen: Observation, verdict: Verdict, sending: Sending | None) -> Line:
    if not record.needed:
        answer = seen.mail.get((record.type, record.name))
    elif record.type == "NS":
        answer = seen.delegation
    elif record.type == "TXT":
        answer = seen.txt
    else:
        answer = seen.cname
    values = answer.values if answer else ()
    if record.type in ("CNAME", "ALIAS") and record.needed:
        values = values or (*seen.a.values, *seen.aaaa.values)
        right = verdict is Verdict.PROVEN
    else:
        right = record.value in values or leads(record, seen)
    if right:
        return Line(record, values, "right")
    if own := by_hand(record, seen, sending):
        return Line(record, own, "right")
    if answer is None or answer.status == "failed":
        return Line(record, values, "unknown")
    return Line(record, values, "wrong" if values else "missing")
