"""What a lane remembers: its sessions, the runs that are closed, and what the next transaction must hold.

A pure state machine: no I/O, no clock. Replaying the log from the committed offset over the snapshots brings it back, and
nothing is written twice: a record that a snapshot covers, or that was dead-lettered, is not taken again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final as Const

from aiokafka.structs import ConsumerRecord

from kaption.domain.decoding import Decoded, Window
from kaption.domain.ordering import published_again
from kaption.domain.outputs import AudioRecord, DeadLetter, Latency, Output, RunKey
from kaption_gpu.lane_data import Draft, DraftStats, Saved, SavedLane, Shown, Source, lane_value
from kaption_gpu.open_runs import OpenRun, OpenRuns
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

#: Audio that an open run may hold before its lane is not read on, seconds. More than four finals of 18 s that are held for an open
#: end, with 4 s between them, and the piece of a file that is kept back: a lane that stops reading before would wait for ever.
BACKLOG_SECONDS: Const = {Latency.LIVE: 300.0, Latency.BATCH: 150.0}
#: Runs that may hold so much. What more of them bring is read only while no segment of the lane's waits for its decode: short files, or
#: calls of a whole day behind, would else all be in memory before they are decoded.
FULL_RUNS: Const = {Latency.LIVE: 16, Latency.BATCH: 4}
#: Nobody waits any more for the last finals of a live run that are so late, in seconds.
GONE_SECONDS: Const = 10.0
#: No dead letter when their run is closed: a repeat of `ended` is a no-op, the others stand for what has a letter of its own.
_UNTOLD: Const = frozenset({Type.ENDED, Type.GAP, Type.REFUSED})


@dataclass(frozen=True, slots=True)
class _Closed:
    """A run that is over: the offset before which its records are covered, the sequence before which it took chunks, and when the
    broker received the newest record that it took.
    """

    settled: int
    next_sequence: int
    newest_ms: int


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
        admits: Whether a new live run of a tenant is taken now; it is asked at a run's first record, when the run counts as open.
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
        admits: Callable[[str], bool] = lambda _tenant: True,
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
        self._lost = lost
        self._silence_ms = silence_ms
        self._runs = OpenRuns()
        self._closed: dict[RunKey, _Closed] = {}
        self._repeats = 0
        self._full = False
        self._dead = dict(saved.dead)
        self._refused: list[tuple[ConsumerRecord, Reason]] = []
        self._committed = position
        self._committed_ms: int | None = None
        for item in saved.snapshots:
            self._restore(item)
        for run in self._runs if lost else ():
            run.session.note_loss()

    # What comes in

    def dead_reason(self, offset: int) -> Reason | None:
        """Why the record at ``offset`` was dead-lettered by an earlier owner, if it was."""
        return self._dead.get(offset)

    def skips(self, incoming: Incoming) -> bool:
        """Whether ``take`` would not hand this record's audio to a session, so that it need not be fetched."""
        audio = incoming.audio
        run = self._runs.get(audio.key)
        return audio.key in self._closed or (run is not None and audio.offset < run.covered)

    def take(self, record: ConsumerRecord, incoming: Incoming | Reason) -> None:
        """Take the next record: parsed, or why it could not be."""
        self.position = record.offset + 1
        self.record_ms = max(self.record_ms, record.timestamp)
        if isinstance(incoming, Reason):
            self._refuse(record, incoming)
            return
        run = self._route(record, incoming)
        if run is None:
            return
        if record.offset < run.covered:
            return
        # One that was dead-lettered before is fed as well: the session judges it again, and what it leaves (a gap's
        # place in the order) is needed; only the letter is not written twice.
        run.raw[record.offset] = record
        run.trace = incoming.trace or run.trace
        if incoming.ref is not None:
            run.ref = (incoming.ref.bucket, incoming.ref.key)
        run.touched = True
        audio = incoming.audio
        if audio.kind is Type.CHUNK:
            run.anchor = (audio.first_sample + audio.samples, audio.rate, audio.received_ms)
            if run.progress:
                run.progress.heard(incoming, split=run.split)
        self._collect(run, run.session.feed(audio), record.timestamp)
        run.forget_decided()

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
        for run in list(self._runs):
            settled = run.session.settled_offset()
            self._collect(run, run.session.tick(now_ms), now_ms)
            # An idle cut may settle quiet audio and tell nothing: the offset must not pass it without a snapshot.
            run.touched |= run.session.settled_offset() != settled

    # What is decoded

    def wants(self, now_ms: int) -> Iterator[tuple[RunKey, Wanted]]:
        """What the sessions want decoded; a run waits until the run before it on its stream is closed."""
        for run in self._runs.ready():
            for wanted in run.session.wants(now_ms):
                yield run.key, wanted

    def urgency(self, key: RunKey, wanted: Wanted) -> Latency:
        """How soon a wanted window is looked for: a live run's last finals are a file's once they are late, since who watched it is gone.

        Not where the stream goes on with another run, which waits for them, nor in a lane that cannot be read on before they are out.
        """
        run = self._runs[key]
        gone = wanted.overdue_s > GONE_SECONDS and run.session.ended and not self._full and not self._runs.followed(run)
        return Latency.BATCH if gone else self.source.latency

    def begin(self, key: RunKey, window_id: int) -> Window:
        """Mark a wanted window in flight and copy its audio out."""
        return self._runs[key].session.begin(window_id)

    def abandon(self, key: RunKey, window_id: int) -> None:
        """Put a window in flight back."""
        if run := self._runs.get(key):
            run.session.abandon(window_id)

    def fail(self, key: RunKey, window_id: int, *, hung: bool) -> bool:
        """The model failed on a window, or hung: put it back; False when its session gives it up instead."""
        run = self._runs.get(key)
        outputs = run.session.fail(window_id, hung=hung) if run else None
        if run is None or outputs is None:
            return True
        self._collect(run, outputs, self.record_ms)
        return False

    def apply(self, key: RunKey, window_id: int, decoded: Decoded, now_ms: int) -> None:
        """Hand a result to its session; one for a run that has closed meanwhile is dropped."""
        if run := self._runs.get(key):
            run.touched = True
            self._collect(run, run.session.apply(window_id, decoded, now_ms), now_ms)

    def committed(self) -> None:
        """The last draft is committed."""
        for run in self._runs:
            run.session.committed()

    # What goes out

    @property
    def open_runs(self) -> int:
        """Runs that are open."""
        return len(self._runs)

    def runs_by_tenant(self) -> Counter[str]:
        """How many of the open runs are whose."""
        return Counter(run.key.tenant for run in self._runs)

    def backlog_seconds(self) -> float:
        """Audio that no final covers yet, in all sessions."""
        return sum(run.session.backlog_seconds() for run in self._runs)

    def has_room(self) -> bool:
        """Whether more may be read, by the audio that is held. Where all of it waits for more to come it is read in any case."""
        held, share = self.backlog_seconds(), BACKLOG_SECONDS[self.source.latency]
        few = held < share * min(max(1, self.open_runs), FULL_RUNS[self.source.latency])
        self._full = not few and (held >= share * self.open_runs or any(run.session.undecoded() for run in self._runs))
        return not self._full

    def reading_late(self, now_ms: int) -> float:
        """Seconds that the newest record taken lies behind the clock; 0 before the first, when nothing is known yet."""
        return max(0.0, (now_ms - self.record_ms) / 1000) if self.record_ms else 0.0

    def has_pending(self) -> bool:
        """Whether something waits for a transaction now."""
        return bool(self._refused) or any(run.pending or run.session.closed for run in self._runs.ready())

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
        for run in sorted(self._runs, key=lambda run: run.began):
            if self._runs.waits(run):
                continue
            repeats += sum(o.repeats for o in run.pending if isinstance(o, StreamCompleted) and not o.channel)
            finals = self._draft_outputs(run, messages, letters, now_ms)
            spoken += finals
            if run.progress and (told := run.progress.after([final for final, _ in finals], now_ms)):
                progress.append(progress_message(told, run.trace))
            run.session.drafted()
            if self._saves(run, now_ms):
                messages.append(self._save(run, now_ms))
            if run.session.closed:
                self._closed[run.key] = _Closed(run.needs, run.session.next_sequence, run.session.newest_ms)
                finished += [run.ref] if run.ref else []
                self._runs.remove(run)
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
            self._closed[item.key] = _Closed(settled, item.marks.next_sequence, item.marks.newest_ms)
            return
        session = self._sessions.restore(item.value)
        session.epoch = self.epoch
        self._runs.add(OpenRun(
            item.key, session, began=item.marks.began, covered=settled, needs=settled, saved_ms=0, ref=item.marks.ref,
            progress=self._file_progress(),
        ))  # fmt: skip

    def _route(self, record: ConsumerRecord, incoming: Incoming) -> OpenRun | None:
        """The run that takes the record, made if its run is new; None when the run is closed."""
        key = incoming.audio.key
        if (closed := self._closed.get(key)) is not None:
            if record.offset >= closed.settled:
                self._too_late(record, incoming.audio, closed)
            return None
        run = self._runs.get(key)
        if run is None:
            session = self._sessions.new(key, self.source.latency)
            session.epoch = self.epoch
            old = not self._claimed_ms or record.timestamp < self._claimed_ms
            if self._lost and old and incoming.audio.kind is not Type.STARTED:
                session.note_loss()  # its beginning may be among what the log lost
            run = OpenRun(
                key, session, record.offset, covered=0, needs=record.offset, saved_ms=self.record_ms,
                progress=self._file_progress(),
            )  # fmt: skip
            self._runs.add(run)
            # One from before the claim may be of a run that the previous owner took and had no snapshot of yet.
            # A start that was refused opens nothing that there could be too much of.
            opens = incoming.audio.kind is not Type.REFUSED
            fresh = opens and self.source.latency is Latency.LIVE and record.timestamp >= self._claimed_ms
            if fresh and not self._admits(key.tenant):
                self._turn_away(run, record)
        for other in self._runs.before(run):
            self._supersede(other, record.timestamp)
        if (run.session.ended or run.superseded) and record.offset >= run.covered:
            self._too_late(record, incoming.audio, run.session)
            return None
        return run

    def _too_late(self, record: ConsumerRecord, audio: AudioRecord, over: _Closed | LaneSession) -> None:
        """Dead-letter a record of a closed run, unless it repeats what the run took."""
        if published_again(audio, self.source.latency, over.next_sequence, over.newest_ms):
            self._repeats += 1
        elif audio.kind not in _UNTOLD:
            self._refuse(record, Reason.RUN_CLOSED)

    def _file_progress(self) -> FileProgress | None:
        return FileProgress() if self.source.latency is Latency.BATCH else None

    def _turn_away(self, run: OpenRun, record: ConsumerRecord) -> None:
        """Close a run at its first record. The snapshot of a closed run makes a replay repeat it (promise 5)."""
        self._refuse(record, Reason.OVERLOADED)
        run.touched = True
        run.session.close(Reason.OVERLOADED, record.timestamp)
        self._collect(run, run.session.tick(record.timestamp), record.timestamp)

    def _supersede(self, run: OpenRun, now_ms: int) -> None:
        if run.superseded or run.session.closed:
            return
        run.superseded = run.touched = True
        run.session.close(Reason.SUPERSEDED, now_ms)
        self._collect(run, run.session.tick(now_ms), now_ms)

    def _refuse(self, record: ConsumerRecord, reason: Reason) -> None:
        if record.offset not in self._dead and all(known.offset != record.offset for known, _ in self._refused):
            self._refused.append((record, reason))

    def _collect(self, run: OpenRun, outputs: Sequence[Output], now_ms: int) -> None:
        for output in outputs:
            if isinstance(output, PartialTranscript):
                self.partials.append(partial_message(output, run.trace, split=run.split))
                self._note_shown(run, output, now_ms)
            else:
                run.pending.append(output)
                run.touched = True

    def _draft_outputs(
        self, run: OpenRun, messages: list[Message], letters: list[tuple[ConsumerRecord, Reason]], now_ms: int
    ) -> list[tuple[FinalTranscript, float | None]]:
        """Render the run's outputs; its finals, each with the seconds since its speech ended where that is known."""
        finals: list[tuple[FinalTranscript, float | None]] = []
        for output in run.pending:
            if isinstance(output, DeadLetter):
                if output.offset not in self._dead and all(r.offset != output.offset for r, _ in letters):
                    letters.append((run.raw[output.offset], output.reason))
                continue
            messages.append(durable_message(output, run.trace, split=run.split))
            if isinstance(output, FinalTranscript):
                finals.append((output, self._lateness(run, output.speech_end_sample / output.rate, now_ms)))
        return finals

    def _lateness(self, run: OpenRun, second: float, now_ms: int) -> float | None:
        """Seconds since the broker had the audio at ``second`` of a live run."""
        if run.anchor is None or self.source.latency is not Latency.LIVE:
            return None
        end, rate, received_ms = run.anchor
        return (now_ms - received_ms) / 1000 + end / rate - second

    def _note_shown(self, run: OpenRun, partial: PartialTranscript, now_ms: int) -> None:
        late = self._lateness(run, partial.end_ms / 1000, now_ms)
        if late is not None:
            first = self._lateness(run, partial.start_ms / 1000, now_ms) if partial.revision == 1 else None
            self.shown.append(Shown(late, first, partial.language))

    def _saves(self, run: OpenRun, now_ms: int) -> bool:
        """Whether the run's snapshot goes into this transaction."""
        due = now_ms - run.saved_ms >= self._silence_ms
        must = bool(run.pending) or run.session.closed
        return must or (run.touched and due and self._reached(run) > run.needs)

    def _save(self, run: OpenRun, now_ms: int) -> Message:
        run.needs, run.saved_ms, run.touched = self._reached(run), now_ms, False
        run.pending.clear()
        session = run.session
        taken = (session.next_sequence, session.newest_ms)
        marks = SnapshotMarks(self.source.latency, session.closed, run.needs, run.began, run.ref, *taken)
        return snapshot_message(run.key, session.snapshot(), marks)

    def _reached(self, run: OpenRun) -> int:
        """The offset that the session, as it is now, must be replayed from."""
        settled = run.session.settled_offset()
        return self.position if settled is None else settled

    def _floor(self, now_ms: int) -> int:
        """The offset that may be committed when every run that is due has been saved."""
        floor = self.position
        for run in self._runs:
            if not run.touched or (self._saves(run, now_ms) and not self._runs.waits(run)):
                floor = min(floor, max(run.needs, self._reached(run)))
            else:
                floor = min(floor, run.needs)
        return floor

    def _note_dead(self, letters: list[tuple[ConsumerRecord, Reason]], offset: int) -> list[Message]:
        """The lane's record, when dead letters lie at or beyond what is committed: a replay meets them again."""
        self._dead = {at: reason for at, reason in self._dead.items() if at >= offset}
        new = {record.offset: reason for record, reason in letters if record.offset >= offset}
        if not new:
            return []
        self._dead |= new
        return [lane_message(str(self.source), lane_value(self._dead))]
