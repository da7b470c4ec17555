"""Floor 3: processes that must not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with(parent: int, signum: int) -> bool:
    """Have the kernel send us `signum` when our parent dies, however it dies.

    False when it is dead already: it may have died before the kernel knew. The caller then ends by itself.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
    return os.getppid() == parent
