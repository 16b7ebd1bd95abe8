"""What a lane remembers: its sessions, the runs that are closed, and what the next transaction must hold.

A pure state machine: no I/O, no clock. Replaying the log from the committed offset over the snapshots brings it back, and
nothing is written twice: a record that a snapshot covers, or that was dead-lettered, is not taken again.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final as Const

from aiokafka.structs import ConsumerRecord

from kaption.domain.decoding.port import Decoded, Window
from kaption.domain.pool.ports import Admission, Sessions, Wanted, takes_all
from kaption.domain.records import Latency, RunKey
from kaption_gpu.lanes.book import Book
from kaption_gpu.lanes.closed_runs import ClosedRuns
from kaption_gpu.lanes.data import Draft, SavedLane, Shown, Source
from kaption_gpu.lanes.drafting import MOST_SAVED, Drafting, Now
from kaption_gpu.lanes.letters import Letters
from kaption_gpu.lanes.open_runs import OpenRuns
from kaption_gpu.lanes.outputs import Outputs
from kaption_gpu.lanes.records import Incoming
from kaption_gpu.lanes.routing import Routing
from kaption_schemas.codec import Message
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import Type

#: Audio that an open run may hold before its lane is not read on, seconds. More than four finals of 18 s that are held for an open
#: end, with 4 s between them, and the piece of a file that is kept back: a lane that stops reading before would wait for ever.
BACKLOG_SECONDS: Const = {Latency.LIVE: 300.0, Latency.BATCH: 150.0}
#: Runs that may hold so much. What more of them bring is read only while no segment of the lane's waits for its decode: short files, or
#: calls of a whole day behind, would else all be in memory before they are decoded.
FULL_RUNS: Const = {Latency.LIVE: 16, Latency.BATCH: 4}
#: Nobody waits any more for the last finals of a live run that are so late, in seconds.
GONE_SECONDS: Const = 10.0


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
        self._runs = OpenRuns()
        self._closed = ClosedRuns(source.latency)
        self._letters = Letters(saved.told)
        self._outputs = Outputs(self._runs, self._letters)
        self._full = False
        book = Book(source, self._runs, self._closed, self._letters, self._outputs)
        self._routing = Routing(book, sessions, refusal, epoch=epoch, claimed_ms=saved.claimed_ms, lost=lost)
        self._drafting = Drafting(book, position, silence_ms)
        for item in sorted(saved.snapshots, key=lambda item: item.written_ms):
            self._routing.restore(item, position, cut_off=saved.cut_off)
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
        run = self._routing.route(record, incoming, self.record_ms)
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
            # What is raised without the record as well is the run's.
            self._outputs.ask(run, record.timestamp, lambda session: session.tick(record.timestamp))
        else:
            self._outputs.keep(run, outputs, record.timestamp)
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
            self._outputs.ask(run, now_ms, lambda session: session.tick(now_ms))
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
        return run is None or not self._outputs.ask(
            run, self.record_ms, lambda session: session.fail(window_id, hung=hung)
        )

    def apply(self, key: RunKey, window_id: int, decoded: Decoded, now_ms: int) -> None:
        """Hand a result to its session; one for a run that has closed meanwhile is dropped."""
        if run := self._runs.get(key):
            run.touched = True
            self._outputs.ask(run, now_ms, lambda session: session.apply(window_id, decoded, now_ms))

    def committed(self) -> None:
        """The last draft is committed."""
        for run in self._runs:
            run.session.committed()

    # What goes out

    @property
    def partials(self) -> list[Message]:
        """Partials to send, and progress of files; whoever sends them clears them."""
        return self._outputs.partials

    @property
    def shown(self) -> list[Shown]:
        """What was shown, for the metrics; whoever counts it clears it."""
        return self._outputs.shown

    @property
    def faults(self) -> list[str]:
        """Types of what sessions raised; whoever logs them clears them."""
        return self._outputs.faults

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
        if self._letters.full or self._runs.due >= 4 * MOST_SAVED:
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
        return self._drafting.pending

    def draft(self, now_ms: int) -> Draft | None:
        """The next transaction, or None when none is due. Taken as committed: after a failure the memory is discarded."""
        now = Now(self.position, self.record_ms, now_ms)
        return self._drafting.draft(now, self._routing.take_repeats()) if self._drafting.due(now) else None
