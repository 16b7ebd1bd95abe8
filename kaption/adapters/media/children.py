"""Decoding children as their agent sees them: started by a process that forks them (``forks``), ended, and never believed.

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

#: Wall seconds that what forks the children may take to start one, its own start included, or to tell of one's end.
_FORK_SECONDS: Const = 60.0


class ChildError(Exception):
    """A decoding child can't be started, or was lost: this machine's fault, not the file's."""


@dataclass(slots=True)
class Child:
    """A decoding child: its process id, a descriptor of it, and the socket that tells of its end."""

    pid: int
    pidfd: int
    ends: socket.socket
    _code: int | None = field(default=None, init=False)

    def kill(self) -> None:
        """End it, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def end(self) -> int:
        """End it, and say with what status it ended: this, or what it was ending with already; negative for a signal.

        ``ChildError`` where what forked it ended first, and took it along.
        """
        if self._code is None:
            self.kill()
            try:
                told = self.ends.recv(MESSAGE_BYTES)
            except OSError as error:
                raise ChildError("the process that forks decoding children does not answer") from error
            if not told:
                raise ChildError("the process that forks decoding children has ended")
            self._code = int(told)
        return self._code

    def close(self) -> None:
        """End it, and let go of it."""
        with contextlib.suppress(ChildError):
            self.end()
        self.ends.close()
        os.close(self.pidfd)


class Children:
    """Starts children of one kind. What forks them is started with the first, and anew when it has ended.

    Safe to use from several threads. After a crash (``forks``) it is left to the children that it has, and another is started.
    """

    def __init__(self, program: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """``program`` are Python's arguments; no more than ``environment`` is in what it inherits."""
        self._program, self._environment = tuple(program), dict(environment or {})
        self._lock = threading.Lock()
        self._forks: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._left: list[tuple[subprocess.Popen[bytes], socket.socket]] = []
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process that forks the children; None where none runs."""
        with self._lock:
            return None if self._forks is None else self._forks[0].pid

    def start(self, job: Job, given: Sequence[int]) -> Child:
        """A child for ``job``, confined, with descriptors of its own of ``given``: the first to read, others to write.

        Raises ``ChildError`` or ``OSError`` where none can be started.
        """
        with self._lock:
            if self._closed:
                raise ChildError("nothing is decoded any more")
            for _ in range(2):  # what forks them may have ended since the last one
                child = self._fork(job, given)
                if child is not None:
                    return child
        raise ChildError(
            "the process that forks decoding children ends at once, or does not answer; are PyAV and soundfile installed?"
        )

    def close(self) -> None:
        """End what forks the children, and any that are left."""
        with self._lock:
            self._closed = True
            self._leave()
            for process, ours in self._left:
                ours.close()
                process.kill()
                process.wait()
            self._left = []

    def _fork(self, job: Job, given: Sequence[int]) -> Child | None:
        """A new child; None where what should fork it does so no more, or does not answer."""
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
                raise ChildError(f"no decoding child can be started: {os.strerror(int(told) or errno.EMFILE)}")
            undo.pop_all()
            return Child(int(told), pidfds[0], ends)

    def _running(self) -> socket.socket:
        """The socket of what forks the children, which is started unless it runs."""
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
        """Ask this one for no more. It has ended, or does so with the last of its children, or with this process."""
        for process, ours in [left for left in self._left if left[0].poll() is not None]:
            ours.close()
            self._left.remove((process, ours))
        if self._forks is not None:
            self._left.append(self._forks)
            self._forks = None
