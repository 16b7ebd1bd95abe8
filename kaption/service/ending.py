"""The end of a process that must end: within ``END_SECONDS`` of when that is known, whatever a library waits for.

Faust waits for an event that will never be acknowledged, aiokafka for a broker that does not answer, a thread for the object
store; some swallow their cancellation. What is left unfinished then is as after a SIGKILL: the log gives it again.
"""

import faulthandler
import os
import sys
from pathlib import Path
from typing import Final as Const
from typing import NoReturn, TextIO

_armed: Const[list[TextIO]] = []
#: From SIGTERM, or from a failure, to the end. Less than a supervisor waits before it kills.
END_SECONDS: Const = 9.0


def end_soon(seconds: float = END_SECONDS) -> None:
    """Let the process end, with status 1, unless it has ended by itself within ``seconds``. The first call counts.

    The watch is a thread of the interpreter's own: it needs neither the event loop nor Python's lock.
    """
    if not _armed:
        _armed.append(Path(os.devnull).open("w"))  # noqa: SIM115  # open as long as the process is; where its threads stand goes there
        faulthandler.dump_traceback_later(seconds, exit=True, file=_armed[0])


def end(status: int) -> NoReturn:
    """End now. Threads that hang are not waited for, as the interpreter's own exit would."""
    sys.stderr.flush()
    os._exit(status)
