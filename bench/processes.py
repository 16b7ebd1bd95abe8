"""What the processes of a running pipeline use, and everything else on the machine, read from /proc."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from kaption.testing.up import group_of

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds and resident MiB of one process, and the end of its command line."""

    name: str
    seconds: float
    resident: float


def end_as_by_hand() -> None:
    """Let SIGTERM do what Ctrl-C does: what a benchmark started ends with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def below(pid: int) -> list[int]:
    """``pid`` and every process under it."""
    return [pid, *(deeper for child in group_of(pid) for deeper in below(child))]


def usage(pid: int) -> Usage:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / _TICKS
    words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()
    name = " ".join(Path(word).name for word in words)[:72]
    return Usage(name, seconds, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20))


def usages(pid: int) -> dict[int, Usage]:
    """The same of ``pid`` and of every process under it."""
    return {one: usage(one) for one in below(pid)}


def thread_seconds(pid: int) -> dict[int, float]:
    """Processor seconds of each of a process's threads so far, by the thread's id; none where it has ended."""
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
    """Processor seconds of a process's children that have ended so far, and of theirs; 0 where it has ended itself."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / _TICKS


def shares(before: dict[int, Usage], after: dict[int, Usage], seconds: float) -> dict[int, float]:
    """Each process's part of a core between two looks ``seconds`` apart."""
    return {pid: (after[pid].seconds - before[pid].seconds) / seconds for pid in before if pid in after}


class Others:
    """What everything else takes of the machine from now on: a figure that was measured beside others is not worth much."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._busy = _busy_seconds()
        self._own = time.process_time()

    def cores(self, used: dict[int, float]) -> float:
        """Cores, besides this process and those of ``shares``."""
        took = time.monotonic() - self._begin
        all_of_them = (_busy_seconds() - self._busy - (time.process_time() - self._own)) / took
        return max(0.0, all_of_them - sum(used.values()))


def _busy_seconds() -> float:
    """Processor seconds of the whole machine that were not idle."""
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft) / _TICKS
