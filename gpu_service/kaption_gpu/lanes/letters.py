"""Keeps a lane's dead letters: those that wait for a transaction, and those committed for records that a replay reads again.

The lane's record marks the committed ones by an offset and not by a list. A publisher that continues after its run was
closed causes hundreds a second, for as long as another run of the partition holds the offset back, and a record of the
state topic holds 1 MiB.
"""

import json
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final as Const

from aiokafka.structs import ConsumerRecord

from kaption.domain.records import RunKey
from kaption_schemas.reasons import Reason

#: The most letters that wait, and their bytes: a lane with more stops reading. Then the most letters, and bytes, of a transaction.
MOST_WAITING: Const = 4000
MOST_WAITING_BYTES: Const = 64 << 20
_MOST_TAKEN: Const = 1000
_MOST_BYTES: Const = 8 << 20
#: The most offsets that the lane's record names, 400 KiB in all. Letters beyond may be written twice after a crash.
_MOST_NAMED: Const = 20_000


@dataclass(frozen=True, slots=True)
class Told:
    """The records with committed dead letters: all before offset ``before`` except ``open``, which were undecided.

    ``unavailable`` are the offsets of abandoned file chunks. ``listed`` are offsets that a former version named one by one.
    """

    before: int = 0
    open: frozenset[int] = frozenset()
    unavailable: frozenset[int] = frozenset()
    listed: frozenset[int] = frozenset()

    def holds(self, offset: int) -> bool:
        """Whether a dead letter of the record at ``offset`` is committed, if it has one."""
        return offset in self.listed or (offset < self.before and offset not in self.open)

    def value(self) -> bytes:
        """The body of the lane's record."""
        content = {
            "told": self.before,
            "open": sorted(self.open),
            "unavailable": [list(span) for span in _spans(self.unavailable)],
        }
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def read(cls, value: bytes) -> "Told":
        """Parse a lane's record. Raises ``ValueError``, ``TypeError`` or ``KeyError`` if it is not valid."""
        content = json.loads(value)
        listed = {int(at): code for at, code in content.get("dead_lettered", {}).items()}
        unavailable = {at for at, code in listed.items() if code == Reason.AUDIO_UNAVAILABLE.value}
        for first, last in content.get("unavailable", []):
            unavailable.update(islice(range(first, last + 1), _MOST_NAMED))
        return cls(
            int(content.get("told", 0)),
            frozenset(map(int, content.get("open", []))),
            frozenset(unavailable),
            frozenset(listed),
        )


NOTHING_TOLD: Const = Told()


@dataclass(frozen=True, slots=True)
class Letter:
    """A record to dead-letter, the reason, and the number of tries. ``run`` is its run, if that is known."""

    record: ConsumerRecord
    reason: Reason
    attempts: int = 1
    run: RunKey | None = None


class Letters:
    """The dead letters of a lane. ``told`` comes from the state topic."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._unavailable = set(told.unavailable)
        self._waiting: deque[Letter] = deque()
        self._offsets: set[int] = set()
        self._owed: Counter[RunKey | None] = Counter()
        self._bytes = 0
        self._forgot = False

    def __len__(self) -> int:
        """The number of waiting letters."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether the lane should take no more records until some letters are written."""
        return len(self._waiting) >= MOST_WAITING or self._bytes >= MOST_WAITING_BYTES

    @property
    def oldest(self) -> int | None:
        """The lowest offset of the waiting letters."""
        return min(self._offsets, default=None)

    def owed(self, run: RunKey) -> bool:
        """Whether letters of the run wait. Its snapshot would cover their records, so after a crash the letters would be lost."""
        return self._owed[run] > 0

    def gave_up(self, offset: int) -> bool:
        """Whether this or an earlier owner abandoned the audio of the chunk at ``offset``."""
        return offset in self._unavailable

    def add(self, record: ConsumerRecord, reason: Reason, run: RunKey | None = None, attempts: int = 1) -> None:
        """Add a record to dead-letter. A record that already has its letter is ignored."""
        known = self._told.holds(record.offset) or record.offset in self._offsets or self.gave_up(record.offset)
        if reason is Reason.AUDIO_UNAVAILABLE:
            self._unavailable.add(record.offset)
        if not known:
            self._waiting.append(Letter(record, reason, attempts, run))
            self._owed[run] += 1
            self._offsets.add(record.offset)
            self._bytes += len(record.value or b"")

    def forget_told(self) -> None:
        """Forget committed letters except those of abandoned chunks: records that were taken before are refused now."""
        self._told, self._forgot = NOTHING_TOLD, True

    def marks(self, letters: Sequence[Letter], committed: int) -> bool:
        """Whether to write the lane's record with ``letters``, if a replay begins at ``committed``."""
        forgot, self._forgot = self._forgot, False
        return forgot or any(letter.record.offset >= committed for letter in letters)

    def take(self) -> list[Letter]:
        """Take the letters for the next transaction, the oldest first."""
        out: list[Letter] = []
        size = 0
        while self._waiting and len(out) < _MOST_TAKEN and size < _MOST_BYTES:
            letter = self._waiting.popleft()
            self._offsets.discard(letter.record.offset)
            size += len(letter.record.value or b"")
            out.append(letter)
        self._bytes -= size
        self._owed -= Counter(letter.run for letter in out)
        return out

    def mark(self, committed: int, position: int, undecided: Iterable[int]) -> Told:
        """The mark to write with the taken letters. ``undecided`` are offsets of records that may still get a letter.

        ``committed`` is the offset in the same transaction, ``position`` that of the next record.
        """
        before = max(self._told.before, position)
        open_ = {*undecided, *self._offsets, *(at for at in self._told.open if at >= position)}
        open_ = {at for at in open_ if committed <= at < before}
        if len(open_) > _MOST_NAMED:
            *kept, before = sorted(open_)[: _MOST_NAMED + 1]
            open_ = set(kept)
        self._unavailable = {at for at in self._unavailable if at >= committed}
        return Told(before, frozenset(open_), frozenset(sorted(self._unavailable)[:_MOST_NAMED]))


def _spans(offsets: Collection[int]) -> list[tuple[int, int]]:
    """The first and last offset of each contiguous range, in order."""
    at = sorted(offsets)
    if not at:
        return []
    breaks = [(a, b) for a, b in pairwise(at) if b != a + 1]
    return list(zip([at[0], *(b for _, b in breaks)], [*(a for a, _ in breaks), at[-1]], strict=True))
