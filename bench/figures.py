"""A benchmark's figures as a file: ``--json FILE``, with what is needed to judge them later."""

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

#: Where results that are kept lie.
FOLDER = Path(__file__).parent / "results"
Figures = Mapping[str, float | str]
#: Settings that decide what is decoded how, as they were in the environment; others may be secrets or say where something lies.
_DECIDING = ("BACKEND", "BATCH_SIZE", "BEAM_SIZE", "EXECUTORS", "PROMPT_SECONDS")
SETTINGS = {name: os.environ[name] for short in _DECIDING if (name := f"KAPTION_{short}") in os.environ}


@dataclass(frozen=True, slots=True)
class Result:
    """One run: which benchmark, when, of which commit (``+``: with changes beside it), on what, by which command."""

    bench: str
    date: str
    commit: str
    machine: str
    command: str
    figures: dict[str, float | str]


def machine() -> str:
    """The processor's name, cores that this process may use, and memory."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def commit() -> str:
    """The commit that is checked out; a ``+`` when files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def add_option(parser: ArgumentParser) -> None:
    """The option that most benchmarks have. What is checked out now is what is measured, whatever is by the end of it."""
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.set_defaults(commit=commit())


def add_model_option(parser: ArgumentParser) -> None:
    """The weights to measure, where a benchmark can be run with others."""
    parser.add_argument(
        "--model", default="tiny.en", choices=("tiny.en", "base"), help="its weights; offline has the same"
    )


def use_model(arguments: Namespace) -> None:
    """Let everything that is started from here on, and ``Settings``, take the model that was asked for."""
    os.environ["KAPTION_MODEL"] = arguments.model


def spread(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure; with more than one run also its least and most, named ``FIGURE, least`` and ``FIGURE, most``."""
    if len(runs) == 1:
        return dict(runs[0])
    found = {"runs": float(len(runs))}
    for name in runs[0]:
        values = [run[name] for run in runs]
        found |= {name: statistics.median(values), f"{name}, least": min(values), f"{name}, most": max(values)}
    return found


def command(bench: str, words: Sequence[str], settings: Mapping[str, str]) -> str:
    """What makes the figures again: the command line, after the settings that it was run with."""
    return " ".join(
        [*(f"{name}={value}" for name, value in settings.items()), "python", "-m", f"bench.{bench}", *words]
    )


def save(arguments: Namespace, bench: str, figures: Figures) -> None:
    """Write ``figures`` where the command line asked for it; numbers of seconds, shares (0.05 for 5 %), MB."""
    if arguments.json is None:
        return
    words = [word for word in sys.argv[1:] if not word.startswith("--json") and word != str(arguments.json)]
    date = datetime.now(UTC).isoformat(timespec="minutes")
    result = Result(bench, date, arguments.commit, machine(), command(bench, words, SETTINGS), dict(figures))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(asdict(result), indent=2) + "\n")


def read(path: Path) -> Result | None:
    """What ``save`` wrote; None when there is no such file."""
    return Result(**json.loads(path.read_text())) if path.is_file() else None
