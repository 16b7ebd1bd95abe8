"""Orders a split run's captions by time, as a caption file needs them, since its channels are decoded separately."""

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kaption_schemas.records import FinalTranscript

Item = TypeVar("Item")


@dataclass(slots=True)
class TimeOrder(Generic[Item]):
    """Takes items of the finals of one run's channels, and returns them in the order of time.

    It returns an item once every channel has finals up to the item's start: a final's items are within its range, and a
    channel's finals are consecutive.
    """

    _heap: list[tuple[int, int, int, Item]] = field(default_factory=list)
    _until: dict[int, int] = field(default_factory=dict)
    _count: int = 0

    def push(self, final: FinalTranscript, items: list[tuple[int, Item]]) -> list[Item]:
        """Take a final's items, each with its start in ms; return those that are next in order."""
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
        """Return all items held: the run has ended, or reading stops."""
        return [self._pop() for _ in range(len(self._heap))]

    def _pop(self) -> Item:
        return heapq.heappop(self._heap)[3]
