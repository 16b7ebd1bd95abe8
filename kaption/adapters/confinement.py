"""What a decoding child gives up before it looks at a hostile file."""

import ctypes
import os
import resource
import signal
from typing import Final as Const

from kaption.adapters.media_job import NOT_CONFINED, Job

_PR_SET_PDEATHSIG: Const = 1


def confine(job: Job, parent: int) -> None:
    """Give up what decoding does not need, and end with ``parent``. Descriptors that are open stay usable."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(NOT_CONFINED)
    memory = job.memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (job.cpu_seconds, job.cpu_seconds))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
