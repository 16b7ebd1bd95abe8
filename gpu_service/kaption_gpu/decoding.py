"""Plans, executes, applies: gives free executors batches of the sessions' windows, and gives the results to the sessions."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import Costs
from kaption.domain.pool.plan import Batch, Candidate, Planner
from kaption_gpu import batches
from kaption_gpu.batches import BatchStats, Recovered
from kaption_gpu.engine.executor import Execution, Executors, ReplacedError

log = logging.getLogger(__name__)


class Decoding:
    """Runs the batches of one worker. ``waiting`` gives the windows that sessions want decoded.

    ``spawn`` makes a task; its failure ends the process. ``decoded`` and ``recovered`` take statistics. ``wake`` wakes the
    worker's loop after a change.
    """

    def __init__(
        self,
        settings: Settings,
        costs: Costs,
        executors: Executors,
        waiting: Callable[[], list[Candidate]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        wake: Callable[[], None],
        decoded: Callable[[BatchStats], None],
        recovered: Callable[[Recovered], None],
    ) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._settings = settings
        self._planner = Planner(settings.batch_size, costs)
        self._executors = executors
        self._waiting = waiting
        self._spawn = spawn
        self._wake = wake
        self._decoded = decoded
        self._recovered = recovered
        self._stopped = False

    def stop(self) -> None:
        """Begin no more batches."""
        self._stopped = True

    def plan(self) -> None:
        """Give every free executor a batch."""
        if self._stopped or not self._executors.free:
            return
        waiting = self._waiting()
        for _ in range(self._executors.free):
            batch = self._planner.next(waiting)
            if batch is None:
                return
            chosen = set(map(id, batch.windows))
            waiting = [candidate for candidate in waiting if id(candidate) not in chosen]
            task = self._spawn(self._execute(batch, self._begin(batch)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _begin(self, batch: Batch) -> asyncio.Future[Execution]:
        """Start ``batch``. Its windows are then in flight."""
        expected = self._planner.estimate(batch.kind, batch.padded, len(batch.windows))
        return self._executors.submit(batches.begin(batch), batches.limit(self._settings, expected))

    async def _execute(self, batch: Batch, running: asyncio.Future[Execution]) -> None:
        """Wait for one batch, and hand the results to their sessions. Requeue its windows if it failed."""
        try:
            execution = await running
        except ReplacedError as error:
            self._recovered(batches.recover(batch, error.cause))
            self._wake()
            return
        except BaseException:
            batches.put_back(batch)
            raise
        self._planner.spent(batch, execution.seconds)
        self.plan()  # before the results are applied, which takes as long as a small batch
        self._apply(batch, execution)

    def _apply(self, batch: Batch, execution: Execution) -> None:
        log.debug("batch_decoded", extra={"windows": len(batch.windows), "seconds": round(execution.seconds, 3)})
        batches.apply(batch, execution.results, time.time_ns() // 1_000_000)
        self._decoded(BatchStats(batch, execution.results, execution.seconds))
        self._wake()
