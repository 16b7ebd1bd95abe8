"""What a lane remembers: its sessions, the runs that are closed, and what the next transaction must hold.

A pure state machine: no I/O, no clock. Replaying the log from the committed offset over the snapshots brings it back, and
nothing is written twice: a record that a snapshot covers, or that was dead-lettered, is not taken again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final as Const

from aiokafka.structs import ConsumerRecord

from kaption.domain.decoding import Decoded, Window
from kaption.domain.ordering import published_again
from kaption.domain.outputs import AudioRecord, DeadLetter, Durable, Latency, Output, RunKey
from kaption_gpu.lane_data import Draft, DraftStats, Saved, SavedLane, Shown, Source, lane_value
from kaption_gpu.ports import LaneSession, Sessions, Wanted
from kaption_gpu.progress import FileProgress
from kaption_gpu.records import (
    Incoming,
    Message,
    SnapshotMarks,
    dead_letter,
    durable_message,
    lane_message,
    partial_message,
    progress_message,
    snapshot_message,
)
from kaption_schemas.reasons import Reason
from kaption_schemas.records import FinalTranscript, Gap, PartialTranscript, StreamCompleted
from kaption_schemas.topics import Type

#: Nobody waits any more for the last finals of a live run that are so late, in seconds.
GONE_SECONDS: Const = 10.0
#: No dead letter when their run is closed: a repeat of `ended` is a no-op, a gap stands for a frame that has its own.
_UNTOLD: Const = frozenset({Type.ENDED, Type.GAP})


@dataclass(frozen=True, slots=True)
class _Closed:
    """A run that is over: the offset before which its records are covered, and the sequence before which it took chunks."""

    settled: int
    next_sequence: int


@dataclass(slots=True)
class _Entry:
    """One open run. ``needs`` is the offset that its stored snapshot must be replayed from."""

    session: LaneSession
    began: int
    covered: int
    needs: int
    saved_ms: int
    touched: bool = False
    superseded: bool = False
    pending: list[Durable] = field(default_factory=list)
    raw: dict[int, ConsumerRecord] = field(default_factory=dict)
    trace: dict[str, str] = field(default_factory=dict)
    ref: tuple[str, str] | None = None
    #: The newest frame's end in samples, its rate, and when the broker had it: what wall time a sample is.
    anchor: tuple[int, int, int] | None = None
    #: A file's; a live run has none.
    progress: FileProgress | None = None


class LaneMemory:
    """The sessions of one partition, from the first record after ``position`` on.

    Args:
        source: The partition.
        sessions: Makes sessions.
        saved: What the state topic holds.
        position: Offset of the next record.
        epoch: The claim's offset.
        silence_ms: Silence is committed this often.
        lost: The log does not hold every record since the last commit.
        admits: Whether a new live run is taken now; it is asked at a run's first record.
    """

    def __init__(
        self,
        source: Source,
        sessions: Sessions,
        saved: SavedLane,
        *,
        position: int,
        epoch: int,
        silence_ms: int,
        lost: bool = False,
        admits: Callable[[], bool] = lambda: True,
    ) -> None:
        self.source = source
        self.position = position
        self.epoch = epoch
        self.record_ms = 0
        self.partials: list[Message] = []
        self.shown: list[Shown] = []
        self._sessions = sessions
        self._admits = admits
        self._claimed_ms = saved.claimed_ms
        self._silence_ms = silence_ms
        self._entries: dict[RunKey, _Entry] = {}
        self._closed: dict[RunKey, _Closed] = {}
        self._repeats = 0
        self._dead = dict(saved.dead)
        self._refused: list[tuple[ConsumerRecord, Reason]] = []
        self._committed = position
        self._committed_ms: int | None = None
        for item in saved.snapshots:
            self._restore(item)
        for entry in self._entries.values() if lost else ():
            entry.session.note_loss()
        for key, entry in self._entries.items():
            # The record that superseded it lies before the position and is not read again.
            if any(k[:2] == key[:2] and entry.began < e.began < position for k, e in self._entries.items()):
                self._supersede(entry, self.record_ms)

    # What comes in

    def dead_reason(self, offset: int) -> Reason | None:
        """Why the record at ``offset`` was dead-lettered by an earlier owner, if it was."""
        return self._dead.get(offset)

    def skips(self, incoming: Incoming) -> bool:
        """Whether ``take`` would not hand this record's audio to a session, so that it need not be fetched."""
        audio = incoming.audio
        entry = self._entries.get(audio.key)
        return audio.key in self._closed or (entry is not None and audio.offset < entry.covered)

    def take(self, record: ConsumerRecord, incoming: Incoming | Reason) -> None:
        """Take the next record: parsed, or why it could not be."""
        self.position = record.offset + 1
        self.record_ms = max(self.record_ms, record.timestamp)
        if isinstance(incoming, Reason):
            self._refuse(record, incoming)
            return
        entry = self._route(record, incoming)
        if entry is None:
            return
        if record.offset < entry.covered:
            return
        # One that was dead-lettered before is fed as well: the session judges it again, and what it leaves (a gap's
        # place in the order) is needed; only the letter is not written twice.
        entry.raw[record.offset] = record
        entry.trace = incoming.trace or entry.trace
        if incoming.ref is not None:
            entry.ref = (incoming.ref.bucket, incoming.ref.key)
        entry.touched = True
        audio = incoming.audio
        if audio.kind is Type.CHUNK:
            entry.anchor = (audio.first_sample + audio.samples, audio.rate, audio.received_ms)
            if entry.progress:
                entry.progress.heard(incoming, split=_split(entry))
        self._collect(entry, entry.session.feed(audio), record.timestamp)

    def take_unavailable(self, record: ConsumerRecord, incoming: Incoming) -> None:
        """Take a batch chunk whose bytes cannot be read: the record is dead-lettered, the session gets a gap."""
        audio = incoming.audio
        gap = Gap(
            run=audio.key.run,
            first_sequence=audio.sequence,
            last_sequence=audio.sequence,
            first_sample=audio.first_sample,
            samples=audio.samples,
            reason=Reason.AUDIO_UNAVAILABLE,
            tenant=audio.key.tenant,
            stream=audio.key.stream,
        )
        if not self.skips(incoming):
            self._refuse(record, Reason.AUDIO_UNAVAILABLE)
        body = gap.model_dump_json().encode()
        self.take(record, replace(incoming, audio=replace(audio, kind=Type.GAP, body=body)))

    def tick(self, now_ms: int) -> None:
        """Let every session see the time: that of the last record, or the wall clock at the partition's end."""
        for entry in list(self._entries.values()):
            self._collect(entry, entry.session.tick(now_ms), now_ms)

    # What is decoded

    def wants(self, now_ms: int) -> Iterator[tuple[RunKey, Wanted]]:
        """What the sessions want decoded; a run waits until the run before it on its stream is closed."""
        for key, entry in self._entries.items():
            if not self._blocked(key, entry):
                for wanted in entry.session.wants(now_ms):
                    yield key, wanted

    def urgency(self, key: RunKey, wanted: Wanted) -> Latency:
        """How soon a wanted window is looked for: a live run's last finals are a file's once they are late, since who watched it is gone."""
        gone = wanted.overdue_s > GONE_SECONDS and self._entries[key].session.ended
        return Latency.BATCH if gone else self.source.latency

    def begin(self, key: RunKey, window_id: int) -> Window:
        """Mark a wanted window in flight and copy its audio out."""
        return self._entries[key].session.begin(window_id)

    def abandon(self, key: RunKey, window_id: int) -> None:
        """Put a window in flight back."""
        if entry := self._entries.get(key):
            entry.session.abandon(window_id)

    def fail(self, key: RunKey, window_id: int, *, hung: bool) -> bool:
        """The model failed on a window, or hung: put it back; False when its session gives it up instead."""
        entry = self._entries.get(key)
        outputs = entry.session.fail(window_id, hung=hung) if entry else None
        if entry is None or outputs is None:
            return True
        self._collect(entry, outputs, self.record_ms)
        return False

    def apply(self, key: RunKey, window_id: int, decoded: Decoded, now_ms: int) -> None:
        """Hand a result to its session; one for a run that has closed meanwhile is dropped."""
        if entry := self._entries.get(key):
            entry.touched = True
            self._collect(entry, entry.session.apply(window_id, decoded, now_ms), now_ms)

    def committed(self) -> None:
        """The last draft is committed."""
        for entry in self._entries.values():
            entry.session.committed()

    # What goes out

    @property
    def open_runs(self) -> int:
        """Runs that are open."""
        return len(self._entries)

    def backlog_seconds(self) -> float:
        """Audio that no final covers yet, in all sessions."""
        return sum(entry.session.backlog_seconds() for entry in self._entries.values())

    def has_pending(self) -> bool:
        """Whether something waits for a transaction now."""
        ready = (e for k, e in self._entries.items() if not self._blocked(k, e))
        return bool(self._refused) or any(e.pending or e.session.closed for e in ready)

    def draft(self, now_ms: int) -> Draft | None:
        """The next transaction, or None when none is due. Taken as committed: after a failure the memory is discarded."""
        pending = self.has_pending()
        if self._committed_ms is None:
            self._committed_ms = now_ms
        if not pending and (now_ms - self._committed_ms < self._silence_ms or self._floor(now_ms) <= self._committed):
            return None
        messages: list[Message] = []
        letters, self._refused = self._refused, []
        finished: list[tuple[str, str]] = []
        progress: list[Message] = []
        spoken: list[tuple[FinalTranscript, float | None]] = []
        repeats, self._repeats = self._repeats, 0
        for key, entry in sorted(self._entries.items(), key=lambda item: item[1].began):
            if self._blocked(key, entry):
                continue
            repeats += sum(o.repeats for o in entry.pending if isinstance(o, StreamCompleted) and not o.channel)
            finals = self._draft_outputs(entry, messages, letters, now_ms)
            spoken += finals
            if entry.progress and (told := entry.progress.after([final for final, _ in finals], now_ms)):
                progress.append(progress_message(told, entry.trace))
            entry.session.drafted()
            if self._saves(entry, now_ms):
                messages.append(self._save(key, entry, now_ms))
            if entry.session.closed:
                self._closed[key] = _Closed(entry.needs, entry.session.next_sequence)
                finished += [entry.ref] if entry.ref else []
                del self._entries[key]
        offset = max(self._floor(now_ms), self._committed)
        messages += [dead_letter(record, reason, now_ms) for record, reason in letters]
        messages += self._note_dead(letters, offset)
        self._committed, self._committed_ms = offset, now_ms
        stats = DraftStats(
            tuple(reason for _, reason in letters),
            sum((final.end_sample - final.start_sample) / final.rate for final, _ in spoken),
            tuple((late, final.language) for final, late in spoken if late is not None and not final.silent),
            repeats,
        )
        return Draft(tuple(messages), offset, tuple(finished), stats, tuple(progress))

    # Within

    def _restore(self, item: Saved) -> None:
        settled = item.marks.settled
        if item.marks.closed:
            self._closed[item.key] = _Closed(settled, item.marks.next_sequence)
            return
        session = self._sessions.restore(item.value)
        session.epoch = self.epoch
        self._entries[item.key] = _Entry(
            session, began=item.marks.began, covered=settled, needs=settled, saved_ms=0, ref=item.marks.ref,
            progress=self._file_progress(),
        )  # fmt: skip

    def _route(self, record: ConsumerRecord, incoming: Incoming) -> _Entry | None:
        """The entry that takes the record, made if its run is new; None when the run is closed."""
        key = incoming.audio.key
        if (closed := self._closed.get(key)) is not None:
            if record.offset >= closed.settled:
                self._too_late(record, incoming.audio, closed.next_sequence)
            return None
        entry = self._entries.get(key)
        if entry is None:
            session = self._sessions.new(key, self.source.latency)
            session.epoch = self.epoch
            entry = _Entry(
                session, record.offset, covered=0, needs=record.offset, saved_ms=self.record_ms,
                progress=self._file_progress(),
            )  # fmt: skip
            self._entries[key] = entry
            # One from before the claim may be of a run that the previous owner took and had no snapshot of yet.
            fresh = self.source.latency is Latency.LIVE and record.timestamp >= self._claimed_ms
            if fresh and not self._admits():
                self._turn_away(entry, record)
        for other_key, other in self._entries.items():
            if other_key[:2] == key[:2] and other.began < entry.began:
                self._supersede(other, record.timestamp)
        if (entry.session.closed or entry.superseded) and record.offset >= entry.covered:
            self._too_late(record, incoming.audio, entry.session.next_sequence)
            return None
        return entry

    def _too_late(self, record: ConsumerRecord, audio: AudioRecord, next_sequence: int) -> None:
        """Dead-letter a record of a closed run, unless it repeats what the run took."""
        if published_again(audio, self.source.latency, next_sequence):
            self._repeats += 1
        elif audio.kind not in _UNTOLD:
            self._refuse(record, Reason.RUN_CLOSED)

    def _file_progress(self) -> FileProgress | None:
        return FileProgress() if self.source.latency is Latency.BATCH else None

    def _turn_away(self, entry: _Entry, record: ConsumerRecord) -> None:
        """Close a run at its first record. The snapshot of a closed run makes a replay repeat it (promise 5)."""
        self._refuse(record, Reason.OVERLOADED)
        entry.touched = True
        entry.session.close(Reason.OVERLOADED, record.timestamp)
        self._collect(entry, entry.session.tick(record.timestamp), record.timestamp)

    def _supersede(self, entry: _Entry, now_ms: int) -> None:
        if entry.superseded or entry.session.closed:
            return
        entry.superseded = entry.touched = True
        entry.session.close(Reason.SUPERSEDED, now_ms)
        self._collect(entry, entry.session.tick(now_ms), now_ms)

    def _refuse(self, record: ConsumerRecord, reason: Reason) -> None:
        if record.offset not in self._dead and all(known.offset != record.offset for known, _ in self._refused):
            self._refused.append((record, reason))

    def _collect(self, entry: _Entry, outputs: Sequence[Output], now_ms: int) -> None:
        for output in outputs:
            if isinstance(output, PartialTranscript):
                self.partials.append(partial_message(output, entry.trace, split=_split(entry)))
                self._note_shown(entry, output, now_ms)
            else:
                entry.pending.append(output)
                entry.touched = True

    def _blocked(self, key: RunKey, entry: _Entry) -> bool:
        return any(k[:2] == key[:2] and e.began < entry.began for k, e in self._entries.items())

    def _draft_outputs(
        self, entry: _Entry, messages: list[Message], letters: list[tuple[ConsumerRecord, Reason]], now_ms: int
    ) -> list[tuple[FinalTranscript, float | None]]:
        """Render the entry's outputs; its finals, each with the seconds since its speech ended where that is known."""
        finals: list[tuple[FinalTranscript, float | None]] = []
        for output in entry.pending:
            if isinstance(output, DeadLetter):
                if output.offset not in self._dead and all(r.offset != output.offset for r, _ in letters):
                    letters.append((entry.raw[output.offset], output.reason))
                continue
            messages.append(durable_message(output, entry.trace, split=_split(entry)))
            if isinstance(output, FinalTranscript):
                finals.append((output, self._lateness(entry, output.speech_end_sample / output.rate, now_ms)))
        return finals

    def _lateness(self, entry: _Entry, second: float, now_ms: int) -> float | None:
        """Seconds since the broker had the audio at ``second`` of a live run."""
        if entry.anchor is None or self.source.latency is not Latency.LIVE:
            return None
        end, rate, received_ms = entry.anchor
        return (now_ms - received_ms) / 1000 + end / rate - second

    def _note_shown(self, entry: _Entry, partial: PartialTranscript, now_ms: int) -> None:
        late = self._lateness(entry, partial.end_ms / 1000, now_ms)
        if late is not None:
            first = self._lateness(entry, partial.start_ms / 1000, now_ms) if partial.revision == 1 else None
            self.shown.append(Shown(late, first, partial.language))

    def _saves(self, entry: _Entry, now_ms: int) -> bool:
        """Whether the entry's snapshot goes into this transaction."""
        due = now_ms - entry.saved_ms >= self._silence_ms
        must = bool(entry.pending) or entry.session.closed
        return must or (entry.touched and due and self._reached(entry) > entry.needs)

    def _save(self, key: RunKey, entry: _Entry, now_ms: int) -> Message:
        entry.needs, entry.saved_ms, entry.touched = self._reached(entry), now_ms, False
        entry.pending.clear()
        while entry.raw and (oldest := next(iter(entry.raw))) < entry.needs:  # they came in order
            del entry.raw[oldest]
        session = entry.session
        marks = SnapshotMarks(
            self.source.latency, session.closed, entry.needs, entry.began, entry.ref, session.next_sequence
        )
        return snapshot_message(key, session.snapshot(), marks)

    def _reached(self, entry: _Entry) -> int:
        """The offset that the session, as it is now, must be replayed from."""
        settled = entry.session.settled_offset()
        return self.position if settled is None else settled

    def _floor(self, now_ms: int) -> int:
        """The offset that may be committed when every entry that is due has been saved."""
        floor = self.position
        for key, entry in self._entries.items():
            if not entry.touched or (self._saves(entry, now_ms) and not self._blocked(key, entry)):
                floor = min(floor, max(entry.needs, self._reached(entry)))
            else:
                floor = min(floor, entry.needs)
        return floor

    def _note_dead(self, letters: list[tuple[ConsumerRecord, Reason]], offset: int) -> list[Message]:
        """The lane's record, when dead letters lie at or beyond what is committed: a replay meets them again."""
        self._dead = {at: reason for at, reason in self._dead.items() if at >= offset}
        new = {record.offset: reason for record, reason in letters if record.offset >= offset}
        if not new:
            return []
        self._dead |= new
        return [lane_message(str(self.source), lane_value(self._dead))]


def _split(entry: _Entry) -> bool:
    return entry.session.options.channels == "split"
