"""The order of a split run's captions: channels are decoded each on its own, and a caption file wants times that rise."""

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kaption_schemas.records import FinalTranscript

Item = TypeVar("Item")


@dataclass(slots=True)
class TimeOrder(Generic[Item]):
    """Takes what the finals of one run's channels show, and gives it back in the order of its times.

    An item is given back once every channel has finals up to its start: a final's items lie within its range, and a
    channel's finals follow on one another.
    """

    _heap: list[tuple[int, int, int, Item]] = field(default_factory=list)
    _until: dict[int, int] = field(default_factory=dict)
    _count: int = 0

    def push(self, final: FinalTranscript, items: list[tuple[int, Item]]) -> list[Item]:
        """Take a final's items, each with its start in ms; returns those whose turn it is."""
        for start_ms, item in items:
            self._count += 1
            heapq.heappush(self._heap, (start_ms, final.channel, self._count, item))
        self._until[final.channel] = final.end_ms
        if len(self._until) < final.channels:
            return []
        reached = min(self._until.values())
        out = []
        while self._heap and self._heap[0][0] <= reached:
            out.append(self._pop())
        return out

    def flush(self) -> list[Item]:
        """Everything that is held: the run is over, or nothing more is read of it."""
        return [self._pop() for _ in range(len(self._heap))]

    def _pop(self) -> Item:
        return heapq.heappop(self._heap)[3]
