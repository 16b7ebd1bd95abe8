"""Removes each guard of tests/mutants.toml, one at a time, and checks that its test turns red (``make mutants``).

It changes a copy of the working tree, with the files that git tracks or would track. The run fails if no test notices a
guard's removal, or if the guard's text is not in its file exactly once. A process started with ``python -I``, such as a
decoding child, uses the installed packages and not the copy, so its guards are not in the table.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (".", "schemas", "streams", "gpu_service")
#: pytest's exit status for "tests were run and some failed"; anything else proves nothing.
RED = 1


@dataclass(frozen=True, slots=True)
class Mutant:
    """One guard: ``old`` in ``file`` becomes ``new``, and ``test`` (pytest's arguments) must fail."""

    guard: str
    file: str
    old: str
    new: str
    test: str


def copy(target: Path) -> None:
    """Copy the files of the working tree, without those that git ignores."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def tested(tree: Path, test: str) -> tuple[int, str]:
    """Run ``test`` in ``tree``; return the exit status and pytest's last line."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(tree / package) for package in PACKAGES)}
    shared = ROOT.parent / "shared" / "kafka"
    if shared.exists():
        environment.setdefault("KAFKA_HOME", str(shared))
    command = [sys.executable, "-m", "pytest", "-x", "-m", "not long and not torch", *test.split()]
    ran = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, (ran.stdout.splitlines() or [""])[-1]


def outcome(mutant: Mutant, tree: Path) -> str:
    """Return ``red``, as it should be, or what is wrong."""
    path = tree / mutant.file
    before = path.read_text()
    if before.count(mutant.old) != 1:
        return f"STALE: its text is {before.count(mutant.old)} times in {mutant.file}"
    path.write_text(before.replace(mutant.old, mutant.new))
    try:
        status, summary = tested(tree, mutant.test)
    finally:
        path.write_text(before)
    # The summary shows whether a test passed or was skipped.
    return "red" if status == RED else f"NOT RED: pytest ended with {status}: {summary}"


def main() -> int:
    """Run the table, or the rows whose guard contains an argument; return 1 if a test does not protect its guard."""
    table = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())["mutant"]
    wanted = [Mutant(**row) for row in table if not sys.argv[1:] or any(word in row["guard"] for word in sys.argv[1:])]
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        copy(Path(name))
        for mutant in wanted:
            found = outcome(mutant, Path(name))
            missed += found != "red"
            print(f"{found:4}  {mutant.guard}  ({mutant.test})", flush=True)
    print(f"{len(wanted) - missed} passed, {missed} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
