"""Saves a benchmark's figures to a file (``--json FILE``), with machine, commit and command, to judge them later."""

import json
import os
import platform
import statistics
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

#: Folder of the results that are kept.
FOLDER = Path(__file__).parent / "results"
Figures = Mapping[str, float | str]
#: Settings from the environment that decide how audio is decoded; others may be secrets or paths.
_DECIDING = ("BACKEND", "BATCH_SIZE", "BEAM_SIZE", "EXECUTORS", "PROMPT_SECONDS")
SETTINGS = {name: os.environ[name] for short in _DECIDING if (name := f"KAPTION_{short}") in os.environ}


@dataclass(frozen=True, slots=True)
class Result:
    """One run: the benchmark, the time, the commit (``+``: with uncommitted changes), the machine and the command."""

    bench: str
    date: str
    commit: str
    machine: str
    command: str
    figures: dict[str, float | str]


def machine() -> str:
    """Return the processor's name, the cores that this process may use, and the memory."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def commit() -> str:
    """Return the checked-out commit, with a ``+`` if files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def add_option(parser: ArgumentParser) -> None:
    """Add the option of most benchmarks. The result names the commit that is checked out now, not at the end."""
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.set_defaults(commit=commit())


def add_model_option(parser: ArgumentParser) -> None:
    """Add the option for the weights to measure."""
    parser.add_argument(
        "--model", default="tiny.en", choices=("tiny.en", "base"), help="its weights; offline has the same"
    )


def use_model(arguments: Namespace) -> None:
    """Make ``Settings`` and all processes started from here on use the requested model."""
    os.environ["KAPTION_MODEL"] = arguments.model


def spread(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return each figure's median; with more than one run also its extremes, named ``FIGURE, least`` and ``FIGURE, most``."""
    if len(runs) == 1:
        return dict(runs[0])
    found = {"runs": float(len(runs))}
    for name in runs[0]:
        values = [run[name] for run in runs]
        found |= {name: statistics.median(values), f"{name}, least": min(values), f"{name}, most": max(values)}
    return found


def command(bench: str, words: Sequence[str], settings: Mapping[str, str]) -> str:
    """Return the command that reproduces the figures: its settings, then the command line."""
    return " ".join(
        [*(f"{name}={value}" for name, value in settings.items()), "python", "-m", f"bench.{bench}", *words]
    )


def save(arguments: Namespace, bench: str, figures: Figures) -> None:
    """Write ``figures`` to the requested file: seconds, shares (0.05 for 5 %), MB."""
    if arguments.json is None:
        return
    words = [word for word in sys.argv[1:] if not word.startswith("--json") and word != str(arguments.json)]
    date = datetime.now(UTC).isoformat(timespec="minutes")
    result = Result(bench, date, arguments.commit, machine(), command(bench, words, SETTINGS), dict(figures))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(asdict(result), indent=2) + "\n")


def read(path: Path) -> Result | None:
    """Read a file of ``save``; None if there is none."""
    return Result(**json.loads(path.read_text())) if path.is_file() else None
