"""Puts the frames of a run in order: drops repeats, undoes reordering within bounds, and declares losses.

The bounds are 64 frames and 2 s of audio. A frame that is still missing then becomes a gap, and is too late afterwards. Of
two records with one sequence, the first in the log counts, whatever else waits at that time: so a replay decides alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b

from kaption.domain.records import AudioRecord, Latency, Refused
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import Type

FRAMES_BOUND = 64
SECONDS_BOUND = 2
#: A sequence further ahead than this is a mistake and not a loss: an hour of frames of 100 ms.
FURTHEST = 36_000
#: Number of frames before the awaited one that are remembered by a digest of their bytes.
_REMEMBERED = 128
_MISSING = b""


@dataclass(frozen=True, slots=True)
class Frame:
    """The next frame in order."""

    record: AudioRecord


@dataclass(frozen=True, slots=True)
class Missing:
    """Sequences ``first`` to ``last``, which will not come, and the reason. ``offset``: the record that says so, if any."""

    first: int
    last: int
    reason: Reason
    offset: int | None = None


#: ``Refused``: a record that is refused on arrival, and leaves no gap.
Step = Frame | Missing | Refused


def digest(record: AudioRecord) -> bytes:
    """A digest by which two frames of one sequence are compared."""
    return blake2b(record.first_sample.to_bytes(8, "big") + record.body, digest_size=8).digest()


def published_again(record: AudioRecord, latency: Latency, next_sequence: int, newest_ms: int) -> bool:
    """Whether an agent publishes a record again that the run has taken.

    The run awaits ``next_sequence``, and has taken no record that the broker received after ``newest_ms``. The successor of
    a killed agent publishes all unacknowledged records again, and the run may be over by then. All records of a file come
    from one object, so the sequence decides. Records of a live run come from one partition, in the order in which the
    broker received them: a record that it received before a taken one was taken, too.
    """
    before = record.kind is Type.STARTED or (record.kind is Type.CHUNK and record.sequence < next_sequence)
    return before and (latency is Latency.BATCH or record.received_ms <= newest_ms)


class FrameOrder:
    """Orders records: ``push`` takes each as it arrives and returns the steps that are now possible. ``next`` is awaited.

    ``newest_ms``: when the broker received the newest record that was taken, in ms since 1970; -1 before the first.
    """

    def __init__(
        self,
        latency: Latency,
        next_sequence: int = 0,
        seen: dict[int, bytes] | None = None,
        *,
        newest_ms: int = -1,
        repeats: int = 0,
    ) -> None:
        self.next = next_sequence
        self.newest_ms = newest_ms
        self.repeats = repeats
        self._latency = latency
        self._loss = Reason.LOST
        self._seen = dict(seen or {})
        self._waiting: dict[int, AudioRecord] = {}
        self._fresh = not self._seen and next_sequence == 0

    @property
    def waiting(self) -> Iterator[AudioRecord]:
        """The records that wait for an earlier one."""
        return iter(self._waiting.values())

    @property
    def first(self) -> int:
        """The sequence that a replay from the run's first record expects."""
        return self.next if not self._seen else min(self._seen)

    @property
    def highest(self) -> int:
        """The highest sequence that arrived; -1 before the first."""
        return max(self._waiting, default=self.next - 1)

    def seen_before(self, sequence: int) -> dict[int, bytes]:
        """Digests of the frames right before ``sequence``, for a snapshot. A gap's digest is empty."""
        return {n: d for n, d in self._seen.items() if sequence - _REMEMBERED <= n < sequence}

    def again(self, record: AudioRecord) -> bool:
        """Whether an agent publishes again a record that was taken."""
        return published_again(record, self._latency, self.next, self.newest_ms)

    def took(self, record: AudioRecord) -> None:
        """Note a record that was taken, whatever its type."""
        self.newest_ms = max(self.newest_ms, record.received_ms)

    def repeat(self) -> None:
        """Count a record that was taken before."""
        self.repeats += 1

    @contextmanager
    def uncounted(self, *, replayed: bool) -> Iterator[None]:
        """Within this context, count no repeat if the record is ``replayed``: an earlier owner of the lane has counted it."""
        repeats = self.repeats
        yield
        if replayed:
            self.repeats = repeats

    def forget(self, before: int) -> None:
        """Keep the digests of the last 128 frames only: finals cover the frames up to ``before``."""
        # Oldest first. This runs with every frame.
        while self._seen and (oldest := next(iter(self._seen))) < before - _REMEMBERED:
            del self._seen[oldest]

    def note_loss(self) -> None:
        """Note that retention deleted records before the next frame: it is the reason of what is missing there."""
        self._loss = Reason.RETENTION

    def push(self, record: AudioRecord) -> list[Step]:
        """Take a chunk, or the gap that a refused frame left."""
        known = self._refusal(record)
        if known is not None:
            return known
        if self._fresh and record.sequence == 1 and record.first_sample == 0:
            self.next = 1  # sequences of this publisher start at 1
        if record.kind is not Type.GAP:
            self.took(record)
        self._waiting[record.sequence] = record
        steps = self._ready()
        while self._waiting and self._overdue():
            steps += self._give_up(min(self._waiting) - 1)
        return steps

    def flush(self, last: int | None = None) -> list[Step]:
        """Stop waiting for missing records: up to ``last``, or to the highest sequence that arrived."""
        steps: list[Step] = []
        while self._waiting:
            steps += self._give_up(min(self._waiting) - 1)
        if last is not None and last >= self.next:
            steps += self._give_up(last)
        return steps

    def discard(self, reason: Reason) -> list[Refused]:
        """Refuse the waiting records: the run takes no more."""
        waiting, self._waiting = self._waiting, {}
        return [Refused(record.offset, reason) for record in waiting.values() if record.kind is not Type.GAP]

    def _refusal(self, record: AudioRecord) -> list[Step] | None:
        """The steps for a record that is not queued. None if it is to be queued."""
        gap, other = record.kind is Type.GAP, self._waiting.get(record.sequence)
        if other is None and record.sequence >= self.next:
            # If retention deleted the beginning, its length is unknown.
            if record.sequence <= self.next + FURTHEST or self._loss is Reason.RETENTION:
                return None
            return [] if gap else [Refused(record.offset, Reason.SEQUENCE_AHEAD)]
        if gap:
            return []
        before = self._before(record.sequence) if other is None else _digest_of(other)
        if before == digest(record) or (before is None and self.again(record)):
            self.repeat()
            return []
        return [Refused(record.offset, Reason.LATE if before == _MISSING else Reason.SEQUENCE_CONFLICT)]

    def _before(self, sequence: int) -> bytes | None:
        """The digest of an earlier frame. None if it is too long ago, which does not depend on the delay of finals."""
        return self._seen.get(sequence) if sequence >= self.next - _REMEMBERED else None

    def _overdue(self) -> bool:
        """Whether too many records wait. Only a part of them may wait in a replay; a part never reaches the bound sooner."""
        first, last = min(self._waiting), max(self._waiting)
        # A gap does not say how long it is, and does not always say where.
        frames = [record for record in self._waiting.values() if record.kind is not Type.GAP]
        begin = min((record.first_sample / record.rate for record in frames), default=0.0)
        end = max(((record.first_sample + record.samples) / record.rate for record in frames), default=0.0)
        return first > self.next and (last - self.next >= FRAMES_BOUND or end - begin > SECONDS_BOUND)

    def _give_up(self, last: int) -> list[Step]:
        steps: list[Step] = []
        if last >= self.next:
            steps.append(Missing(self.next, last, self._loss))
            # Only as many as are remembered: a declared gap may span thousands of sequences.
            self._seen |= dict.fromkeys(range(max(self.next, last - _REMEMBERED), last + 1), _MISSING)
            self.next = last + 1
        return steps + self._ready()

    def _ready(self) -> list[Step]:
        steps: list[Step] = []
        while (record := self._waiting.pop(self.next, None)) is not None:
            self._fresh, self._loss = False, Reason.LOST
            self._seen[self.next] = _digest_of(record)
            if record.kind is Type.GAP:
                steps.append(Missing(self.next, self.next, record.reason or Reason.LOST, record.offset))
            else:
                steps.append(Frame(record))
            self.next += 1
        return steps


def _digest_of(record: AudioRecord) -> bytes:
    """The digest of a frame, or of the gap that stands for one."""
    return _MISSING if record.kind is Type.GAP else digest(record)
