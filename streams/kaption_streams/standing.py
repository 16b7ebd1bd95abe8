"""Measures an agent's progress: Faust's own watchdogs only log, and a consumer may stall (HAZARDS, faust 6, aiokafka 6)."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from faust.types import TP

#: The next offset to read, and the end of the log as the consumer knows it.
Offsets = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """An agent's progress. ``pending``: inputs that are not acknowledged. ``taken``: the number of inputs so far."""

    places: dict[TP, Offsets]
    pending: int
    taken: int

    @property
    def has_work(self) -> bool:
        """Whether records are left to read or to acknowledge."""
        return self.pending > 0 or any(position < end for position, end in self.places.values())

    @property
    def mark(self) -> Hashable | None:
        """A value that changes with any progress. None for an agent without work."""
        positions = sorted((tp, position) for tp, (position, _) in self.places.items())
        return (tuple(positions), self.pending, self.taken) if self.has_work else None


async def places(consumer: Any) -> dict[TP, Offsets]:  # Faust ships no types
    """The offsets of Faust's ``consumer`` in each of its assigned partitions."""
    found: dict[TP, Offsets] = {}
    for tp in consumer.assignment():
        position, end = await consumer.position(tp), consumer.highwater(tp)
        if position is not None and end is not None:
            found[tp] = (position, end)
    return found
