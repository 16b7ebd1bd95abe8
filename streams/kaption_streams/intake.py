"""Keeps records in work: acknowledges them in the order of their partition, and bounds them by tenant.

It does not know their content. If acknowledgements were out of order, a commit could pass an unfinished record (HAZARDS,
faust 3). A record that is read again after a rebalance, while it is in work, counts as the same one.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Final as Const

from kaption_schemas.codec import Origin

#: A tenant's records that are read ahead, and those that are done and wait for an earlier one.
AHEAD: Const = 32
UNACKNOWLEDGED: Const = 256

#: Topic, partition and offset.
Position = tuple[str, int, int]


@dataclass(eq=False, slots=True)
class Record:
    """One record. ``left``: jobs to finish before it is acknowledged. ``generation``: the group's when it was read."""

    origin: Origin
    generation: int
    ack: Callable[[], Any]
    left: int = 1

    @property
    def position(self) -> Position:
        """The record's position."""
        return self.origin.topic, self.origin.partition, self.origin.offset


class Intake:
    """Records that were read and are not acknowledged. ``hold`` stops the reading of a tenant's records, ``resume`` restarts it."""

    def __init__(
        self,
        hold: Callable[[str], None],
        resume: Callable[[str], None],
        ahead: int = AHEAD,
        unacknowledged: int = UNACKNOWLEDGED,
    ) -> None:
        self._hold, self._resume = hold, resume
        self._ahead, self._unacknowledged = ahead, unacknowledged
        self._generation = 0
        self._known: dict[Position, Record] = {}
        self._lines: dict[tuple[str, int], deque[Record]] = {}
        self._open: Counter[str] = Counter()
        self._behind: Counter[str] = Counter()
        self._held: set[str] = set()

    @property
    def in_work(self) -> int:
        """The number of records that are not done."""
        return self._open.total()

    def arrive(self, origin: Origin, generation: int, ack: Callable[[], Any]) -> Record | None:
        """Take a record that was read. None if it is known from before a rebalance."""
        if generation != self._generation:
            self._begin(generation)
        position = origin.topic, origin.partition, origin.offset
        known = self._known.get(position)
        record = known or Record(origin, generation, ack)
        record.generation, record.ack = generation, ack
        self._known[position] = record
        self._open[origin.tenant] += known is None
        self._behind[origin.tenant] += 1
        self._lines.setdefault(position[:2], deque()).append(record)
        self._acknowledge(record)
        self._look(origin.tenant)
        return record if known is None else None

    def done(self, record: Record) -> None:
        """Note that one job of ``record`` is done. After its last job it is acknowledged, once all records before it are."""
        record.left -= 1
        if record.left == 0:
            self._open[record.origin.tenant] -= 1
            if self._known.get(record.position) is record:
                self._acknowledge(record)
                self._look(record.origin.tenant)

    def forget(self, record: Record) -> None:
        """Forget a record from before a rebalance: its partition's new owner reads it again."""
        if self._known.get(record.position) is record and record.left > 0:
            del self._known[record.position]
            self._open[record.origin.tenant] -= 1
            record.left = 0

    def _begin(self, generation: int) -> None:
        """Begin a generation: after a rebalance, all unacknowledged records are read again, here or elsewhere."""
        gone = [
            position
            for position, known in self._known.items()
            if known.left == 0 and known.generation < self._generation
        ]
        for position in gone:
            del self._known[position]
        self._generation = generation
        self._lines.clear()
        self._behind.clear()
        self._held.clear()

    def _acknowledge(self, record: Record) -> None:
        line = self._lines.get(record.position[:2])
        while line and line[0].left == 0:
            first = line.popleft()
            self._known.pop(first.position, None)
            self._behind[first.origin.tenant] -= 1
            first.ack()

    def _look(self, tenant: str) -> None:
        ahead, behind = self._open[tenant], self._behind[tenant]
        if ahead >= self._ahead or behind >= self._unacknowledged:
            # Hold each time: a partition that was not read at the last hold may be read now.
            self._held.add(tenant)
            self._hold(tenant)
        elif tenant in self._held and ahead <= self._ahead // 2 and behind <= self._unacknowledged // 2:
            self._held.discard(tenant)
            self._resume(tenant)
