"""A process that loads a decoder's libraries once and forks a confined child for each request; ``children`` starts it and asks.

Loading them takes several times as long as decoding a minute of audio. This process looks at nothing hostile itself and
holds no secrets, and a child holds nothing of another. But children have what is drawn at random when a program starts in
common (the layout of addresses, the stack's guard), so a file could learn of it from how its forerunners crashed: one crash, and
this process forks no more, for another to be started. It ends with the last of its children.

Its standard input is a socket of sequenced packets. A request is a ``Job`` with descriptors: the first for the child to read,
others for it to write, the last a socket for this one child. That gets the child's process id with a descriptor of it
(pidfd_open(2)) once the child is confined, and its exit status, negative for a signal, once it has ended; or the errno for
which no child can be made.
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

#: What a child does with its descriptors, opened.
Work = Callable[[Sequence[BinaryIO], Job], None]
#: Descriptors are below this: few, so that a child can close all that are not its own.
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
        """Fork until the other end closes, which ends what is left with this process; or, after a crash, until no child is left."""
        while not self._crashed or self._children:
            # Ends first: no child is forked beside a crash that is known of.
            for key, _ in sorted(self._selector.select(), key=lambda event: event[0].data is None):
                if key.data is not None:
                    self._crashed |= -self._end(key.fd, *key.data) in CRASHES
                elif not self._take():
                    return

    def _take(self) -> bool:
        """One request; False when there will be no more."""
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
        with contextlib.suppress(OSError):  # whoever asked has gone: the child ends when it reads or writes
            socket.send_fds(told, [str(child).encode()], [ended])
        return True

    def _fork(self, job: Job, own: Sequence[int]) -> tuple[int, int]:
        """A confined child: its process id and a descriptor of it. Raises ``OSError``."""
        parent, child = os.getpid(), 0
        confined, says = os.pipe()
        try:
            child = os.fork()
            if child == 0:
                _become(job, own, says, parent, self._work)
            os.close(says)
            # It has seen nothing hostile when it says so: what its status would tell, one that was taken over could too.
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
    """The child: let go of what belongs to its parent and its siblings, be confined, and work."""
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
    """Serve on standard input. Whoever started this ends it: signals to all processes of a service are not for it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, which is inherited, children could not be waited for
    hide()
    logging.disable()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    bound = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (bound, bound))
    with socket.socket(fileno=sys.stdin.fileno()) as requests:
        _Forks(requests, work).serve()
