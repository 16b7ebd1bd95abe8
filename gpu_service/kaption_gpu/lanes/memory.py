"""What a lane remembers: its sessions, the runs that are closed, and what the next transaction must hold.

A pure state machine: no I/O, no clock. Replaying the log from the committed offset over the snapshots brings it back, and
nothing is written twice: a record that a snapshot covers, or that was dead-lettered, is not taken again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final as Const

from aiokafka.structs import ConsumerRecord

from kaption.domain.decoding.port import Decoded, Window
from kaption.domain.pool.ports import Admission, LaneSession, Sessions, Wanted, takes_all
from kaption.domain.records import AudioRecord, Latency, Output, Refused, RunKey
from kaption.domain.run.ordering import published_again
from kaption_gpu.lanes.closed_runs import Closed, ClosedRuns
from kaption_gpu.lanes.data import Draft, DraftStats, Saved, SavedLane, Shown, Source
from kaption_gpu.lanes.file_progress import FileProgress
from kaption_gpu.lanes.letters import Letter, Letters
from kaption_gpu.lanes.open_runs import OpenRun, OpenRuns
from kaption_gpu.lanes.records import Incoming, dead_letter
from kaption_schemas.codec import Message, SnapshotMarks, encode_lane, encode_snapshot, encode_transcript
from kaption_schemas.reasons import Reason
from kaption_schemas.records import FinalTranscript, PartialTranscript, StreamCompleted
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
#: Runs that one transaction saves at most; of runs that wait for theirs a lane has four times as many at most, or it is not read on.
_MOST_SAVED: Const = 1000


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
        refusal: Whether a live run is taken.
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
        refusal: Admission = takes_all,
    ) -> None:
        self.source = source
        self.position = position
        self.epoch = epoch
        self.record_ms = 0
        self.partials: list[Message] = []
        self.shown: list[Shown] = []
        #: Types of what sessions raised on single records, since it was looked at last.
        self.faults: list[str] = []
        self._sessions = sessions
        self._refusal = refusal
        self._claimed_ms = saved.claimed_ms
        self._lost = lost
        self._silence_ms = silence_ms
        self._runs = OpenRuns()
        self._closed = ClosedRuns(source.latency)
        self._repeats = 0
        self._full = False
        self._letters = Letters(saved.told)
        self._committed = position
        self._committed_ms: int | None = None
        for item in sorted(saved.snapshots, key=lambda item: item.written_ms):
            self._restore(item, cut_off=saved.cut_off)
        for run in self._runs if lost else ():
            run.session.note_loss()

    # What comes in

    def gave_up(self, offset: int) -> bool:
        """Whether an earlier owner dead-lettered the chunk at ``offset`` since its audio was not to be had: then it is not asked for again."""
        return self._letters.gave_up(offset)

    def skips(self, incoming: Incoming) -> bool:
        """Whether ``take`` would not hand this record's audio to a session, so that it need not be fetched."""
        audio = incoming.audio
        run = self._runs.get(audio.key)
        if run is None:
            return audio.key in self._closed
        return run.session.ended or run.superseded or run.covers(audio.offset, audio.timestamp_ms)

    def take(self, record: ConsumerRecord, incoming: Incoming | Reason) -> None:
        """Take the next record: parsed, or why it could not be."""
        self.position = record.offset + 1
        self.record_ms = max(self.record_ms, record.timestamp)
        if isinstance(incoming, Reason):
            self._letters.add(record, incoming)
            return
        run = self._route(record, incoming)
        if run is None or run.covers(record.offset, record.timestamp):
            return
        # One that was dead-lettered before is fed as well: the session judges it again, and what it leaves (a gap's
        # place in the order) is needed; only the letter is not written twice.
        run.raw[record.offset] = record
        run.trace = incoming.trace or run.trace
        if incoming.ref is not None:
            run.ref = (incoming.ref.bucket, incoming.ref.key)
        run.touched = True
        if incoming.refused:
            self._letters.add(record, incoming.refused, run.key)
        audio = incoming.audio
        if audio.kind is Type.CHUNK:
            run.anchor = (audio.first_sample + audio.samples, audio.rate, audio.received_ms)
            if run.progress:
                run.progress.heard(incoming, split=run.split)
        try:
            outputs = run.session.feed(audio)
        except Exception as error:  # noqa: BLE001  # whatever a publisher has found: it is one record's, not the process's
            self.faults.append(type(error).__name__)
            self._letters.add(record, Reason.INTERNAL_ERROR, run.key)
            outputs = ()
        self._collect(run, outputs, record.timestamp)
        run.forget_decided()

    def take_unavailable(self, record: ConsumerRecord, incoming: Incoming, attempts: int = 1) -> None:
        """Take a batch chunk whose bytes cannot be read, tried so often: the record is dead-lettered, the session gets a gap."""
        if self.skips(incoming):  # its run may be over by now, and its audio deleted for that
            self.take(record, incoming)
            return
        audio = incoming.audio
        self._letters.add(record, Reason.AUDIO_UNAVAILABLE, audio.key, attempts)
        self.take(record, replace(incoming, audio=audio.as_gap(Reason.AUDIO_UNAVAILABLE)))

    def tick(self, now_ms: int) -> None:
        """Let every session see the time, by the broker's clock: that of the last record, or later at the partition's end."""
        for run in list(self._runs):
            settled = run.settled
            self._collect(run, run.session.tick(now_ms), now_ms)
            # An idle cut may settle quiet audio and tell nothing: the offset must not pass it without a snapshot.
            run.touched |= run.settled != settled
        self._closed.forget(now_ms)

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

    @property
    def closed_runs(self) -> int:
        """Closed runs that are remembered."""
        return len(self._closed)

    def runs_by_tenant(self) -> Counter[str]:
        """How many of the open runs are whose."""
        return self._runs.by_tenant

    def backlog_seconds(self) -> float:
        """Audio that no final covers yet, in all sessions."""
        return self._runs.backlog

    def has_room(self) -> bool:
        """Whether more may be read, by the audio that is held. Where all of it waits for more to come it is read in any case.

        Nor while more waits for transactions than the next few take.
        """
        if self._letters.full or self._runs.due >= 4 * _MOST_SAVED:
            self._full = True
            return False
        held, share = self.backlog_seconds(), BACKLOG_SECONDS[self.source.latency]
        few = held < share * min(max(1, self.open_runs), FULL_RUNS[self.source.latency])
        self._full = not few and (held >= share * self.open_runs or self._runs.undecoded)
        return not self._full

    def reading_late(self, now_ms: int) -> float:
        """Seconds that the newest record taken lies behind the clock; 0 before the first, when nothing is known yet."""
        return max(0.0, (now_ms - self.record_ms) / 1000) if self.record_ms else 0.0

    def has_pending(self) -> bool:
        """Whether something waits for a transaction now."""
        return bool(self._letters) or self._runs.pending

    def draft(self, now_ms: int) -> Draft | None:
        """The next transaction, or None when none is due. Taken as committed: after a failure the memory is discarded."""
        pending = self.has_pending()
        if self._committed_ms is None:
            self._committed_ms = now_ms
        if not pending and (not self._passed(self._committed_ms, now_ms) or self._floor(now_ms) <= self._committed):
            return None
        messages: list[Message] = []
        finished: list[RunKey] = []
        progress: list[Message] = []
        spoken: list[tuple[FinalTranscript, float | None]] = []
        repeats, self._repeats = self._repeats, 0
        letters = self._letters.take()
        for run in self._chosen(now_ms):
            repeats += sum(o.repeats for o in run.pending if isinstance(o, StreamCompleted) and not o.channel)
            finals = self._draft_outputs(run, messages, now_ms)
            spoken += finals
            if run.progress and (told := run.progress.after([final for final, _ in finals], now_ms)):
                progress.append(encode_transcript(told, run.trace))
            run.session.drafted()
            messages.append(self._save(run, now_ms))
            if run.session.closed:
                self._closed.add(
                    run.key, Closed(run.needs, run.session.next_sequence, run.session.newest_ms, self.record_ms)
                )
                finished += [run.key] if run.ref else []
                self._runs.remove(run)
        offset = max(self._floor(None), self._committed)
        messages += [dead_letter(letter.record, letter.reason, now_ms, letter.attempts) for letter in letters]
        messages += self._mark_told(letters, offset)
        self._committed, self._committed_ms = offset, now_ms
        stats = DraftStats(
            tuple(letter.reason for letter in letters),
            sum((final.end_sample - final.start_sample) / final.rate for final, _ in spoken),
            tuple((late, final.language) for final, late in spoken if late is not None and not final.silent),
            repeats,
        )
        return Draft(tuple(messages), offset, tuple(finished), stats, tuple(progress))

    # Within

    def _restore(self, item: Saved, *, cut_off: bool) -> None:
        marks = item.marks
        # Beyond the end of a log that was cut off offsets are given again, to records that are newer than the snapshot.
        until = item.written_ms if cut_off else None
        if marks.closed:
            self._closed.add(
                item.key, Closed(marks.settled, marks.next_sequence, marks.newest_ms, item.written_ms, until)
            )
            return
        session = self._sessions.restore(item.value)
        session.epoch = self.epoch
        run = OpenRun(
            item.key, session, began=min(marks.began, self.position), covered=marks.settled, needs=marks.settled, saved_ms=0,
            ref=marks.ref, progress=self._file_progress(), until_ms=until, judged=-1 if session.ended or cut_off else session.last_offset,
        )  # fmt: skip
        self._runs.add(run)
        if session.ended:  # it cannot go on here, and what it took and no final covers gets dead letters
            self._letters.forget_told()
            run.touched = True
            self._collect(run, session.tick(0), 0)

    def _route(self, record: ConsumerRecord, incoming: Incoming) -> OpenRun | None:
        """The run that takes the record, made if its run is new; None when the run is closed."""
        key = incoming.audio.key
        if (closed := self._closed.heard(key, record.timestamp)) is not None:
            if not closed.covers(record.offset, record.timestamp):
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
            opens = incoming.audio.kind is not Type.REFUSED and self.source.latency is Latency.LIVE
            here, new = self._runs.by_tenant[key.tenant], record.timestamp >= self._claimed_ms
            if opens and (reason := self._refusal(key.tenant, here, new=new)):
                self._turn_away(run, record, reason)
        for other in self._runs.before(run):
            self._supersede(other, record.timestamp)
        if (run.session.ended or run.superseded) and not run.covers(record.offset, record.timestamp):
            if record.offset > run.judged:
                self._too_late(record, incoming.audio, run.session)
            return None
        return run

    def _too_late(self, record: ConsumerRecord, audio: AudioRecord, over: Closed | LaneSession) -> None:
        """Dead-letter a record of a closed run, unless it repeats what the run took."""
        if published_again(audio, self.source.latency, over.next_sequence, over.newest_ms):
            self._repeats += 1
        elif audio.kind not in _UNTOLD:
            self._letters.add(record, Reason.RUN_CLOSED, audio.key)

    def _file_progress(self) -> FileProgress | None:
        return FileProgress() if self.source.latency is Latency.BATCH else None

    def _turn_away(self, run: OpenRun, record: ConsumerRecord, reason: Reason) -> None:
        """Close a run at its first record. The snapshot of a closed run makes a replay repeat it (promise 5)."""
        self._letters.add(record, reason, run.key)
        run.touched = run.turned_away = True
        run.session.close(reason, record.timestamp)
        self._collect(run, run.session.tick(record.timestamp), record.timestamp)

    def _supersede(self, run: OpenRun, now_ms: int) -> None:
        if run.superseded or run.session.closed:
            return
        run.superseded = run.touched = True
        run.session.close(Reason.SUPERSEDED, now_ms)
        self._collect(run, run.session.tick(now_ms), now_ms)

    def _collect(self, run: OpenRun, outputs: Sequence[Output], now_ms: int) -> None:
        for output in outputs:
            if isinstance(output, PartialTranscript):
                self.partials.append(encode_transcript(output, run.trace, split=run.split))
                self._note_shown(run, output, now_ms)
            elif isinstance(output, Refused):
                self._letters.add(run.raw[output.offset], output.reason, run.key)
                run.touched = True
            else:
                run.pending.append(output)
                run.touched = True
        self._runs.note(run)

    def _chosen(self, now_ms: int) -> list[OpenRun]:
        """The runs that are saved now: the oldest first, and those that were turned away behind all others."""
        due = (run for run in self._runs if self._saves(run, now_ms) and not self._runs.waits(run))
        return sorted(due, key=lambda run: (run.turned_away, run.began))[:_MOST_SAVED]

    def _draft_outputs(
        self, run: OpenRun, messages: list[Message], now_ms: int
    ) -> list[tuple[FinalTranscript, float | None]]:
        """Render the run's outputs; its finals, each with the seconds since its speech ended where that is known."""
        finals: list[tuple[FinalTranscript, float | None]] = []
        for output in run.pending:
            messages.append(encode_transcript(output, run.trace, split=run.split))
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

    def _passed(self, since_ms: int, now_ms: int) -> bool:
        """Whether it is time for what is done every so often; a clock that went back is no reason to wait."""
        return not 0 <= now_ms - since_ms < self._silence_ms

    def _saves(self, run: OpenRun, now_ms: int) -> bool:
        """Whether the run's snapshot is due; it waits for all letters of the run, since a replay does not judge what it covers."""
        if self._letters.owed(run.key):
            return False
        must = bool(run.pending) or run.session.closed
        return must or (run.touched and self._passed(run.saved_ms, now_ms) and self._reached(run) > run.needs)

    def _save(self, run: OpenRun, now_ms: int) -> Message:
        run.needs, run.saved_ms, run.touched = self._reached(run), now_ms, False
        run.pending.clear()
        session = run.session
        taken = (session.next_sequence, session.newest_ms)
        marks = SnapshotMarks(self.source.latency, session.closed, run.needs, run.began, run.ref, *taken)
        self._runs.note(run)
        return encode_snapshot(run.key, session.snapshot(), marks)

    def _reached(self, run: OpenRun) -> int:
        """The offset that the session, as it is now, must be replayed from."""
        if run.session.closed:  # a replay may close it by fewer records than the earlier owner had judged
            return max(self.position, run.judged + 1)
        return self.position if run.settled is None else run.settled

    def _floor(self, now_ms: int | None) -> int:
        """The offset that may be committed; when every run that is due by ``now_ms`` has been saved, or as things are."""
        floor = self.position if self._letters.oldest is None else min(self.position, self._letters.oldest)
        for run in self._runs:
            saved = now_ms is not None and self._saves(run, now_ms) and not self._runs.waits(run)
            floor = min(floor, run.needs if run.touched and not saved else max(run.needs, self._reached(run)))
        return floor

    def _mark_told(self, letters: Sequence[Letter], offset: int) -> list[Message]:
        """The lane's record, when dead letters lie at or beyond what is committed: a replay meets their records again."""
        if not self._letters.marks(letters, offset):
            return []
        undecided = (at for run in self._runs for at in run.session.undecided)
        return [encode_lane(str(self.source), self._letters.mark(offset, self.position, undecided).value())]
