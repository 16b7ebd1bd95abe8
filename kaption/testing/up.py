"""Runs the whole pipeline, ``kaption up``, as a test's child."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kaption.adapters.settings import Settings
from kaption.testing.processes import Child

_READY = re.compile(r"^ready kafka=(\S+) s3=(\S+) http=(\S+)", re.MULTILINE)
#: On two cores, next to other tests, a start takes longer than the 20 s of a quiet machine.
START_SECONDS = 120
#: Seconds in which agents finish their work, and broker and store write their data.
STOP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Up:
    """A running pipeline with the addresses of its ``ready`` line: broker, object store and health."""

    child: Child
    kafka: str
    s3: str
    http: str

    def settings(self, **fields: object) -> Settings:
        """Return settings that reach its broker and store."""
        return Settings(**({"kafka": self.kafka, "s3": self.s3} | fields))  # type: ignore[arg-type]


def kaption(*arguments: str) -> list[str]:
    """Return the command line in this interpreter's environment."""
    return [str(Path(sys.executable).with_name("kaption")), *arguments]


@asynccontextmanager
async def running_up(
    data: Path, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> AsyncIterator[Up]:
    """Start ``kaption up``, wait until it is ready, and stop it when the block ends, fails or is cancelled.

    Raises ``RuntimeError`` with its output if it does not become ready.
    """
    share_choices(data)
    with Child(kaption("up", "--data", str(data), *arguments), data / "up.log", env).during(STOP_SECONDS) as child:
        end = time.monotonic() + START_SECONDS
        while not (found := _READY.search(child.output(100_000))):
            if not child.running or time.monotonic() > end:
                raise RuntimeError(f"`kaption up` did not become ready:\n{child.output()}")
            await asyncio.sleep(0.2)
        yield Up(child, *found.groups())


def share_choices(data: Path) -> None:
    """Share one encoder choice with workers on the folder ``data``, since measuring takes seconds at each start."""
    known = Path(".cache", "encoders").resolve()
    known.mkdir(parents=True, exist_ok=True)
    data.mkdir(parents=True, exist_ok=True)
    if not (data / known.name).exists():
        (data / known.name).symlink_to(known)


def environment(up: Up, **more: str) -> dict[str, str]:
    """Return the environment for a program of the docs: this one's, this interpreter's programs first, and ``KAFKA``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "KAFKA": up.kafka} | more


def group_of(supervisor: int) -> dict[int, str]:
    """Return every process below ``supervisor``, by its id."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(supervisor)], capture_output=True, text=True, check=False
    )
    rows = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    return {int(pid): args for pid, args in rows}
