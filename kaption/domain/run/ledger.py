"""Keeps the records of a run that no final covers yet, the replay point, and the gaps that are still to be published."""

from collections import deque
from dataclasses import dataclass
from itertools import takewhile

from kaption.domain.run.ordering import Missing
from kaption_schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class Item:
    """A frame or a gap in order: source samples ``[start, end)``. A frame includes the left-out silence before it."""

    sequence: int
    start: int
    end: int
    gap: Missing | None = None


class Ledger:
    """Frames and gaps after the last settled boundary. A gap is published with the final that covers its beginning.

    ``awaited`` is the sequence after all noted records. A burst of frames is noted one by one, so ``awaited`` may be lower
    than the sequence that the run awaits from its publisher.
    """

    def __init__(self, awaited: int = 0) -> None:
        self.awaited = awaited
        self._items: list[Item] = []
        self._open: list[Missing] = []
        # Records with a lower offset than all after them. A pool with a backlog asks for the lowest all the time.
        self._lowest: deque[tuple[int, int]] = deque()

    @property
    def oldest(self) -> int | None:
        """The lowest offset that no final covers, of frames and of records that gaps stand for."""
        return self._lowest[0][1] if self._lowest else None

    @property
    def retention(self) -> bool:
        """Whether retention deleted the records right before the next frame. That frame may then be at any sample."""
        return any(gap.reason is Reason.RETENTION for gap in self._open)

    def missing(self, gap: Missing) -> None:
        """Note a gap. The next frame determines its end."""
        self._open.append(gap)
        self.awaited = gap.last + 1
        if gap.offset is not None:
            self._pin(gap.first, gap.offset)

    def close_gaps(self, start: int, end: int) -> None:
        """Place the missing frames between ``start``, the last frame's end, and ``end``, the next one's beginning."""
        self._items += [Item(gap.first, start, end, gap) for gap in self._open]
        self._open.clear()

    def frame(self, offset: int, sequence: int, start: int, end: int) -> None:
        """Note a frame and the left-out silence before it."""
        self._items.append(Item(sequence, start, end))
        self.awaited = sequence + 1
        self._pin(sequence, offset)

    def mark(self, sample: int, end: int) -> tuple[int, int]:
        """A replay's beginning for a boundary at ``sample``: the sequence to expect, and the number of samples before it.

        ``end`` is the run's number of samples now.
        """
        for item in self._items:
            if item.gap:
                if item.start >= sample:
                    return item.sequence, item.start
            elif item.end > sample:
                return item.sequence, item.start
        return (self._open[0].first if self._open else self.awaited), end

    def holding(self, start: int, end: int, reason: Reason) -> Missing:
        """The frames that hold samples of ``[start, end)``, as a gap. If none is known, the next frame."""
        held = [item.sequence for item in self._items if not item.gap and item.start < end and item.end > start]
        return Missing(held[0], held[-1], reason) if held else Missing(self.awaited, self.awaited, reason)

    def settle(self, sequence: int | None) -> list[Item]:
        """Drop the items before ``sequence`` (all of them if None), and return the gaps among them."""
        if sequence is None:
            over, self._items = self._items, []
            self._lowest.clear()
        else:
            over = list(takewhile(lambda item: item.sequence < sequence, self._items))
            if over:
                self._items = self._items[len(over) :]
            while self._lowest and self._lowest[0][0] < sequence:
                self._lowest.popleft()
        return [item for item in over if item.gap]

    def _pin(self, sequence: int, offset: int) -> None:
        while self._lowest and self._lowest[-1][1] >= offset:
            self._lowest.pop()
        self._lowest.append((sequence, offset))
