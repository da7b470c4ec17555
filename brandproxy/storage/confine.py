"""Runs a program that reads hostile input where it can do nothing but compute.

    python -I confine.py PROGRAM ARGUMENT…

PROGRAM is a Python file with two functions: `prepare()` imports and opens whatever is needed, then the process is
confined, then `main(arguments)` reads standard input, writes standard output and returns the exit code. There are
several layers, since kernels and containers lack one or the other:

1. root becomes nobody; no privilege can be gained any more (no_new_privs)
2. limits: memory, CPU time, no further process, file descriptor, file or core dump
3. Landlock: no file, no TCP port, no signal and no abstract socket outside (as far as the kernel's version goes)
4. seccomp: only the system calls below; the others fail with EPERM: no file is opened, no socket made, nothing run

What is missing is said on standard error, a line each. The caller starts it with an empty environment and no open
files. It imports nothing of ours: it has to start fast, and in an interpreter without our path.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import platform
import resource
import struct
import sys
from types import ModuleType

MEMORY, CPU_SECONDS = 1 << 30, 20
_NOBODY = 65534
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same numbers on all architectures
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF

# read write close fstat lseek mmap mprotect munmap brk mremap madvise rt_sigaction rt_sigprocmask rt_sigreturn
# sigaltstack getpid gettid sched_yield sched_getaffinity futex clock_gettime clock_nanosleep restart_syscall
# getrandom exit exit_group
_CALLS = {
    "x86_64": (0xC000003E, (0, 1, 3, 5, 8, 9, 10, 11, 12, 25, 28, 13, 14, 15, 131, 39, 186, 24, 204, 202, 228, 230,
                            219, 318, 60, 231)),
    "aarch64": (0xC00000B7, (63, 64, 57, 80, 62, 222, 226, 215, 214, 216, 233, 134, 135, 139, 132, 172, 178, 124,
                             123, 98, 113, 115, 128, 278, 93, 94)),
}  # fmt: skip


def confine() -> list[str]:
    """Confine this process for good; what could not be done. Raises OSError when root cannot become nobody."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    os.chdir("/")
    libc = ctypes.CDLL(None, use_errno=True)
    missing = []
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        missing.append("no_new_privs: " + os.strerror(ctypes.get_errno()))
    missing += _landlock(libc)
    _limit()
    return missing + _seccomp(libc)


def _limit() -> None:
    limits = (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, most in limits:
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _landlock(libc: ctypes.CDLL) -> list[str]:
    """Every right that the kernel's version knows is handled, and no rule gives one back."""
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return ["Landlock: " + os.strerror(ctypes.get_errno())]
    files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    rights = struct.pack("QQQ", files, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = libc.syscall(_LANDLOCK_CREATE, rights, len(rights), 0)
    if ruleset < 0 or libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0):
        return ["Landlock: " + os.strerror(ctypes.get_errno())]
    os.close(ruleset)
    return []


def _seccomp(libc: ctypes.CDLL) -> list[str]:
    machine = platform.machine()
    if machine not in _CALLS:
        return [f"seccomp: no list of system calls for {machine}"]
    architecture, calls = _CALLS[machine]
    # struct seccomp_data: the call's number at 0, the architecture at 4. Another architecture's numbers mean other
    # calls, and x32's have bit 30 set, so that none of them is on the list.
    steps = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    steps += [(_IF_EQUAL, len(calls) - at, 0, call) for at, call in enumerate(calls)]
    steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0):
        return ["seccomp: " + os.strerror(ctypes.get_errno())]
    return []


def _loaded(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def main() -> int:
    program = _loaded(sys.argv[1])
    program.prepare()
    for missing in confine():
        sys.stderr.write(missing + "\n")
    sys.stderr.flush()
    return int(program.main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
