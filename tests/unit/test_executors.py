"""An executor that fails or hangs is replaced, and what a hung one still brings is dropped."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from kaption.domain.decoding.port import Costs, Decoded, DecodeOptions, Kind, ModelInfo, Window
from kaption_gpu.engine.executor import SPARE, Cause, Execution, Executors, ReplacedError

LIMIT = 0.05


def window(value: float = 1.0) -> Window:
    return Window(0, Kind.FINAL, np.full(16, value, np.float32), 16000 * 8, DecodeOptions())


class Scripted:
    """Fits ``Backend``: each call, of a warm-up too, first does what the script says next."""

    info = ModelInfo("scripted", "0", "test")

    def __init__(self, *script: Callable[[], object]) -> None:
        self._script = list(script)
        self.calls: list[str] = []
        self.threads: list[threading.Thread] = []

    def warm_up(self) -> None:
        self._next("warm")

    def calibrate(self, size: int) -> Costs:  # the port's signature
        return Costs()

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        self._next("batch")
        return [Decoded(str(w.audio[0]), None, 0.0, 0.0, 1.0) for w in batch]

    def _next(self, call: str) -> None:
        self.calls.append(call)
        self.threads.append(threading.current_thread())
        if self._script:
            self._script.pop(0)()


def fine() -> None:
    """Nothing goes wrong."""


def fails() -> None:
    raise RuntimeError("out of order")


async def until(holds: Callable[[], bool], executors: Executors | None = None) -> None:
    async with asyncio.timeout(10):
        while not holds():
            if executors:
                executors.look()
            await asyncio.sleep(0.01)


async def cause(future: asyncio.Future[Execution]) -> Cause:
    with pytest.raises(ReplacedError) as caught:
        await asyncio.wait_for(future, 10)
    return caught.value.cause


async def test_an_executor_is_taken_when_it_is_given_work() -> None:
    executors = Executors(Scripted(), 1, 10)
    future = executors.submit([window(2)], 10)
    assert executors.free == 0
    with pytest.raises(IndexError):
        executors.submit([], 10)
    assert [d.text for d in (await future).results] == ["2.0"]
    assert executors.free == 1
    executors.close()


async def test_one_that_fails_is_replaced_by_a_fresh_thread_that_is_warm_before_its_windows_are_told() -> None:
    backend, told = Scripted(fails), list[Cause]()
    executors = Executors(backend, 1, 10, told.append)
    assert await cause(executors.submit([window()], 10)) is Cause.FAILED
    assert backend.calls == ["batch", "warm"]
    assert told == [Cause.FAILED]
    assert executors.free == 1
    await executors.submit([window()], 10)
    assert backend.threads[0] is not backend.threads[1] is backend.threads[2]
    await until(lambda: not backend.threads[0].is_alive())
    executors.close()


async def test_a_backend_that_does_not_even_warm_up_is_broken_and_no_window_is_blamed() -> None:
    executors = Executors(Scripted(fails, fails), 2, 10)
    future = executors.submit([window()], 10)
    with pytest.raises(RuntimeError, match="out of order"):
        await asyncio.wait_for(executors.broken, 10)
    assert not future.done()
    executors.close()


async def test_one_that_hangs_is_replaced_and_its_late_result_is_dropped() -> None:
    release = threading.Event()
    backend, told = Scripted(release.wait), list[Cause]()
    executors = Executors(backend, 1, 10, told.append)
    future = executors.submit([window()], LIMIT)
    await until(future.done, executors)
    assert await cause(future) is Cause.HUNG
    assert told == [Cause.HUNG]
    assert (executors.free, executors.exhausted) == (1, False)
    again = executors.submit([window(5)], 10)
    assert [d.text for d in (await again).results] == ["5.0"]
    release.set()
    await until(lambda: not backend.threads[0].is_alive())
    await asyncio.sleep(0.05)
    assert executors.free == 1, "the late one is not an executor more"
    executors.close()


async def test_one_look_is_not_enough() -> None:
    """As after a stop of the whole process: the clock has gone on, the batch has not."""
    release = threading.Event()
    executors = Executors(Scripted(release.wait), 1, 10)
    future = executors.submit([window()], LIMIT)
    time.sleep(2 * LIMIT)  # noqa: ASYNC251  # the loop stands still as well
    executors.look()
    release.set()
    await until(future.done)
    executors.look()
    assert (await future).results
    executors.close()


async def test_a_batch_within_its_limit_is_left_alone() -> None:
    release = threading.Event()
    executors = Executors(Scripted(release.wait), 1, 10)
    future = executors.submit([window()], 60)
    for _ in range(3):
        executors.look()
    release.set()
    assert (await future).results
    executors.close()


async def test_more_that_hang_than_are_replaced_is_told_at_once_and_one_that_comes_back_helps() -> None:
    holds = [threading.Event() for _ in range(SPARE + 1)]
    backend = Scripted(*(hold.wait for hold in holds))
    executors = Executors(backend, SPARE + 1, 10)
    futures = [executors.submit([window()], LIMIT) for _ in holds]
    await until(lambda: all(future.done() for future in futures), executors)
    assert [await cause(future) for future in futures] == [Cause.HUNG] * len(holds)
    assert executors.exhausted
    await until(lambda: executors.free == SPARE)
    holds[0].set()
    await until(lambda: not executors.exhausted)
    assert executors.free == SPARE + 1
    holds[1].set()
    executors.close()


async def test_a_replacement_that_hangs_in_its_warm_up_is_replaced_as_well() -> None:
    release = threading.Event()
    backend = Scripted(fails, release.wait)
    executors = Executors(backend, 1, LIMIT)
    future = executors.submit([window()], 10)
    await until(future.done, executors)
    assert await cause(future) is Cause.FAILED
    assert backend.calls == ["batch", "warm", "warm"]
    assert executors.free == 1
    release.set()
    executors.close()


async def test_who_no_longer_waits_is_told_nothing() -> None:
    release = threading.Event()
    executors = Executors(Scripted(release.wait, fails), 2, 10)
    futures = [executors.submit([window()], 10) for _ in range(2)]
    for future in futures:
        future.cancel()
    release.set()
    await until(lambda: executors.free == 2)
    executors.close()


STUCK = """
import asyncio, threading
import tests.unit.test_executors as this
from kaption_gpu.engine.executor import Executors

async def main():
    executors = Executors(this.Scripted(threading.Event().wait, this.fine, threading.Event().wait), 2, 10)
    hung = executors.submit([this.window()], this.LIMIT)
    await this.until(hung.done, executors)
    executors.submit([this.window()], 10)
    executors.close()
    print("ends")

asyncio.run(main())
"""


def test_a_stuck_thread_does_not_keep_a_process_that_ends() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], timeout=30, capture_output=True, check=True)
    assert done.stdout.split() == [b"ends"]
