"""Starts child processes, watches them, restarts them with backoff, and stops them so that none is left.

It owns the life of a process and knows nothing of its work. Each child leads its own process group, so that a signal also
reaches its children, and the kernel ends it if the supervisor is killed.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from typing import Final as Const

from kaption.adapters.processes import launch as launcher
from kaption_schemas.errors import ProcessError

_READY_POLL_SECONDS: Const = 0.2
#: Seconds between checks of a child that is ready, or has not been for a while.
_WATCH_SECONDS: Const = 2.0
_START_FACTOR: Const = 5
_LOG_BYTES: Const = 32 << 20
_LOG_CHECK_SECONDS: Const = 60.0
_TAIL_BYTES: Const = 16 << 10


async def _nothing() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child: its command, the file of its output, and its readiness check.

    The supervisor calls ``ready`` repeatedly while the child runs. ``drain_seconds`` is the time between SIGTERM and SIGKILL.
    The kernel sends ``parent_death_signal`` if the supervisor dies. With ``kill_is_usual`` a SIGKILL at the end is not
    reported; ``clean`` removes what an ended process leaves.

    A child that runs without being ready for ``hang_seconds`` (0: no limit) is restarted; one that has not been ready in this
    life has ``_START_FACTOR`` times as long. Time counts only while ``needs`` says that the child's dependencies are there.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    prepare: tuple[str, ...] = ()
    drain_seconds: float = 15.0
    parent_death_signal: int = signal.SIGKILL
    kill_is_usual: bool = False
    clean: Callable[[], None] = lambda: None
    hang_seconds: float = 0.0
    needs: Callable[[], Awaitable[bool]] = _nothing


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays before a restart: none, then doubling from ``first`` to ``most`` seconds; forgotten after ``steady`` seconds of life."""

    first: float = 0.5
    most: float = 30.0
    steady: float = 60.0

    def delay(self, failures: int) -> float:
        """Seconds to wait when one more life has ended after that many failures in a row."""
        return min(self.first * 2.0 ** min(failures - 1, 16), self.most) if failures else 0.0


class Child:
    """One process of a ``ChildSpec``, started any number of times."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.restarts = 0
        self.was_ready = False
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The running process's id."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the process. Raises ``OSError`` when it can't be, for example on a full disk."""
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        if self.spec.prepare:
            prepared = await self._spawn(self.spec.prepare)
            await prepared.wait()
        self._process = await self._spawn(self.spec.argv)

    async def _spawn(self, argv: Sequence[str]) -> asyncio.subprocess.Process:
        launch = (
            sys.executable,
            "-I",
            "-S",
            launcher.__file__,
            str(int(self.spec.parent_death_signal)),
            str(os.getpid()),
        )
        with self.spec.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *launch,
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.spec.env),
                start_new_session=True,
            )

    async def wait(self) -> int:
        """Wait for the end and return the exit status (negative: the signal); ends what the process has left behind."""
        if self._process is None:
            raise RuntimeError(f"{self.spec.name} was never started")
        status = await self._process.wait()
        _signal_group(self._process.pid, signal.SIGKILL)
        self.spec.clean()
        return status

    async def stop(self) -> bool:
        """SIGTERM, a bounded wait, SIGKILL. Returns whether SIGTERM was enough."""
        if self.pid is None:
            return True
        _signal_group(self.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(self.spec.drain_seconds):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()
            return False
        return True

    def kill(self) -> None:
        """SIGKILL to the process and all it started."""
        if self.pid is not None:
            _signal_group(self.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """The newest message of the child's log that is a warning or worse, else its last line."""
        return _last_words(self.spec.log)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _last_words(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("level") in {"WARNING", "ERROR", "CRITICAL"}:
                what, error = entry.get("event") or entry["message"], entry.get("error")
                why = error.get("type") if isinstance(error, dict) else error
                return f"{what} ({why})" if why else str(what)
    return lines[-1][:300] if lines else ""


@dataclass(slots=True)
class _Watch:
    """The state of a child across its restarts."""

    child: Child
    failures: int = 0
    started: float = 0.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Keeps children running. ``say`` gets one line for each event that an operator should see.

    ``restarted`` gets the name of each restarted child. A child that ends ``attempts`` times before it
    was ever ready makes ``failed`` raise ``ProcessError``; one that had been ready is restarted without limit.
    Every ``watch_seconds`` the supervisor checks that a ready child still is.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        backoff: Backoff | None = None,
        attempts: int = 3,
        watch_seconds: float = _WATCH_SECONDS,
        restarted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._say = say
        self._backoff = backoff or Backoff()
        self._attempts = attempts
        self._watch_seconds = watch_seconds
        self._restarted = restarted
        self._watches: dict[str, _Watch] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rotation: asyncio.Task[None] | None = None

    @property
    def children(self) -> tuple[Child, ...]:
        """Every child, in the order of their start."""
        return tuple(watch.child for watch in self._watches.values())

    def start(self, spec: ChildSpec) -> None:
        """Start a child and keep it running; returns at once."""
        watch = _Watch(Child(spec))
        self._watches[spec.name] = watch
        watch.task = asyncio.create_task(self._keep(watch), name=f"keep {spec.name}")
        if self._rotation is None:
            self._rotation = asyncio.create_task(self._rotate(), name="rotate logs")

    async def wait_ready(self, *names: str) -> None:
        """Wait until these children (default: all) are ready. Raises ``ProcessError`` when one can't be started."""
        events = [self._watches[name].ready.wait() for name in names or tuple(self._watches)]
        ready = asyncio.gather(*events)
        both: tuple[asyncio.Future[Any], ...] = (ready, self._failed)
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if ready not in done:
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)
            self._failed.result()

    async def failed(self) -> None:
        """Wait without end. Raises ``ProcessError`` when a child is abandoned."""
        await asyncio.shield(self._failed)

    async def stop(self, *groups: Sequence[str]) -> None:
        """Stop the children of each group together, one group after the other, then whatever is left."""
        if self._rotation is not None:
            self._rotation.cancel()
        for group in (*groups, tuple(self._watches)):
            await asyncio.gather(*(self._stop(self._watches.pop(name)) for name in group if name in self._watches))
        if self._failed.done():
            self._failed.exception()
        self._failed.cancel()

    def kill(self) -> None:
        """SIGKILL to every child, for a second signal: no waiting."""
        for watch in self._watches.values():
            watch.child.kill()

    async def _stop(self, watch: _Watch) -> None:
        if watch.task is not None:
            watch.task.cancel()
            await asyncio.gather(watch.task, return_exceptions=True)
        if not await watch.child.stop() and not watch.child.spec.kill_is_usual:
            self._say(
                f"{watch.child.spec.name} did not stop within {watch.child.spec.drain_seconds:g} s and was killed"
            )

    async def _keep(self, watch: _Watch) -> None:
        child = watch.child
        while True:
            why = await self._live(watch)
            watch.ready.clear()
            if time.monotonic() - watch.started > self._backoff.steady:
                watch.failures = 0
            watch.failures += 1
            if not child.was_ready and watch.failures >= self._attempts:
                self._give_up(child, why)
                return
            # What was ready is missed by now: it comes back without a wait unless it ends again and again.
            delay = self._backoff.delay(watch.failures - child.was_ready)
            when = f"in {delay:g} s" if delay else "at once"
            self._say(f"{child.spec.name} {why}; starting it again {when} (see {child.spec.log})")
            await asyncio.sleep(delay)
            child.restarts += 1
            self._restarted(child.spec.name)

    async def _live(self, watch: _Watch) -> str:
        """One life of a child; returns how it ended."""
        watch.started = time.monotonic()
        try:
            await watch.child.start()
        except OSError as error:
            return f"can't be started: {error.strerror}"
        probe = asyncio.create_task(self._probe(watch), name=f"probe {watch.child.spec.name}")
        try:
            return _ending(await watch.child.wait())
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)

    async def _probe(self, watch: _Watch) -> None:
        """Ask a child whether it is ready, for as long as it lives; end it when it is not for too long."""
        spec, patience, told = watch.child.spec, _START_FACTOR * watch.child.spec.hang_seconds, False
        since = time.monotonic()
        while True:
            if await spec.ready():
                since, patience = time.monotonic(), spec.hang_seconds
                if not told and watch.child.restarts:
                    self._say(f"{spec.name} is ready again")
                told = watch.child.was_ready = True
                watch.ready.set()
            elif not spec.hang_seconds:
                pass
            elif (told or time.monotonic() - since > patience) and not await spec.needs():
                since = time.monotonic()
            elif time.monotonic() - since > patience:
                self._say(f"{spec.name} runs and was not ready for {patience:g} s; ending it")
                watch.child.kill()
                return
            await asyncio.sleep(self._watch_seconds if told else _READY_POLL_SECONDS)

    def _give_up(self, child: Child, why: str) -> None:
        if not self._failed.done():
            words = child.last_words()
            said = f": {words}" if words else ""
            message = f"{child.spec.name} {why} {self._attempts} times at its start{said} (see {child.spec.log})"
            self._failed.set_exception(ProcessError(message))

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(_LOG_CHECK_SECONDS)
            for child in self.children:
                rotate(child.spec.log, _LOG_BYTES)


def rotate(log: Path, most: int) -> None:
    """Move what a log holds to ``<log>.1`` once it exceeds ``most`` bytes; the writer appends and need not know."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > most:
            log.with_name(f"{log.name}.1").write_bytes(log.read_bytes())
            os.truncate(log, 0)


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
