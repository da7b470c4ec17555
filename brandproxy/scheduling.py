"""Floor 2: how the kernel's scheduler treats us (sched(7))."""

from __future__ import annotations

import os
from contextlib import suppress


def interrupt_nobody() -> None:
    """Let the calling thread wait until who runs on its core pauses (`SCHED_BATCH`); threads it starts inherit it.

    A policy or nice value that the operator chose stays.
    """
    with suppress(OSError):  # some sandboxes forbid to ask, or to choose
        if os.sched_getscheduler(0) == os.SCHED_OTHER and os.getpriority(os.PRIO_PROCESS, 0) == 0:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
