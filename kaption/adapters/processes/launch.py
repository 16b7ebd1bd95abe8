"""Executes a program that dies with its parent (PR_SET_PDEATHSIG): ``launch.py SIGNAL PARENT PROGRAM ARGUMENT...``.

It is a program, not a function between fork and exec: such a function may wait without end for a lock that a thread held at
the fork. ``python -I -S`` runs it, and it imports as little as it can (15 ms).
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(signal_number: int, parent: int, argv: list[str]) -> None:
    """Set the signal, check that the parent still lives, and execute ``argv``."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:  # it died before the signal was set
        sys.exit(1)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  # arguments are a list; no shell
    except OSError as error:
        sys.exit(f"{argv[0]} can't be run: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
