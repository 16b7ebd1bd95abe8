"""Starts and ends an agent's decoding children through a forking process (``forks``). It never trusts what a child says.

Calls block: use a thread.
"""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final as Const

from kaption.adapters.media.job import MESSAGE_BYTES, Job
from kaption_schemas.errors import ProcessError

#: Wall seconds that the forking process may take to start a child, its own start included, or to report a child's end.
_FORK_SECONDS: Const = 60.0


@dataclass(slots=True)
class Child:
    """A decoding child: its process id, a pidfd, and the socket that reports its end."""

    pid: int
    pidfd: int
    ends: socket.socket
    _code: int | None = field(default=None, init=False)

    def kill(self) -> None:
        """End it, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def end(self) -> int:
        """End it and return its exit status, negative for a signal; the status may be from an earlier end.

        Raises ``ProcessError`` if the forking process ended first and took the child with it.
        """
        if self._code is None:
            self.kill()
            try:
                told = self.ends.recv(MESSAGE_BYTES)
            except OSError as error:
                raise ProcessError("the process that forks decoding children does not answer") from error
            if not told:
                raise ProcessError("the process that forks decoding children has ended")
            self._code = int(told)
        return self._code

    def close(self) -> None:
        """End it and release its descriptors."""
        with contextlib.suppress(ProcessError):
            self.end()
        self.ends.close()
        os.close(self.pidfd)


class Children:
    """Starts children of one kind. It starts the forking process with the first child, and again when it has ended.

    Safe to use from several threads. After a child crashed (``forks``), the forking process only keeps the children that it
    has, and another one is started.
    """

    def __init__(self, program: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """``program`` are Python's arguments; the forking process inherits only ``environment``."""
        self._program, self._environment = tuple(program), dict(environment or {})
        self._lock = threading.Lock()
        self._forks: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._left: list[tuple[subprocess.Popen[bytes], socket.socket]] = []
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process id of the forking process; None if none runs."""
        with self._lock:
            return None if self._forks is None else self._forks[0].pid

    def start(self, job: Job, given: Sequence[int]) -> Child:
        """Start a confined child for ``job`` with its own copies of ``given``: the first to read, others to write.

        Raises ``ProcessError`` or ``OSError`` if none can be started.
        """
        with self._lock:
            if self._closed:
                raise ProcessError("nothing is decoded any more")
            for _ in range(2):  # the forking process may have ended since the last child
                child = self._fork(job, given)
                if child is not None:
                    return child
        raise ProcessError(
            "the process that forks decoding children ends at once, or does not answer; are PyAV and soundfile installed?"
        )

    def close(self) -> None:
        """End the forking process and any children left."""
        with self._lock:
            self._closed = True
            self._leave()
            for process, ours in self._left:
                ours.close()
                process.kill()
                process.wait()
            self._left = []

    def _fork(self, job: Job, given: Sequence[int]) -> Child | None:
        """Fork a child; None if the forking process forks no more, or does not answer."""
        requests = self._running()
        ends, tells = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo:
            undo.enter_context(ends)
            try:
                with tells:
                    socket.send_fds(requests, [job.write()], [*given, tells.fileno()])
                ends.settimeout(_FORK_SECONDS)
                told, pidfds, _, _ = socket.recv_fds(ends, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                self._leave()
                self._left[-1][0].kill()
                return None
            if not told:
                self._leave()
                return None
            if not pidfds:  # none was made, or this process has no descriptor left
                raise ProcessError(f"no decoding child can be started: {os.strerror(int(told) or errno.EMFILE)}")
            undo.pop_all()
            return Child(int(told), pidfds[0], ends)

    def _running(self) -> socket.socket:
        """Return the socket of the forking process; start it unless it runs."""
        if self._forks is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            argv = [sys.executable, "-I", *self._program]
            nothing = subprocess.DEVNULL
            with theirs:
                try:
                    process = subprocess.Popen(
                        argv, stdin=theirs.fileno(), stdout=nothing, stderr=nothing, env=self._environment, cwd="/"
                    )
                except OSError:
                    ours.close()
                    raise
            self._forks = process, ours
        return self._forks[1]

    def _leave(self) -> None:
        """Stop using this forking process. It has ended, or ends with its last child or with this process."""
        for process, ours in [left for left in self._left if left[0].poll() is not None]:
            ours.close()
            self._left.remove((process, ours))
        if self._forks is not None:
            self._left.append(self._forks)
            self._forks = None
