"""Runs every short benchmark in turn, and prints one table with the last results of the long ones.

    .venv/bin/python -m bench [NAME ...]

NAME runs only these; ``none`` runs nothing and prints the table of existing results. The short ones take about 13 minutes, and
ten more for the offline pass over new speech. bench/results has the results of the long ones and of peers, each with its date,
commit, machine and command.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.figures import FOLDER, read
from bench.table import render

#: Folder of the short ones' newest results.
SHORT_FOLDER = Path(".cache/bench/results")
SHORT = {
    "live-1": ["bench.live", "--streams", "1", "--count", "1", "--seconds", "120"],
    "live-16": ["bench.live", "--streams", "16", "--count", "16", "--seconds", "120"],
    "live-32": ["bench.live", "--streams", "32", "--count", "32", "--seconds", "120"],
    "file": ["bench.file", "--runs", "1"],
    "hop": ["bench.hop", "--runs", "1", "--stopped", "0"],
    "scale": ["bench.scale"],
}


def names(argv: Sequence[str] | None = None) -> list[str]:
    """Return the benchmarks that a command line names, all if it names none. End the process if one is unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"only these of {', '.join(SHORT)}, or none", metavar="NAME")
    asked: list[str] = parser.parse_args(argv).names
    # Not by choices: argparse of Python 3.11 checks a default against them as if it were one name.
    unknown = [name for name in asked if name not in (*SHORT, "none")]
    if unknown:
        parser.error(f"{unknown[0]} is no benchmark: {', '.join(SHORT)}, or none")
    return asked or [*SHORT]


def main() -> int:
    """Run, then print; return status 1 if a benchmark failed."""
    asked = names()
    failed = 0
    for name, command in SHORT.items():
        if name not in asked:
            continue
        target = SHORT_FOLDER / f"{name}.json"
        target.unlink(missing_ok=True)
        print(f"\n{name}: python -m {' '.join(command)}", flush=True)
        ran = subprocess.run([sys.executable, "-m", *command, "--json", str(target)], check=False)
        failed += ran.returncode != 0
    places = [*FOLDER.glob("*.json"), *SHORT_FOLDER.glob("*.json")]
    found = {path.stem: result for path in places if (result := read(path)) is not None}
    print(f"\n{render(found)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
