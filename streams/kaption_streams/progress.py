"""Whether an agent gets on: Faust's own watchdogs only log, and a consumer may fall silent (HAZARDS, faust 6, aiokafka 6)."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from faust.types import TP

#: Next offset to be read, and end of the log as the consumer knows it.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an agent stands. ``pending``: inputs that are not acknowledged; ``taken``: inputs that it was given so far."""

    places: dict[TP, Place]
    pending: int
    taken: int

    @property
    def has_work(self) -> bool:
        """Whether anything is left to read, or to acknowledge."""
        return self.pending > 0 or any(position < end for position, end in self.places.values())


class StuckError(Exception):
    """There was something to do, and nothing was done, for ``Settings.hang_seconds``."""


class Progress:
    """Raises ``StuckError`` from ``look`` once an agent that has work has stood still for ``limit`` seconds."""

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._last: Hashable = None
        self._since = clock()

    def look(self, standing: Standing) -> None:
        """Compare with the last look."""
        positions = sorted((tp, position) for tp, (position, _) in standing.places.items())
        marks = (tuple(positions), standing.pending, standing.taken) if standing.has_work else None
        if marks is None or marks != self._last:
            self._last, self._since = marks, self._clock()
        elif self._clock() - self._since > self._limit:
            raise StuckError(f"{standing.pending} inputs are not acknowledged")


async def places(consumer: Any) -> dict[TP, Place]:  # Faust ships no types
    """Where Faust's ``consumer`` stands in each partition that it is assigned."""
    found: dict[TP, Place] = {}
    for tp in consumer.assignment():
        position, end = await consumer.position(tp), consumer.highwater(tp)
        if position is not None and end is not None:
            found[tp] = (position, end)
    return found
