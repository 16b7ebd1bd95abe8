"""Runs one pool worker until SIGTERM or a failure: ``python -m kaption_gpu``."""

import ctypes
import sys
from functools import partial
from typing import Final as Const
from typing import NoReturn

from kaption.service.run import run_service
from kaption.service.services import find, usage
from kaption_gpu.bootstrap import MakeBackend, serve
from kaption_gpu.engine.backends import make_backend

_PACKAGE: Const = "kaption_gpu"
#: From glibc's malloc.h.
_M_ARENA_MAX: Const = -8


def _share_heaps() -> None:
    """Make the threads share two of glibc's heaps. By default it makes up to eight per core; their fragmentation costs 60 MB."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 2)


def main(make: MakeBackend = make_backend) -> NoReturn:
    """Run a worker with the model that ``make`` makes, and end the process."""
    service = find(_PACKAGE, ())
    if service is None or len(sys.argv) > 1:
        sys.exit(usage(_PACKAGE))
    _share_heaps()
    run_service(service, partial(serve, make=make))


if __name__ == "__main__":
    main()
