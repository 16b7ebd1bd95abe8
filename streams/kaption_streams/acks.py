"""Awaits deliveries and acknowledges their events in order (HAZARDS, faust 1-3).

If acknowledgements were out of order, a commit could pass an event that was not delivered. Awaiting each delivery alone
costs nine tenths of the speed.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from kaption_schemas.topics import MIB


class Window:
    """Events with pending deliveries: at most ``count`` of them and ``size`` bytes, or a single larger one.

    ``fail`` is called once, with the first error of a delivery.
    """

    def __init__(self, fail: Callable[[BaseException], None], count: int = 256, size: int = 2 * MIB) -> None:
        self._fail = fail
        self._count = count
        self._room_left = size
        self._pending: deque[tuple[asyncio.Future[Any], Callable[[], Any], int]] = deque()
        self._room = asyncio.Event()
        self._failed = False
        self._added = self._acknowledged = 0

    def __len__(self) -> int:
        return len(self._pending)

    async def add(self, deliveries: Sequence[Awaitable[Any]], ack: Callable[[], Any], size: int = 0) -> None:
        """Take an event's deliveries. Waits while the window is full. ``ack`` is called when this event and all before are done.

        ``size`` is the event's size in memory, in bytes.
        """
        while self._pending and (len(self._pending) >= self._count or self._room_left < size):
            self._room.clear()
            await self._room.wait()
        future = asyncio.ensure_future(deliveries[0] if len(deliveries) == 1 else asyncio.gather(*deliveries))
        self._room_left -= size
        self._added += 1
        self._pending.append((future, ack, size))
        future.add_done_callback(self._drain)

    async def settle(self) -> None:
        """Wait until all events added so far are acknowledged. It does not wait for later ones: under load some are always pending."""
        last = self._added
        while self._acknowledged < last and not self._failed:
            self._room.clear()
            await self._room.wait()

    def _drain(self, _: object) -> None:
        while self._pending and self._pending[0][0].done() and not self._failed:
            future, ack, size = self._pending[0]
            error = asyncio.CancelledError() if future.cancelled() else future.exception()
            if error is not None:
                # No later event may be acknowledged either: the process ends, and a replay brings all of them again.
                self._failed = True
                self._fail(error)
                break
            self._pending.popleft()
            self._room_left += size
            self._acknowledged += 1
            ack()
        self._room.set()
