"""What a decoding child gives up before it looks at hostile bytes, and what a process with secrets hides from its user's others.

Whoever takes over a decoder has what its child has left: memory, processor time, and the descriptors it was given. With
the kernel's filter of system calls (seccomp(2), x86-64 and aarch64) it opens no file, no socket and no process, signals
nobody but itself and brings no code of its own. Everything a decoder needs of the file system is loaded before: a module
that is imported later is not found. docs/security.md says what holds where there is no filter.
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

#: Who a child is where this process may become somebody else: Linux's user of files that belong to nobody.
_NOBODY: Const = 65_534
#: CAP_KILL, CAP_SETGID, CAP_SETUID: become somebody else, and still be able to end who has become it.
_POWERS: Const = 1 << 5 | 1 << 6 | 1 << 7

#: linux/audit.h: which table of numbers a system call is meant in.
_MACHINES: Const = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}
#: What a decoder may call, with its numbers on x86-64 and on aarch64.
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
#: Memory: allowed unless it is to hold code.
_MAPPING: Const = {"mmap": (9, 222), "mprotect": (10, 226)}
_PROT_EXEC: Const = 4
#: A signal, which abort(3) sends to its own process: allowed to that one.
_TGKILL: Const = (234, 131)

# linux/bpf_common.h, linux/seccomp.h
_INSTRUCTION_BYTES: Const = 8
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _KILL, _REFUSE = 0x7FFF_0000, 0x8000_0000, 0x0005_0000 | errno.EPERM


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def hide() -> None:
    """Let no other process of this user read this one's environment, memory and descriptors; root may. It leaves no core file either."""
    _prctl(_PR_SET_DUMPABLE, 0)


def filters() -> bool:
    """Whether the kernel takes a filter of system calls here."""
    # Asked with no program: one that takes filters looks for it (EFAULT), any other refuses before.
    return platform.machine() in _MACHINES and _try_prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER) == errno.EFAULT


def confine(memory_mb: int, cpu_seconds: int, parent: int) -> None:
    """Give up what decoding does not need, and end with ``parent``. Descriptors that are open stay usable.

    Raises ``OSError`` or ``ValueError`` where a limit can't be set. Without ``filters`` there is no filter.
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
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # behind the change of user, which forgets it
    if os.getppid() != parent:  # it ended before
        raise ProcessLookupError(errno.ESRCH, "the parent has ended")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if filters():
        program = _program(platform.machine(), os.getpid())
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _Program(len(program) // _INSTRUCTION_BYTES, program))


def _become_nobody() -> None:
    """Another user than the service's, where this process has the power to, and would keep that to end it."""
    status = Path("/proc/self/status").read_text()
    powers = int(status.partition("CapEff:")[2].split()[0], 16)
    if powers & _POWERS == _POWERS:
        with contextlib.suppress(OSError):  # a container may know of one user only
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _program(machine: str, pid: int) -> bytes:
    """The filter: what is not allowed is refused (EPERM), so that a library that asks for more than it needs goes on without."""
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
    """The errno of prctl(2), 0 where it worked."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.POINTER(_Program), ctypes.c_ulong, ctypes.c_ulong)
    return ctypes.get_errno() if prctl(option, value, program and ctypes.byref(program), 0, 0) else 0
