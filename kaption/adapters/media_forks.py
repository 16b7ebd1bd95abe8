"""A process that loads the media libraries once and forks a decoding child (``media_child``) for each file: ``python -m kaption.adapters.media_forks``.

Loading them takes several times as long as decoding a minute of audio. This process reads no file itself and holds no
secrets, and a child holds nothing of another. But children have what is drawn at random when a program starts in common
(the layout of addresses, the stack's guard), so a file could learn of it from how its forerunners crashed: one crash, and this
process ends, for another to be started.

Its standard input is a socket of sequenced packets. A request is a ``Job`` with four descriptors: the file, where PCM goes, where
status lines go, and a socket for this one child. That gets 0 with a descriptor of the child (pidfd_open(2)), and the child's
exit status, negative for a signal, once it has ended; or the errno for which no child can be made.
"""

import contextlib
import logging
import os
import resource
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Final as Const
from typing import NoReturn

import av

from kaption.adapters.confinement import confine
from kaption.adapters.media_child import decode
from kaption.adapters.media_job import CRASHES, DESCRIPTORS, MESSAGE_BYTES, NOT_CONFINED, Job

#: Descriptors are below this: few, so that a child can close all that are not its own.
_OPEN_FILES: Const = 256


def serve(requests: socket.socket) -> None:
    """Fork a child for each request until the other end closes, or a child crashes. The children that are left end with this process."""
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    message, descriptors, _, _ = socket.recv_fds(
                        requests, MESSAGE_BYTES, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                    )
                    if not message:
                        return
                    _start(selector, Job.read(message), descriptors)
                elif -_end(selector, key.fd, *key.data) in CRASHES:
                    return


def _start(selector: selectors.BaseSelector, job: Job, descriptors: Sequence[int]) -> None:
    *own, control = descriptors
    told = socket.socket(fileno=control)
    parent, child = os.getpid(), 0
    try:
        child = os.fork()
        if child == 0:
            _become(job, own, parent)
        ended = os.pidfd_open(child)
    except OSError as error:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        with told, contextlib.suppress(OSError):
            told.send(str(error.errno).encode())
        return
    finally:
        for descriptor in own:
            os.close(descriptor)
    selector.register(ended, selectors.EVENT_READ, (child, told))
    with contextlib.suppress(OSError):  # whoever asked has gone: the child ends when it writes
        socket.send_fds(told, [b"0"], [ended])


def _end(selector: selectors.BaseSelector, ended: int, child: int, told: socket.socket) -> int:
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    selector.unregister(ended)
    os.close(ended)
    with told, contextlib.suppress(OSError):
        told.send(str(code).encode())
    return code


def _become(job: Job, own: Sequence[int], parent: int) -> NoReturn:
    """The child: let go of what belongs to its parent and its siblings, and decode."""
    status = NOT_CONFINED
    try:
        os.close(sys.stdin.fileno())
        for before, after in pairwise([2, *sorted(own), _OPEN_FILES]):
            os.closerange(before + 1, after)
        confine(job, parent)
        status = 1  # from here on the file may be at fault
        file, out, lines = own
        decode(os.fdopen(file, "rb"), os.fdopen(out, "wb"), os.fdopen(lines, "wb"), job)
    finally:
        os._exit(status)


def main() -> None:
    """Serve on standard input. Whoever started this ends it: signals to all processes of a service are not for it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, which is inherited, children could not be waited for
    logging.disable()
    av.logging.set_level(None)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    bound = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (bound, bound))
    with socket.socket(fileno=sys.stdin.fileno()) as requests:
        serve(requests)


if __name__ == "__main__":
    main()
