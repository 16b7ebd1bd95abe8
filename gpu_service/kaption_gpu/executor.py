"""Executing plans: each executor is one thread with one batch in flight. The model releases the GIL while it computes."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final as Const

from kaption.domain.decoding import Backend, Decoded, Window

#: Niceness of the runtimes' own threads. Whoever hands them work (this process's loop, agents, a broker beside it) needs
#: little, but needs it at once: with equal shares records wait behind batches, and whole seconds of them pile up. The
#: executors' threads keep theirs: one that waits for a core with Python's lock in its hands would stop the loop.
_NICE: Const = 10
#: Seconds after which a thread hands Python's lock on; the loop asks for it thousands of times a second.
_SWITCH_SECONDS: Const = 0.0005


def _step_back() -> None:
    """Let every other thread of the machine go before the calling one, and those that it starts. Linux keeps it by thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


async def load(make: Callable[[], Backend]) -> Backend:
    """Make a backend and warm it up, in a thread that steps back: runtimes compute in threads that they start here."""

    def work() -> Backend:
        backend = make()
        backend.warm_up()
        return backend

    sys.setswitchinterval(_SWITCH_SECONDS)
    with ThreadPoolExecutor(1, "load", _step_back) as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


@dataclass(frozen=True, slots=True)
class Execution:
    """Results of a batch in its order, and the seconds that its executor was busy."""

    results: tuple[Decoded, ...]
    seconds: float


class Executors:
    """``count`` one-thread executors of one backend."""

    def __init__(self, backend: Backend, count: int) -> None:
        self._backend = backend
        self._threads = [ThreadPoolExecutor(1, f"executor-{n}") for n in range(count)]
        self._idle = list(range(count))
        self._since: dict[int, float] = {}
        self._busy = 0.0

    @property
    def free(self) -> int:
        """Executors without a batch."""
        return len(self._idle)

    def busy_seconds(self) -> float:
        """Seconds that the executors have computed so far, all together."""
        now = time.monotonic()
        return self._busy + sum(now - since for since in self._since.values())

    def busy_for(self) -> float:
        """Seconds that the oldest batch in flight has been running; 0 when all are idle."""
        return time.monotonic() - min(self._since.values()) if self._since else 0.0

    def submit(self, windows: Sequence[Window]) -> asyncio.Future[Execution]:
        """Decode ``windows`` on a free executor, which is taken at once. Raises ``IndexError`` when none is free.

        The future raises what the backend raises.
        """
        number = self._idle.pop()
        self._since[number] = time.monotonic()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads[number], self._run, list(windows))
        future.add_done_callback(lambda _: self._release(number))
        return future

    def _run(self, windows: list[Window]) -> Execution:
        began = time.monotonic()
        results = self._backend.transcribe(windows)
        return Execution(tuple(results), time.monotonic() - began)

    def _release(self, number: int) -> None:
        self._busy += time.monotonic() - self._since.pop(number)
        self._idle.append(number)

    def close(self) -> None:
        """Let the threads end; a batch in flight is not waited for."""
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
