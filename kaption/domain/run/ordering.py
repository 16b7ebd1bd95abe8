"""The frames of a run in their order: repeats dropped, reordering undone within bounds, losses declared.

The bounds are 64 frames and 2 s of audio; what is missing then is a gap, and comes too late afterwards. Of two records under one
sequence the first in the log stands, whatever else was waiting then: so a replay decides alike.
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
#: A sequence further ahead than this is no loss but a mistake: an hour of frames of 100 ms.
FURTHEST = 36_000
#: Frames before the one awaited whose bytes are told apart by a digest.
_REMEMBERED = 128
_MISSING = b""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose turn it is."""

    record: AudioRecord


@dataclass(frozen=True, slots=True)
class Missing:
    """Sequences ``first`` to ``last`` will not come; ``reason`` says why, ``offset`` which record says so, if one does."""

    first: int
    last: int
    reason: Reason
    offset: int | None = None


#: ``Refused``: a record that is refused when it arrives, and leaves nothing.
Step = Frame | Missing | Refused


def digest(record: AudioRecord) -> bytes:
    """What makes two frames of one sequence the same."""
    return blake2b(record.first_sample.to_bytes(8, "big") + record.body, digest_size=8).digest()


def published_again(record: AudioRecord, latency: Latency, next_sequence: int, newest_ms: int) -> bool:
    """Whether an agent publishes again what the run took, which awaits ``next_sequence`` and took nothing received behind ``newest_ms``.

    An agent that was killed does so with all that it had not acknowledged, and the run may be over by then. All records of a
    file come from one object, so the sequence tells. Those of a live run come from one partition in the order in which the
    broker received them: one that it received before another that was taken had its turn before, too.
    """
    before = record.kind is Type.STARTED or (record.kind is Type.CHUNK and record.sequence < next_sequence)
    return before and (latency is Latency.BATCH or record.received_ms <= newest_ms)


class FrameOrder:
    """``push`` takes records as they arrive and returns what they make possible. ``next`` is the sequence awaited.

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

    def again(self, record: AudioRecord) -> bool:
        """Whether an agent publishes again what was taken."""
        return published_again(record, self._latency, self.next, self.newest_ms)

    def took(self, record: AudioRecord) -> None:
        """Note a record that was taken, whatever its type."""
        self.newest_ms = max(self.newest_ms, record.received_ms)

    def repeat(self) -> None:
        """Count a record that was taken before."""
        self.repeats += 1

    @contextmanager
    def uncounted(self, *, replayed: bool) -> Iterator[None]:
        """Count no repeat meanwhile of a record that is ``replayed``: an earlier owner of the lane did."""
        repeats = self.repeats
        yield
        if replayed:
            self.repeats = repeats

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
        if record.kind is not Type.GAP:
            self.took(record)
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

    def discard(self, reason: Reason) -> list[Refused]:
        """Refuse what waits: the run takes nothing any more."""
        waiting, self._waiting = self._waiting, {}
        return [Refused(record.offset, reason) for record in waiting.values() if record.kind is not Type.GAP]

    def _refusal(self, record: AudioRecord) -> list[Step] | None:
        """What becomes of a record that is not to be queued; None for one that is."""
        gap, other = record.kind is Type.GAP, self._waiting.get(record.sequence)
        if other is None and record.sequence >= self.next:
            # Where retention took the beginning, nobody knows how much it was.
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
        """The digest of a frame that had its turn; None of one that is too long ago: however long finals take to come."""
        return self._seen.get(sequence) if sequence >= self.next - _REMEMBERED else None

    def _overdue(self) -> bool:
        """Whether what waits is too much. A part of it that waits by itself, in a replay, is too much no sooner."""
        first, last = min(self._waiting), max(self._waiting)
        # A gap does not tell how long it is, nor always where.
        frames = [record for record in self._waiting.values() if record.kind is not Type.GAP]
        begin = min((record.first_sample / record.rate for record in frames), default=0.0)
        end = max(((record.first_sample + record.samples) / record.rate for record in frames), default=0.0)
        return first > self.next and (last - self.next >= FRAMES_BOUND or end - begin > SECONDS_BOUND)

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
            self._seen[self.next] = _digest_of(record)
            if record.kind is Type.GAP:
                steps.append(Missing(self.next, self.next, record.reason or Reason.LOST, record.offset))
            else:
                steps.append(Frame(record))
            self.next += 1
        return steps


def _digest_of(record: AudioRecord) -> bytes:
    """Of a frame, or of the gap that stands for one."""
    return _MISSING if record.kind is Type.GAP else digest(record)
