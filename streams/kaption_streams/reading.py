"""Faust's consumer, which reads on as soon as there is room.

While a stream's queue is nearly full, Faust asks for no records of the partitions that filled it. It asks for the others, and
waits a second for theirs; where there are no others, it sleeps for one. The queue is empty again after some milliseconds, and
the agent stands still for the rest of the second, with records at hand (HAZARDS, faust 14). So a partition that has room again
ends the wait.
"""

import asyncio
import contextlib
from typing import Any

from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP


class RoomConsumer(Consumer):
    """A consumer that waits no longer for other partitions once a held one may be read on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._room = asyncio.Event()

    def on_buffer_drop(self, tp: TP) -> None:
        """A partition may be read on."""
        held = tp in self._buffered_partitions
        super().on_buffer_drop(tp)
        if held:
            self._room.set()
            # The loop of a thread that has ended is closed: nothing waits there any more.
            with contextlib.suppress(RuntimeError):
                self._thread.thread_loop.call_soon_threadsafe(self._look_again)

    def _look_again(self) -> None:
        """Let what waits for records look through those at hand; it leaves out what may not be read yet."""
        consumer = self._thread._consumer
        if consumer is not None:
            for waiter in tuple(consumer._fetcher._fetch_waiters):
                if not waiter.done():
                    waiter.set_result(None)

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's signature
        """As Faust's own, which calls it again and again; but where every partition is held it does not sleep for a second."""
        if self._buffered_partitions and not self._get_active_partitions():
            self._room.clear()
            await self.wait_first(self._room.wait(), timeout=timeout)
            return None, None
        return await super()._wait_next_records(timeout)
