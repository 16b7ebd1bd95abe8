"""Executing plans: each executor is one thread with one batch in flight. The model releases the GIL while it computes.

An executor whose batch raises or hangs is replaced by a fresh thread. That one decodes the warm-up first, and only then is
the batch told to have failed: so a backend that is broken ends the process, and no window is blamed for it.
"""

import asyncio
import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Final as Const

from kaption.domain.decoding.port import Backend, Costs, Decoded, Window

log = logging.getLogger(__name__)

#: Niceness of the runtimes' own threads. Whoever hands them work (this process's loop, agents, a broker beside it) needs
#: little, but needs it at once: with equal shares records wait behind batches, and whole seconds of them pile up. The
#: executors' threads keep theirs: one that waits for a core with Python's lock in its hands would stop the loop.
_NICE: Const = 10
#: Seconds after which a thread hands Python's lock on; the loop asks for it thousands of times a second.
_SWITCH_SECONDS: Const = 0.0005
#: Hung threads that are replaced. Each keeps a worker of its runtime, so runtimes are made with as many beyond the executors.
SPARE: Const = 1


def step_back() -> None:
    """Let every other thread of the machine go before the calling one, and those that it starts. Linux keeps it by thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


async def load(make: Callable[[], Backend], executors: int, batch_size: int) -> tuple[Backend, Costs]:
    """Make a backend, warm it up, and measure what batches take on all executors at once.

    In threads that step back: runtimes compute in threads that they start here.
    """

    def warm() -> Backend:
        backend = make()
        backend.warm_up()
        return backend

    sys.setswitchinterval(_SWITCH_SECONDS)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(executors, "load", step_back) as threads:
        backend = await loop.run_in_executor(threads, warm)
        measured = [loop.run_in_executor(threads, backend.calibrate, batch_size) for _ in range(executors)]
        # The least disturbed of them: others may be busy on the machine.
        costs = min(await asyncio.gather(*measured), key=lambda costs: costs.a_second)
    log.info("batches_calibrated", extra={"second": round(costs.a_second, 4), "fixed": round(costs.fixed, 2)})
    return backend, costs


class Cause(StrEnum):
    """Why an executor was replaced: its batch raised, or took far too long."""

    FAILED = "failed"
    HUNG = "hung"


class ReplacedError(Exception):
    """A batch's executor failed or hung, and another stands in its place: the windows are to be computed again."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.value)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Execution:
    """Results of a batch in its order, and the seconds that its executor was busy."""

    results: tuple[Decoded, ...]
    seconds: float


class _Thread(threading.Thread):
    """Runs what comes, until it is None. A daemon: at the interpreter's end nobody waits for one that hangs."""

    def __init__(self) -> None:
        super().__init__(name="executor", daemon=True)
        self.inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        while work := self.inbox.get():
            work()


@dataclass(slots=True, eq=False)
class _Flight:
    """A batch in flight (``windows``), or a replacement's warm-up (None). ``future`` and ``lost`` are whose batch waits
    for it: the batch's own, or that of the executor that is replaced, and why it is.
    """

    thread: _Thread
    windows: list[Window] | None
    limit: float
    future: "asyncio.Future[Execution]"
    lost: Cause | None
    began: float
    late: bool = False


class Executors:
    """``count`` executors of one backend; a warm-up may take ``limit`` seconds. ``replaced`` is told of each replacement.

    ``broken`` raises what a replacement's warm-up raised: the backend decodes no more.
    """

    def __init__(
        self, backend: Backend, count: int, limit: float, replaced: Callable[[Cause], None] = lambda _: None
    ) -> None:
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._backend = backend
        self._limit = limit
        self._replaced = replaced
        self._idle = [_Thread() for _ in range(count)]
        self._flights: dict[_Thread, _Flight] = {}
        self._hung: set[_Thread] = set()
        self._missing = 0
        self._busy = 0.0

    @property
    def free(self) -> int:
        """Executors without a batch."""
        return len(self._idle)

    @property
    def exhausted(self) -> bool:
        """Whether more threads hang than are replaced."""
        return len(self._hung) > SPARE

    def busy_seconds(self) -> float:
        """Seconds that the executors have computed so far, all together."""
        now = time.monotonic()
        return self._busy + sum(now - flight.began for flight in self._flights.values())

    def submit(self, windows: Sequence[Window], limit: float) -> asyncio.Future[Execution]:
        """Decode ``windows`` on a free executor, which is taken at once and hangs after ``limit`` seconds.

        Raises ``IndexError`` when none is free. The future raises ``ReplacedError``.
        """
        future: asyncio.Future[Execution] = asyncio.get_running_loop().create_future()
        self._start(self._idle.pop(), list(windows), limit, future)
        return future

    def look(self) -> None:
        """Replace executors that were over their limits at this look and the last.

        One look is not enough: when the whole process was stopped for a while every batch seems late.
        """
        now = time.monotonic()
        for flight in list(self._flights.values()):
            late, flight.late = flight.late, now - flight.began > flight.limit
            if late and flight.late:
                self._land(flight)
                self._hung.add(flight.thread)
                self._replace(flight, Cause.HUNG, None)

    def close(self) -> None:
        """Let the threads end; a batch in flight is not waited for."""
        for thread in (*self._idle, *self._flights):
            thread.inbox.put(None)

    def _start(
        self,
        thread: _Thread,
        windows: list[Window] | None,
        limit: float,
        future: asyncio.Future[Execution],
        lost: Cause | None = None,
    ) -> None:
        flight = _Flight(thread, windows, limit, future, lost, time.monotonic())
        self._flights[thread] = flight
        loop = asyncio.get_running_loop()

        def work() -> None:
            results, error = self._compute(windows)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the result
                loop.call_soon_threadsafe(self._finish, flight, results, error)

        thread.inbox.put(work)

    def _compute(self, windows: list[Window] | None) -> tuple[tuple[Decoded, ...], BaseException | None]:
        """In the executor's thread: the results, or what the backend raised."""
        try:
            if windows is None:
                self._backend.warm_up()
                return (), None
            return tuple(self._backend.transcribe(windows)), None
        except BaseException as error:  # noqa: BLE001  # the thread's edge: whatever it was goes to the loop
            return (), error

    def _finish(self, flight: _Flight, results: tuple[Decoded, ...], error: BaseException | None) -> None:
        """A thread has come back; what one brings that was replaced is dropped, since its windows are computed again."""
        if flight.thread in self._hung:
            self._hung.discard(flight.thread)
            flight.thread.inbox.put(None)
            log.info("hung_executor_returned")
            self._refill()
            return
        seconds = self._land(flight)
        if error is not None:
            flight.thread.inbox.put(None)
            self._replace(flight, Cause.FAILED, error)
            return
        self._idle.append(flight.thread)
        if flight.future.done():
            return
        if flight.lost:
            flight.future.set_exception(ReplacedError(flight.lost))
        else:
            flight.future.set_result(Execution(results, seconds))

    def _land(self, flight: _Flight) -> float:
        """``flight`` is over, or given up; how long it took."""
        del self._flights[flight.thread]
        seconds = time.monotonic() - flight.began
        self._busy += seconds
        return seconds

    def _replace(self, flight: _Flight, cause: Cause, error: BaseException | None) -> None:
        """Put a fresh thread in the place of ``flight``'s, as far as the spare ones go."""
        log.error("executor_replaced", exc_info=error, extra={"cause": cause.value, "hung": len(self._hung)})
        self._replaced(cause)
        if flight.windows is None and error is not None:
            if not self.broken.done():
                self.broken.set_exception(error)
        elif self.exhausted:
            self._missing += 1
            if not flight.future.done():
                flight.future.set_exception(ReplacedError(flight.lost or cause))
        else:
            self._start(_Thread(), None, self._limit, flight.future, flight.lost or cause)

    def _refill(self) -> None:
        """A hung thread is gone, so its runtime's worker is free again."""
        if self._missing and not self.exhausted:
            self._missing -= 1
            self._idle.append(_Thread())
