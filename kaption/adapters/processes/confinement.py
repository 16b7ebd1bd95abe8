"""Confines a decoding child before it reads hostile bytes, and hides a process with secrets from its user's other processes.

An attacker who takes over a decoder has only what its child has left: memory, CPU time, and its descriptors. With the
kernel's filter of system calls (seccomp(2), x86-64 and aarch64) the child opens no file, no socket and no process, signals
only itself and loads no code. A decoder loads everything from the file system before: a later import fails.
docs/security.md says what holds without a filter.
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import struct
from pathlib import Path
from typing import Final as Const

_PR_SET_PDEATHSIG: Const = 1
_PR_SET_DUMPABLE: Const = 4
_PR_SET_SECCOMP: Const = 22
_PR_SET_NO_NEW_PRIVS: Const = 38
_SECCOMP_MODE_FILTER: Const = 2

#: The child's user id, if this process may change users: Linux's id for files without an owner.
_NOBODY: Const = 65_534
#: CAP_KILL, CAP_SETGID, CAP_SETUID: to change a child's user, and still be able to end the child.
_POWERS: Const = 1 << 5 | 1 << 6 | 1 << 7

#: linux/audit.h: the architecture whose table numbers a system call.
_MACHINES: Const = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}
#: System calls that a decoder may use, with their numbers on x86-64 and on aarch64.
_ALLOWED: Const = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettid": (186, 178),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
}
#: Memory mappings, allowed unless executable.
_MAPPING: Const = {"mmap": (9, 222), "mprotect": (10, 226)}
_PROT_EXEC: Const = 4
#: The signal call of abort(3), allowed to the child's own process only.
_TGKILL: Const = (234, 131)

# linux/bpf_common.h, linux/seccomp.h
_INSTRUCTION_BYTES: Const = 8
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _KILL, _REFUSE = 0x7FFF_0000, 0x8000_0000, 0x0005_0000 | errno.EPERM


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def hide() -> None:
    """Hide this process's environment, memory and descriptors from its user's other processes, except root's; leave no core."""
    _prctl(_PR_SET_DUMPABLE, 0)


def filters() -> bool:
    """Whether this kernel supports a filter of system calls."""
    # Without a program: a kernel with filters looks for it (EFAULT), any other refuses before.
    return platform.machine() in _MACHINES and _try_prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER) == errno.EFAULT


def confine(memory_mb: int, cpu_seconds: int, parent: int) -> None:
    """Drop what decoding does not need, and end with ``parent``. Open descriptors stay usable.

    Raises ``OSError`` or ``ValueError`` if a limit can't be set. Without ``filters`` there is no filter.
    """
    os.setsid()
    memory = memory_mb << 20
    for limit, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (most, most))
    _become_nobody()
    hide()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which resets it
    if os.getppid() != parent:  # it ended before
        raise ProcessLookupError(errno.ESRCH, "the parent has ended")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if filters():
        program = _program(platform.machine(), os.getpid())
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _Program(len(program) // _INSTRUCTION_BYTES, program))


def _become_nobody() -> None:
    """Change to another user than the service's, if this process may, and if its parent can still end it."""
    status = Path("/proc/self/status").read_text()
    powers = int(status.partition("CapEff:")[2].split()[0], 16)
    if powers & _POWERS == _POWERS:
        with contextlib.suppress(OSError):  # a container may have only one user
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _program(machine: str, pid: int) -> bytes:
    """Build the filter. It refuses other calls with EPERM, so that a library that tries more than it needs can continue."""
    column, audit = _MACHINES[machine]

    def code(operation: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", operation, yes, no, value)

    def argument(number: int) -> bytes:
        return code(_LOAD, _ARGUMENTS_AT + 8 * number)  # its lower half: both machines are little-endian

    allow, refuse = code(_RETURN, _ALLOW), code(_RETURN, _REFUSE)
    out = [code(_LOAD, _MACHINE_AT), code(_IF_EQUAL, audit, 1), code(_RETURN, _KILL), code(_LOAD, _NUMBER_AT)]
    for numbers in _ALLOWED.values():
        out += [code(_IF_EQUAL, numbers[column], 0, 1), allow]
    for numbers in _MAPPING.values():
        out += [code(_IF_EQUAL, numbers[column], 0, 4), argument(2), code(_IF_ANY_BIT, _PROT_EXEC, 1), allow, refuse]
    out += [code(_IF_EQUAL, _TGKILL[column], 0, 4), argument(0), code(_IF_EQUAL, pid, 0, 1), allow, refuse, refuse]
    return b"".join(out)


def _prctl(option: int, value: int, program: "_Program | None" = None) -> None:
    error = _try_prctl(option, value, program)
    if error:
        raise OSError(error, os.strerror(error))


def _try_prctl(option: int, value: int, program: "_Program | None" = None) -> int:
    """Return the errno of prctl(2), 0 if it worked."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.POINTER(_Program), ctypes.c_ulong, ctypes.c_ulong)
    return ctypes.get_errno() if prctl(option, value, program and ctypes.byref(program), 0, 0) else 0
