"""Changes Faust's consumer to continue reading as soon as a queue has room.

While a stream's queue is nearly full, Faust fetches no records of the partitions that filled it. It waits a second for
records of the others; if there are no others, it sleeps for a second. The queue is empty again after some milliseconds,
and the agent is idle for the rest of the second although records are buffered (HAZARDS, faust 14). So a partition that
has room again ends the wait.
"""

import asyncio
import contextlib
from typing import Any

from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP


class RoomConsumer(Consumer):
    """A consumer that stops waiting for other partitions once a held partition has room again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._room = asyncio.Event()

    def on_buffer_drop(self, tp: TP) -> None:
        """End the wait: a partition has room again."""
        held = tp in self._buffered_partitions
        super().on_buffer_drop(tp)
        if held:
            self._room.set()
            # The loop is closed because its thread has ended, so nothing waits there.
            with contextlib.suppress(RuntimeError):
                self._thread.thread_loop.call_soon_threadsafe(self._look_again)

    def _look_again(self) -> None:
        """Make the waiting fetch check the buffered records. It skips partitions that are still on hold."""
        consumer = self._thread._consumer
        if consumer is not None:
            for waiter in tuple(consumer._fetcher._fetch_waiters):
                if not waiter.done():
                    waiter.set_result(None)

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's signature
        """Like Faust's own, which is called repeatedly, but without the sleep of a second when every partition is on hold."""
        if self._buffered_partitions and not self._get_active_partitions():
            self._room.clear()
            await self.wait_first(self._room.wait(), timeout=timeout)
            return None, None
        return await super()._wait_next_records(timeout)
