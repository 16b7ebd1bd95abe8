"""Starts the tests' child processes with a log file, and signals and reaps them by their own pid, never by a name."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self


class Child:
    """One process in its own session, with its output in ``log``.

    A test can kill, pause and restart it, to play a crash, a zombie and a recovery. ``started`` holds every child of this
    process, so that a run of tests can end what a test has left.
    """

    started: ClassVar[list["Child"]] = []

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        """``env`` adds to the tests' environment; ``folder``, if set, is the working directory."""
        self.argv = list(argv)
        self.log = log
        self.folder: Path | None = None
        self.env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises ``RuntimeError`` before the start."""
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
        """Start it for a block, and stop it like ``stop`` when the block ends, fails or is cancelled."""
        self.spawn()
        try:
            yield self
        finally:
            self.stop(seconds)

    def signal(self, number: int) -> None:
        """Send a signal to the process and to no other."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Crash it: send SIGKILL to it and its children, and reap it."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait(10)

    def pause(self) -> None:
        """Send SIGSTOP: the process is alive to the kernel and silent to all others."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT after ``pause``."""
        self.signal(signal.SIGCONT)

    def stop(self, seconds: float = 15) -> int | None:
        """Send SIGTERM, then SIGKILL after ``seconds``; return the exit status, or None if it never ran."""
        if self.running:
            self.resume()
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.wait(seconds)
            self.kill()
        return None if self._process is None else self._process.returncode

    def wait(self, seconds: float) -> int:
        """Wait for the exit status. Raises ``subprocess.TimeoutExpired``."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.wait(seconds)

    def output(self, last: int = 4000) -> str:
        """Return the last ``last`` characters of its output."""
        return self.log.read_text(errors="replace")[-last:] if self.log.exists() else ""
