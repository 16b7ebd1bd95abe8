"""Child processes of the tests: started with a log file, signalled and reaped by their own pid, never by a name."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self


class Child:
    """One process in a session of its own, with its output in ``log``.

    It can be killed, paused and started again, so that a test plays a crash, a zombie and a recovery. ``started`` holds every
    child of this process, so that a run of tests can end what a test has left.
    """

    started: ClassVar[list["Child"]] = []

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        """``env`` is added to the environment of the tests; ``folder``, if set, is where the process works."""
        self.argv = list(argv)
        self.log = log
        self.folder: Path | None = None
        self.env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; raises ``RuntimeError`` before the start."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start it, or start it again."""
        self.started.append(self)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | self.env,
                cwd=self.folder,
                start_new_session=True,
            )

    @contextlib.contextmanager
    def during(self, seconds: float = 15) -> Iterator[Self]:
        """Started for a block, and stopped as ``stop`` does when the block ends, fails or is cancelled."""
        self.spawn()
        try:
            yield self
        finally:
            self.stop(seconds)

    def signal(self, number: int) -> None:
        """Send a signal to the process, and to nothing else."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL and reap: a crash. Its own children, if any, go with it."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait(10)

    def pause(self) -> None:
        """SIGSTOP: alive to the kernel, silent to everybody else."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after ``pause``."""
        self.signal(signal.SIGCONT)

    def stop(self, seconds: float = 15) -> int | None:
        """SIGTERM, then SIGKILL after ``seconds``; the exit status, or None when it never ran."""
        if self.running:
            self.resume()
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.wait(seconds)
            self.kill()
        return None if self._process is None else self._process.returncode

    def wait(self, seconds: float) -> int:
        """The exit status; raises ``subprocess.TimeoutExpired``."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.wait(seconds)

    def output(self, last: int = 4000) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-last:] if self.log.exists() else ""
