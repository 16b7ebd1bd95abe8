"""Which records of a run are not covered by finals yet, where a replay would begin, and which gaps are still to be told."""

from collections import deque
from dataclasses import dataclass
from itertools import takewhile

from kaption.domain.run.ordering import Missing
from kaption_schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class Item:
    """A frame or a gap in its order: source samples ``[start, end)`` (left-out silence before a frame is its own)."""

    sequence: int
    start: int
    end: int
    gap: Missing | None = None


class Ledger:
    """Frames and gaps from the last settled cut on. A gap is told with the final that covers its beginning.

    ``awaited`` is the sequence behind all that was noted. A burst of frames is noted one by one, so it may lie before what the
    run awaits from its publisher.
    """

    def __init__(self, awaited: int = 0) -> None:
        self.awaited = awaited
        self._items: list[Item] = []
        self._open: list[Missing] = []
        # Records with a lower offset than all that follow them; a pool that is behind asks for the lowest all the time.
        self._lowest: deque[tuple[int, int]] = deque()

    @property
    def oldest(self) -> int | None:
        """The lowest offset of the frames, and of the records that gaps stand for, that no final covers."""
        return self._lowest[0][1] if self._lowest else None

    @property
    def retention(self) -> bool:
        """Whether retention took what came right before the next frame, which may then lie anywhere."""
        return any(gap.reason is Reason.RETENTION for gap in self._open)

    def missing(self, gap: Missing) -> None:
        """Note a gap whose end is not known before the next frame."""
        self._open.append(gap)
        self.awaited = gap.last + 1
        if gap.offset is not None:
            self._pin(gap.first, gap.offset)

    def close_gaps(self, start: int, end: int) -> None:
        """Missing frames lie between the last one, which ended at ``start``, and what comes at ``end``."""
        self._items += [Item(gap.first, start, end, gap) for gap in self._open]
        self._open.clear()

    def frame(self, offset: int, sequence: int, start: int, end: int) -> None:
        """Note a frame and the left-out silence before it."""
        self._items.append(Item(sequence, start, end))
        self.awaited = sequence + 1
        self._pin(sequence, offset)

    def mark(self, sample: int, end: int) -> tuple[int, int]:
        """Where a replay begins for a cut at ``sample``: the sequence to expect, and the samples that precede it.

        ``end`` is where the run's samples end now.
        """
        for item in self._items:
            if item.gap:
                if item.start >= sample:
                    return item.sequence, item.start
            elif item.end > sample:
                return item.sequence, item.start
        return (self._open[0].first if self._open else self.awaited), end

    def holding(self, start: int, end: int, reason: Reason) -> Missing:
        """The frames that hold samples of ``[start, end)``, as a gap; the next frame where none is known to."""
        held = [item.sequence for item in self._items if not item.gap and item.start < end and item.end > start]
        return Missing(held[0], held[-1], reason) if held else Missing(self.awaited, self.awaited, reason)

    def settle(self, sequence: int | None) -> list[Item]:
        """Forget what lies before ``sequence`` (everything when None), and return the gaps among it."""
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
