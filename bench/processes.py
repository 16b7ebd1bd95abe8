"""Reads from /proc what the processes of a running pipeline use, and everything else on the machine."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from kaption.testing.up import group_of

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds and resident MiB of one process, and the end of its command line."""

    name: str
    seconds: float
    resident: float


def end_as_by_hand() -> None:
    """Handle SIGTERM like Ctrl-C, so that the processes that a benchmark started end with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def below(pid: int) -> list[int]:
    """Return ``pid`` and all its descendants."""
    return [pid, *(deeper for child in group_of(pid) for deeper in below(child))]


def usage(pid: int) -> Usage:
    """Return the usage of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / _TICKS
    words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()
    name = " ".join(Path(word).name for word in words)[:72]
    return Usage(name, seconds, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20))


def usages(pid: int) -> dict[int, Usage]:
    """Return the usage of ``pid`` and of all its descendants."""
    return {one: usage(one) for one in below(pid)}


def thread_seconds(pid: int) -> dict[int, float]:
    """Return the CPU seconds of each thread of a process so far, by thread id; none if the process has ended."""
    used: dict[int, float] = {}
    tasks = Path(f"/proc/{pid}/task")
    for task in tasks.iterdir() if tasks.exists() else ():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        used[int(task.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def ended_seconds(pid: int) -> float:
    """Return the CPU seconds of a process's ended descendants so far; 0 if the process has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / _TICKS


def shares(before: dict[int, Usage], after: dict[int, Usage], seconds: float) -> dict[int, float]:
    """Return each process's share of a core between two readings ``seconds`` apart."""
    return {pid: (after[pid].seconds - before[pid].seconds) / seconds for pid in before if pid in after}


class Others:
    """Measures what all other processes use from now on: a figure measured on a busy machine is not worth much."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._busy = _busy_seconds()
        self._own = time.process_time()

    def cores(self, used: dict[int, float]) -> float:
        """Return the cores used by all but this process and those of ``shares``."""
        took = time.monotonic() - self._begin
        all_of_them = (_busy_seconds() - self._busy - (time.process_time() - self._own)) / took
        return max(0.0, all_of_them - sum(used.values()))


def _busy_seconds() -> float:
    """Return the CPU seconds of the whole machine that were not idle."""
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft) / _TICKS
