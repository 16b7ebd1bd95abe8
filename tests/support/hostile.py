"""Forks children as ``file_forks`` and ``frame_child`` do, whose decoder was taken over: ``python -I hostile.py WHAT [ARGUMENT...]``."""

import contextlib
import ctypes
import errno
import json
import mmap
import os
import platform
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO

from kaption.adapters.media.forks import main
from kaption.adapters.media.job import FRAME_ANSWERED, Job

AGENT = os.getppid()
FORKS = os.getpid()
LIBC = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"


def _call(x86: int, arm: int, *arguments: int) -> None:
    if LIBC.syscall(arm if ARM else x86, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def attempts(file: str, port: int) -> dict[str, Callable[[], object]]:
    """What a decoder never does, by name."""
    return {
        "read a file": lambda: os.open(file, os.O_RDONLY),
        "remove a file": lambda: os.unlink(file),
        "look for a file": lambda: os.stat(file),
        "run a program": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),  # noqa: S606
        "read the agent's environment": lambda: os.open(f"/proc/{AGENT}/environ", os.O_RDONLY),
        "read the agent's memory": lambda: os.open(f"/proc/{AGENT}/mem", os.O_RDONLY),
        "read its parent's memory": lambda: os.open(f"/proc/{FORKS}/mem", os.O_RDONLY),
        "trace the agent": lambda: _call(101, 117, 16, AGENT, 0, 0),
        "read memory across": lambda: _call(310, 270, AGENT, 0, 0, 0, 0, 0),
        "connect": lambda: socket.socket().connect(("127.0.0.1", port)),
        "make a socket": lambda: socket.socket(socket.AF_UNIX),
        "fork": _fork,
        "start a thread": lambda: threading.Thread(target=lambda: None).start(),
        "signal the agent": lambda: os.kill(AGENT, 0),
        "signal its parent": lambda: os.kill(FORKS, 0),
        "signal the agent's thread": lambda: _call(234, 131, AGENT, AGENT, 0),
        "signal every process": lambda: os.kill(-1, 0),
        "hold another process": lambda: os.pidfd_open(AGENT),
        "map code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "look at its limits": lambda: _call(302, 261, 0, 7, 0, 0),
        "call another table": lambda: _call(0x40000000 + 57, 1079),
        "queue system calls": lambda: _call(425, 425, 1, 0),
        "look into its own files": lambda: os.listdir("/proc/self/fd"),
    }


def _result(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except RuntimeError as error:  # a thread
        return str(error)
    return "done"


def _say(status: BinaryIO, line: object) -> None:
    status.write(json.dumps(line).encode() + b"\n")
    status.flush()


def try_everything(files: Sequence[BinaryIO], _: Job) -> None:
    """Answer what came of each attempt, as if it were PCM."""
    out, status = files[1:]
    results = {name: _result(attempt) for name, attempt in attempts(sys.argv[2], int(sys.argv[3])).items()}
    body = json.dumps(results).encode()
    body += b" " * (len(body) % 2)
    _say(status, {"rate": 8000, "channels": 1})
    out.write(body)
    out.flush()
    _say(status, {"samples": len(body) // 2})
    os._exit(0)


def say_this(files: Sequence[BinaryIO], _: Job) -> None:
    """Say the first argument as a status, give the second's number of bytes, say the third and end with the fourth as status."""
    out, status = files[1:]
    first, count, last, code = sys.argv[2:6]
    status.write(first.encode() + b"\n")
    status.flush()
    with contextlib.suppress(BrokenPipeError):
        for at in range(0, int(count), 1 << 16):
            out.write(bytes(min(1 << 16, int(count) - at)))
        out.flush()
    status.write(last.encode() + b"\n" * bool(last))
    status.flush()
    os._exit(int(code))


def frames(files: Sequence[BinaryIO], _: Job) -> None:
    """Answer each frame, or not, as its bytes behind the container's mark say."""
    requests, answers = files
    while head := requests.read(4):
        body = requests.read(*struct.unpack(">I", head))
        what = body[4:]
        if what == b"spin":
            while True:
                pass
        if what in (b"wait", b"wait at %d" % FORKS):
            requests.read(1)
        if what == b"fall":
            os.abort()
        if what == b"long":
            answers.write(FRAME_ANSWERED.pack(0xFFFF_FFF0, 16_000, 1) + bytes(1 << 20))
        elif what == b"odd":
            answers.write(FRAME_ANSWERED.pack(3, 16_000, 1) + bytes(3))
        elif what == b"lies":
            answers.write(FRAME_ANSWERED.pack(2, 4_000_000_000, 9_000) + bytes(2))
        elif what == b"drip":
            answers.write(FRAME_ANSWERED.pack(100_000, 16_000, 1))
            while True:
                answers.write(b"\0")
                answers.flush()
                sum(range(200_000))
        else:
            answers.write(FRAME_ANSWERED.pack(2, 16_000, 1) + struct.pack("<H", os.getpid() % 65_536))
        answers.flush()


if __name__ == "__main__":
    main({"try": try_everything, "say": say_this, "frames": frames}[sys.argv[1]])
