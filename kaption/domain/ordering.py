"""The frames of a run in their order: repeats dropped, reordering undone within bounds, losses declared.

The bounds are 64 frames and 2 s of audio; what is missing then is a gap, and comes too late afterwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from kaption.domain.outputs import AudioRecord, Latency
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import Type

FRAMES_BOUND = 64
SECONDS_BOUND = 2
#: A sequence further ahead than this is no loss but a mistake: an hour of frames of 100 ms.
FURTHEST = 36_000
_REMEMBERED = 128
#: A code read from a record, as the reason it stands for.
REASONS = {str(reason): reason for reason in Reason}
_MISSING = b""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose turn it is."""

    record: AudioRecord


@dataclass(frozen=True, slots=True)
class Missing:
    """Sequences ``first`` to ``last`` will not come; ``reason`` says why."""

    first: int
    last: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that cannot be used."""

    record: AudioRecord
    reason: Reason


Step = Frame | Missing | Refused


def digest(record: AudioRecord) -> bytes:
    """What makes two frames of one sequence the same."""
    return blake2b(record.first_sample.to_bytes(8, "big") + record.body, digest_size=8).digest()


def published_again(record: AudioRecord, latency: Latency, next_sequence: int) -> bool:
    """Whether a file's record repeats what its run took, which awaits ``next_sequence``.

    A file agent that was killed publishes all records of its object again, as they were; the run may be over by then.
    """
    taken = record.kind is Type.STARTED or (record.kind is Type.CHUNK and record.sequence < next_sequence)
    return latency is Latency.BATCH and taken


class FrameOrder:
    """``push`` takes records as they arrive and returns what they make possible. ``next`` is the sequence awaited."""

    def __init__(self, next_sequence: int = 0, seen: dict[int, bytes] | None = None) -> None:
        self.next = next_sequence
        self.repeats = 0
        self._loss = Reason.LOST
        self._seen = dict(seen or {})
        self._waiting: dict[int, AudioRecord] = {}
        self._fresh = not self._seen and next_sequence == 0

    @property
    def waiting(self) -> Iterator[AudioRecord]:
        """Records that wait for an earlier one."""
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
        """Digests of the frames right before ``sequence``, for a snapshot; gaps have an empty one."""
        return {n: d for n, d in self._seen.items() if sequence - _REMEMBERED <= n < sequence}

    def forget(self, before: int) -> None:
        """Frames up to ``before`` are final: keep the digests of the last 128 only."""
        # In their order, oldest first; this runs with every frame.
        while self._seen and (oldest := next(iter(self._seen))) < before - _REMEMBERED:
            del self._seen[oldest]

    def note_loss(self) -> None:
        """The log no longer holds all that came before the next frame: what is missing there, retention took."""
        self._loss = Reason.RETENTION

    def push(self, record: AudioRecord) -> list[Step]:
        """Take a chunk, or the gap that a refused frame left."""
        known = self._refusal(record)
        if known is not None:
            return known
        if self._fresh and record.sequence == 1 and record.first_sample == 0:
            self.next = 1  # sequences of this publisher start at 1
        self._waiting[record.sequence] = record
        steps = self._ready()
        while self._waiting and self._overdue():
            steps += self._give_up(min(self._waiting) - 1)
        return steps

    def flush(self, last: int | None = None) -> list[Step]:
        """Nothing missing will come any more: up to ``last``, or to the highest that arrived."""
        steps: list[Step] = []
        while self._waiting:
            steps += self._give_up(min(self._waiting) - 1)
        if last is not None and last >= self.next:
            steps += self._give_up(last)
        return steps

    def discard(self, reason: Reason) -> list[Step]:
        """Refuse what waits: the run takes nothing any more."""
        waiting, self._waiting = self._waiting, {}
        return [Refused(record, reason) for record in waiting.values() if record.kind is not Type.GAP]

    def _refusal(self, record: AudioRecord) -> list[Step] | None:
        """What becomes of a record that is not to be queued; None for one that is."""
        other = self._waiting.get(record.sequence)
        gap = record.kind is Type.GAP
        if record.sequence < self.next:
            before = self._seen.get(record.sequence)
            if gap or before is None or before == digest(record):
                self.repeats += not gap
                return []
            return [Refused(record, Reason.LATE if before == _MISSING else Reason.SEQUENCE_CONFLICT)]
        if other is not None and other.kind is not Type.GAP:
            if gap or digest(other) == digest(record):
                self.repeats += not gap
                return []
            return [Refused(record, Reason.SEQUENCE_CONFLICT)]
        if record.sequence > self.next + FURTHEST:
            return [] if gap else [Refused(record, Reason.SEQUENCE_AHEAD)]
        return None

    def _overdue(self) -> bool:
        first, last = min(self._waiting), max(self._waiting)
        records = self._waiting.values()
        span = max(r.first_sample + r.samples for r in records) - min(r.first_sample for r in records)
        bound = SECONDS_BOUND * self._waiting[first].rate
        return first > self.next and (last - self.next >= FRAMES_BOUND or span > bound)

    def _give_up(self, last: int) -> list[Step]:
        steps: list[Step] = []
        if last >= self.next:
            steps.append(Missing(self.next, last, self._loss))
            # Only as many as are remembered anyway: a declared gap may span thousands.
            self._seen |= dict.fromkeys(range(max(self.next, last - _REMEMBERED), last + 1), _MISSING)
            self.next = last + 1
        return steps + self._ready()

    def _ready(self) -> list[Step]:
        steps: list[Step] = []
        while (record := self._waiting.pop(self.next, None)) is not None:
            self._fresh, self._loss = False, Reason.LOST
            if record.kind is Type.GAP:
                self._seen[self.next] = _MISSING
                steps.append(Missing(self.next, self.next, REASONS[record.body.decode()]))
            else:
                self._seen[self.next] = digest(record)
                steps.append(Frame(record))
            self.next += 1
        return steps
