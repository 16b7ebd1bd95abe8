"""Executes plans: each executor is one thread with one batch in flight. The model releases the GIL while it computes.

A fresh thread replaces an executor whose batch raises or hangs. It decodes the warm-up first, and only then is the batch
reported as failed: so a broken backend ends the process, and no window is blamed for it.
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

#: Niceness of the runtimes' own threads. The processes that give them work (this one's loop, agents, a local broker) need
#: little CPU, but at once: with equal shares records wait behind batches, and seconds of them pile up. The executors'
#: threads keep their niceness: one that waits for a core while it holds the GIL would stop the loop.
_NICE: Const = 10
#: Seconds after which a thread hands over the GIL; the loop needs it thousands of times a second.
_SWITCH_SECONDS: Const = 0.0005
#: Hung threads that are replaced. Each keeps a worker of its runtime, so runtimes have this many more than executors.
SPARE: Const = 1


def step_back() -> None:
    """Lower the priority of the calling thread, and of those that it starts, below all others. Linux keeps it per thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


async def load(make: Callable[[], Backend], executors: int, batch_size: int) -> tuple[Backend, Costs]:
    """Make a backend, warm it up, and measure the cost of batches on all executors at once.

    This happens in threads of low priority (``step_back``), since runtimes start their compute threads here.
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
        # The least disturbed measurement counts: the machine may be busy.
        costs = min(await asyncio.gather(*measured), key=lambda costs: costs.a_second)
    log.info("batches_calibrated", extra={"second": round(costs.a_second, 4), "fixed": round(costs.fixed, 2)})
    return backend, costs


class Cause(StrEnum):
    """Why an executor was replaced: its batch raised, or exceeded its time limit."""

    FAILED = "failed"
    HUNG = "hung"


class ReplacedError(Exception):
    """A batch's executor failed or hung and was replaced: decode the windows again."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.value)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Execution:
    """The results of a batch in its order, and the seconds that its executor was busy."""

    results: tuple[Decoded, ...]
    seconds: float


class _Thread(threading.Thread):
    """Runs tasks until it gets None. It is a daemon, so that the interpreter does not wait for a hung one at exit."""

    def __init__(self) -> None:
        super().__init__(name="executor", daemon=True)
        self.inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        while work := self.inbox.get():
            work()


@dataclass(slots=True, eq=False)
class _Flight:
    """A batch in flight (``windows``), or a replacement's warm-up (None). ``future`` is the waiting batch's: its own, or the
    replaced executor's; then ``lost`` is the cause.
    """

    thread: _Thread
    windows: list[Window] | None
    limit: float
    future: "asyncio.Future[Execution]"
    lost: Cause | None
    began: float
    late: bool = False


class Executors:
    """``count`` executors of one backend. A warm-up may take ``limit`` seconds; ``replaced`` is called at each replacement.

    ``broken`` raises what a replacement's warm-up raised: the backend no longer decodes.
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
        """The number of executors without a batch."""
        return len(self._idle)

    @property
    def exhausted(self) -> bool:
        """Whether more threads hang than are replaced."""
        return len(self._hung) > SPARE

    def busy_seconds(self) -> float:
        """Seconds that all executors together have computed so far."""
        now = time.monotonic()
        return self._busy + sum(now - flight.began for flight in self._flights.values())

    def submit(self, windows: Sequence[Window], limit: float) -> asyncio.Future[Execution]:
        """Decode ``windows`` on a free executor, from now on; after ``limit`` seconds it counts as hung.

        Raises ``IndexError`` if none is free. The future raises ``ReplacedError``.
        """
        future: asyncio.Future[Execution] = asyncio.get_running_loop().create_future()
        self._start(self._idle.pop(), list(windows), limit, future)
        return future

    def look(self) -> None:
        """Replace executors that were over their limits at this check and the last.

        One check is not enough: after the whole process was stopped for a while, every batch seems late.
        """
        now = time.monotonic()
        for flight in list(self._flights.values()):
            late, flight.late = flight.late, now - flight.began > flight.limit
            if late and flight.late:
                self._land(flight)
                self._hung.add(flight.thread)
                self._replace(flight, Cause.HUNG, None)

    def close(self) -> None:
        """End the threads without waiting for a batch in flight."""
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
            with contextlib.suppress(RuntimeError):  # the loop is closed: the result is not needed
                loop.call_soon_threadsafe(self._finish, flight, results, error)

        thread.inbox.put(work)

    def _compute(self, windows: list[Window] | None) -> tuple[tuple[Decoded, ...], BaseException | None]:
        """Decode in the executor's thread; return the results, or what the backend raised."""
        try:
            if windows is None:
                self._backend.warm_up()
                return (), None
            return tuple(self._backend.transcribe(windows)), None
        except BaseException as error:  # noqa: BLE001  # the thread's edge: any error goes to the loop
            return (), error

    def _finish(self, flight: _Flight, results: tuple[Decoded, ...], error: BaseException | None) -> None:
        """Take a thread's results; drop those of a replaced thread, since its windows are decoded again."""
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
        """End ``flight``, finished or abandoned; return the seconds that it took."""
        del self._flights[flight.thread]
        seconds = time.monotonic() - flight.began
        self._busy += seconds
        return seconds

    def _replace(self, flight: _Flight, cause: Cause, error: BaseException | None) -> None:
        """Replace the thread of ``flight`` by a fresh one, while there are spare ones."""
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
        """Note that a hung thread has ended, so that its runtime's worker is free again."""
        if self._missing and not self.exhausted:
            self._missing -= 1
            self._idle.append(_Thread())
