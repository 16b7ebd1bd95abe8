"""A process that loads the media libraries once and forks a decoding child (``media_child``) for each file: ``python -m kaption.adapters.media_forks FD``.

Loading them takes several times as long as decoding a minute of audio. This process reads no file itself, so a child starts
as clean as a new process; it holds no secrets, and its children nothing of each other's.

FD is a socket of sequenced packets. A request is a ``Job`` with four descriptors: the file, where PCM goes, where
status lines go, and a socket for this one child. That gets ``started`` with a descriptor of the child (pidfd_open(2)), and
the child's exit status, negative for a signal, once it has ended. It is closed without either where no child can be made.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

import av

from kaption.adapters.media_child import decode
from kaption.adapters.media_job import DESCRIPTORS, MESSAGE_BYTES, STARTED, Job


def serve(requests: socket.socket) -> None:
    """Fork a child for each request until the other end closes. The children that are left then end with this process."""
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, DESCRIPTORS)
                    if not message:
                        return
                    _start(selector, Job.read(message), descriptors)
                else:
                    _end(selector, key.fd, *key.data)


def _start(selector: selectors.BaseSelector, job: Job, descriptors: Sequence[int]) -> None:
    *own, control = descriptors
    told = socket.socket(fileno=control)
    try:
        child = os.fork()
        if child == 0:
            _become(job, own)
        ended = os.pidfd_open(child)
    except OSError:
        told.close()
        return
    finally:
        for descriptor in own:
            os.close(descriptor)
    selector.register(ended, selectors.EVENT_READ, (child, told))
    with contextlib.suppress(OSError):  # whoever asked has gone: the child ends when it writes
        socket.send_fds(told, [STARTED], [ended])


def _end(selector: selectors.BaseSelector, ended: int, child: int, told: socket.socket) -> None:
    _, status = os.waitpid(child, 0)
    selector.unregister(ended)
    os.close(ended)
    with told, contextlib.suppress(OSError):
        told.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(job: Job, own: Sequence[int]) -> NoReturn:
    """The child: let go of what belongs to its parent and its siblings, and decode."""
    try:
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2 and descriptor not in own:
                with contextlib.suppress(OSError):  # the listing's own is closed
                    os.close(descriptor)
        file, out, status = own
        decode(os.fdopen(file, "rb"), os.fdopen(out, "wb"), os.fdopen(status, "wb"), job)
    finally:
        os._exit(1)


def main() -> None:
    """Serve on the descriptor that the argument names. Whoever started this ends it, by closing: signals to a group are not for it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.disable()
    av.logging.set_level(None)
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        serve(requests)


if __name__ == "__main__":
    main()
