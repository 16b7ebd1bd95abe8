"""A lane's dead letters: those that wait for a transaction, and which ones are committed although a replay meets their records again.

The second is told by a mark, not by a list: a publisher that goes on after its run was closed makes hundreds a second, for
as long as another run of the partition keeps the offset back, and a record of the state topic holds 1 MiB.
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

#: Letters that wait at most, and their bytes; a lane with more is not read on. A transaction takes so many, and so many bytes, at most.
MOST_WAITING: Const = 4000
MOST_WAITING_BYTES: Const = 64 << 20
_MOST_TAKEN: Const = 1000
_MOST_BYTES: Const = 8 << 20
#: Offsets that the lane's record names at most, 400 KiB in all: what is beyond may be written a second time after a crash.
_MOST_NAMED: Const = 20_000


@dataclass(frozen=True, slots=True)
class Told:
    """Which records' dead letters are committed: of those before offset ``before`` all, but of ``open``, which were undecided.

    ``unavailable`` are the file chunks that were given up. ``listed`` are offsets that a former version named one by one.
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
        """What a lane's record says. Raises ``ValueError``, ``TypeError`` or ``KeyError`` when it is none."""
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
    """A record to dead-letter, why, and after how many tries; ``run`` is the one that it is of, where that is known."""

    record: ConsumerRecord
    reason: Reason
    attempts: int = 1
    run: RunKey | None = None


class Letters:
    """What of a lane is to be dead-lettered. ``told`` is what the state topic says."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._unavailable = set(told.unavailable)
        self._waiting: deque[Letter] = deque()
        self._offsets: set[int] = set()
        self._owed: Counter[RunKey | None] = Counter()
        self._bytes = 0
        self._forgot = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether no more records should be taken before some are written."""
        return len(self._waiting) >= MOST_WAITING or self._bytes >= MOST_WAITING_BYTES

    @property
    def oldest(self) -> int | None:
        """The lowest offset among those that wait."""
        return min(self._offsets, default=None)

    def owed(self, run: RunKey) -> bool:
        """Whether letters of the run wait: its snapshot would cover their records, so that nobody wrote them after a crash."""
        return self._owed[run] > 0

    def gave_up(self, offset: int) -> bool:
        """Whether the audio of the chunk at ``offset`` was given up, now or by an earlier owner."""
        return offset in self._unavailable

    def add(self, record: ConsumerRecord, reason: Reason, run: RunKey | None = None, attempts: int = 1) -> None:
        """Note a record to dead-letter; nothing happens where it has its letter."""
        known = self._told.holds(record.offset) or record.offset in self._offsets or self.gave_up(record.offset)
        if reason is Reason.AUDIO_UNAVAILABLE:
            self._unavailable.add(record.offset)
        if not known:
            self._waiting.append(Letter(record, reason, attempts, run))
            self._owed[run] += 1
            self._offsets.add(record.offset)
            self._bytes += len(record.value or b"")

    def forget_told(self) -> None:
        """Take no letter for committed but those of chunks that were given up: records that were taken before are refused now."""
        self._told, self._forgot = NOTHING_TOLD, True

    def marks(self, letters: Sequence[Letter], committed: int) -> bool:
        """Whether the state topic is to be told, where ``letters`` are written and a replay begins at ``committed``."""
        forgot, self._forgot = self._forgot, False
        return forgot or any(letter.record.offset >= committed for letter in letters)

    def take(self) -> list[Letter]:
        """Those that the next transaction takes, the first ones first."""
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
        """What the state topic has to say once what was taken is written; ``undecided`` are records that may still get a letter.

        ``committed`` is the offset that goes with it, ``position`` that of the next record.
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
    """Sorted offsets as first and last of each row without a hole."""
    at = sorted(offsets)
    if not at:
        return []
    breaks = [(a, b) for a, b in pairwise(at) if b != a + 1]
    return list(zip([at[0], *(b for _, b in breaks)], [*(a for a, _ in breaks), at[-1]], strict=True))
