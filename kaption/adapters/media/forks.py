"""Loads a decoder's libraries once and forks a confined child for each request.

``children`` starts this process. Loading takes several times as long as decoding a minute of audio. The process reads nothing
hostile and holds no secrets, and a child shares no data with another. But its children share the random values of a
program's start, the address layout and the stack guard, so a file could learn them from earlier crashes. After one crash the
process therefore forks no more, ``children`` starts another, and this one ends with the last of its children.

Its standard input is a socket of sequenced packets. A request is a ``Job`` with descriptors: the first for the child to read,
others for it to write, the last a socket for this child. Once the child is confined, the process sends its id and a
pidfd (pidfd_open(2)) on that socket, and later its exit status, negative for a signal; or the errno if it can make no child.
"""

import contextlib
import errno
import logging
import os
import resource
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import BinaryIO, NoReturn
from typing import Final as Const

from kaption.adapters.media.job import CRASHES, DESCRIPTORS, MESSAGE_BYTES, Job
from kaption.adapters.processes.confinement import confine, hide

#: A child's work, with its descriptors opened as files.
Work = Callable[[Sequence[BinaryIO], Job], None]
#: All descriptors are below this: few, so that a child can close all but its own.
_OPEN_FILES: Const = 256


class _Forks:
    """The children of one process."""

    def __init__(self, requests: socket.socket, work: Work) -> None:
        self._requests, self._work = requests, work
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)
        self._children = 0
        self._crashed = False

    def serve(self) -> None:
        """Fork until the other end closes, which ends all children; or, after a crash, until no child is left."""
        while not self._crashed or self._children:
            # Handle ends first: after a known crash no child is forked.
            for key, _ in sorted(self._selector.select(), key=lambda event: event[0].data is None):
                if key.data is not None:
                    self._crashed |= -self._end(key.fd, *key.data) in CRASHES
                elif not self._take():
                    return

    def _take(self) -> bool:
        """Take one request; return False when no more will come."""
        message, descriptors, _, _ = socket.recv_fds(
            self._requests, MESSAGE_BYTES, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        if not message:
            return False
        *own, control = descriptors
        told = socket.socket(fileno=control)
        try:
            if self._crashed:
                told.close()
                return True
            child, ended = self._fork(Job.read(message), own)
        except OSError as error:
            with told, contextlib.suppress(OSError):
                told.send(str(error.errno).encode())
            return True
        finally:
            for descriptor in own:
                os.close(descriptor)
        self._children += 1
        self._selector.register(ended, selectors.EVENT_READ, (child, told))
        with contextlib.suppress(OSError):  # the caller has gone: the child ends when it reads or writes
            socket.send_fds(told, [str(child).encode()], [ended])
        return True

    def _fork(self, job: Job, own: Sequence[int]) -> tuple[int, int]:
        """Fork a confined child; return its process id and a pidfd. Raises ``OSError``."""
        parent, child = os.getpid(), 0
        confined, says = os.pipe()
        try:
            child = os.fork()
            if child == 0:
                _become(job, own, says, parent, self._work)
            os.close(says)
            # A child reports this before it has read hostile data. Later a file could have taken it over and lie.
            if not os.read(confined, 1):
                raise OSError(errno.EPERM, "the child can't be confined")
            return child, os.pidfd_open(child)
        except OSError:
            if child:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            else:
                os.close(says)
            raise
        finally:
            os.close(confined)

    def _end(self, ended: int, child: int, told: socket.socket) -> int:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        self._children -= 1
        self._selector.unregister(ended)
        os.close(ended)
        with told, contextlib.suppress(OSError):
            told.send(str(code).encode())
        return code


def _become(job: Job, own: Sequence[int], says: int, parent: int, work: Work) -> NoReturn:
    """Become the child: close the descriptors of parent and siblings, confine the process, and work."""
    try:
        os.close(sys.stdin.fileno())
        for before, after in pairwise([2, *sorted([*own, says]), _OPEN_FILES]):
            os.closerange(before + 1, after)
        files = [os.fdopen(one, "wb" if number else "rb") for number, one in enumerate(own)]
        confine(job.memory_mb, job.cpu_seconds, parent)
        os.write(says, b"1")
        os.close(says)
        work(files, job)
    finally:
        os._exit(1)


def main(work: Work) -> None:
    """Serve on standard input. The starting process ends this one, which ignores signals to all processes of a service."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(
        signal.SIGCHLD, signal.SIG_DFL
    )  # if it were ignored, which is inherited, no wait for children would work
    hide()
    logging.disable()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    bound = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (bound, bound))
    with socket.socket(fileno=sys.stdin.fileno()) as requests:
        _Forks(requests, work).serve()
