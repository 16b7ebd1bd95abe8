"""Deliveries that are under way, acknowledged in the order of their events (HAZARDS, faust 1-3).

Acking out of order lets a commit pass an event that was not delivered; awaiting each alone costs nine tenths of the speed.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any


class Window:
    """At most ``size`` events whose deliveries are awaited; ``fail`` is called once, with the first delivery's error."""

    def __init__(self, fail: Callable[[BaseException], None], size: int = 64) -> None:
        self._fail = fail
        self._size = size
        self._pending: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self._room = asyncio.Event()
        self._failed = False

    def __len__(self) -> int:
        return len(self._pending)

    async def add(self, deliveries: Sequence[Awaitable[Any]], ack: Callable[[], Any]) -> None:
        """Take an event's deliveries; waits while the window is full. ``ack`` is called when it and all before it are done."""
        while len(self._pending) >= self._size:
            self._room.clear()
            await self._room.wait()
        future = asyncio.ensure_future(asyncio.gather(*deliveries))
        self._pending.append((future, ack))
        future.add_done_callback(self._drain)

    async def settle(self) -> None:
        """Wait until everything is acknowledged."""
        while self._pending and not self._failed:
            self._room.clear()
            await self._room.wait()

    def _drain(self, _: object) -> None:
        while self._pending and self._pending[0][0].done() and not self._failed:
            future, ack = self._pending[0]
            error = asyncio.CancelledError() if future.cancelled() else future.exception()
            if error is not None:
                # Nothing behind it may be acknowledged either: the process ends, and the log gives all of it again.
                self._failed = True
                self._fail(error)
                break
            self._pending.popleft()
            ack()
        self._room.set()
