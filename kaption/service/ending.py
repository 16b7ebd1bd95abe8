"""Ends a process within ``END_SECONDS`` of its decision to end, even if a library still waits.

Faust may wait for an event that is never acknowledged, aiokafka for a broker that does not answer, and a thread for the
object store. Some of them swallow cancellation. Unfinished work is then as after a SIGKILL: a replay repeats it.
"""

import faulthandler
import os
import sys
from pathlib import Path
from typing import Final as Const
from typing import NoReturn, TextIO

_armed: Const[list[TextIO]] = []
#: Seconds from SIGTERM, or from a failure, to the end: less than a supervisor waits before it kills.
END_SECONDS: Const = 9.0


def end_soon(seconds: float = END_SECONDS) -> None:
    """End the process with status 1 unless it ends by itself within ``seconds``. Only the first call counts.

    A thread of the interpreter watches the time. It needs neither the event loop nor the GIL.
    """
    if not _armed:
        _armed.append(Path(os.devnull).open("w"))  # noqa: SIM115  # open until the process ends; its threads' tracebacks go there
        faulthandler.dump_traceback_later(seconds, exit=True, file=_armed[0])


def end(status: int) -> NoReturn:
    """End now, without waiting for threads that hang. The interpreter's own exit would wait."""
    sys.stderr.flush()
    os._exit(status)
