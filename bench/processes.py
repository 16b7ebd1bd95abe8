"""What the processes of a running pipeline use, read from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.up import group_of

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds and resident MiB of one process, and the end of its command line."""

    name: str
    seconds: float
    resident: float


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


def shares(before: dict[int, Usage], after: dict[int, Usage], seconds: float) -> dict[int, float]:
    """Each process's part of a core between two looks ``seconds`` apart."""
    return {pid: (after[pid].seconds - before[pid].seconds) / seconds for pid in before if pid in after}
