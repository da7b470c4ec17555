"""Who has a name that any number of tenants may claim: host names, sending domains, delegated zones. Pure.

1. a claim keeps nobody out: only a proof gives a name, and the first one does
2. who has proven a name keeps it while its record is there, and while nobody can tell (DNS away is no vote)
3. when its record is gone, by looks that agree, another claim's proof takes the name: its owner has spoken
4. the operator's word (accepted, suspended) outweighs every record; only the operator takes it back
5. who takes a name starts a tenure; who lost it goes on with a claim, to be proven anew
"""

from __future__ import annotations

from dataclasses import dataclass

from brandproxy.model import Host, HostState


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands to a name it holds. `proven`: in this tenure. `gone`: its record was looked for and was
    not there, often enough. `fixed`: by the operator's word."""

    proven: bool = False
    gone: bool = False
    fixed: bool = False


def gives_way(holder: Standing | None) -> bool:
    """Whether another tenant's proof takes the name from its present holder (None: nobody holds it)."""
    return holder is None or not holder.proven or (holder.gone and not holder.fixed)


def standing(host: Host) -> Standing:
    fixed = bool(host.accepted) or host.state is HostState.SUSPENDED
    return Standing(host.proven, host.state is HostState.BROKEN, fixed)
