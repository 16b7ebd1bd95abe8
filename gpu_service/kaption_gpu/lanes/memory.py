"""Keeps a lane's state: its sessions, its closed runs, and the content of the next transaction.

It is a pure state machine without I/O and clock. A replay from the committed offset, on top of the snapshots, restores
it. Nothing is written twice: a record that a snapshot covers, or that was dead-lettered, is not taken again.
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

#: Seconds of audio that an open run may hold before its lane stops reading. This exceeds four finals of 18 s that are held
#: back for an open suffix, with 4 s between them, and the part of a file that is kept for joining. A lane that stopped
#: reading earlier would wait without end.
BACKLOG_SECONDS: Const = {Latency.LIVE: 300.0, Latency.BATCH: 150.0}
#: Number of runs that may hold that audio. With more runs, the lane reads only while none of its segments waits for a decode.
#: Otherwise all short files, or the calls of a whole day's backlog, would be in memory before they are decoded.
FULL_RUNS: Const = {Latency.LIVE: 16, Latency.BATCH: 4}
#: The last finals of a live run that are later than this, in seconds, count as file work: no viewer waits any more.
GONE_SECONDS: Const = 10.0


class LaneMemory:
    """The sessions of one partition, from the first record after ``position`` on.

    Args:
        source: The partition.
        sessions: Makes sessions.
        saved: The lane's state on the state topic.
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

    # Records in

    def gave_up(self, offset: int) -> bool:
        """Whether an earlier owner abandoned the chunk at ``offset``: its audio was unavailable, and is not fetched again."""
        return self._letters.gave_up(offset)

    def skips(self, incoming: Incoming) -> bool:
        """Whether ``take`` would not use this record's audio, so that it need not be fetched."""
        audio = incoming.audio
        run = self._runs.get(audio.key)
        if run is None:
            return audio.key in self._closed
        return run.session.ended or run.superseded or run.covers(audio.offset, audio.timestamp_ms)

    def take(self, record: ConsumerRecord, incoming: Incoming | Reason) -> None:
        """Take the next record, parsed or with the reason why it is invalid."""
        self.position = record.offset + 1
        self.record_ms = max(self.record_ms, record.timestamp)
        if isinstance(incoming, Reason):
            self._letters.add(record, incoming)
            return
        run = self._routing.route(record, incoming, self.record_ms)
        if run is None or run.covers(record.offset, record.timestamp):
            return
        # A record that was dead-lettered before is fed as well: the session refuses it again, and needs its effect, such as
        # a gap's place in the order. Only the letter is not written twice.
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
        except Exception as error:  # noqa: BLE001  # any fault of a record must not end the process
            self.faults.append(type(error).__name__)
            self._letters.add(record, Reason.INTERNAL_ERROR, run.key)
            # If the session raises without the record, too, the fault is the run's.
            self._outputs.ask(run, record.timestamp, lambda session: session.tick(record.timestamp))
        else:
            self._outputs.keep(run, outputs, record.timestamp)
        run.forget_decided()

    def take_unavailable(self, record: ConsumerRecord, incoming: Incoming, attempts: int = 1) -> None:
        """Take a batch chunk with unreadable bytes, after ``attempts`` tries. It is dead-lettered, and the session gets a gap."""
        if self.skips(incoming):  # its run may be over by now, and its audio deleted
            self.take(record, incoming)
            return
        audio = incoming.audio
        self._letters.add(record, Reason.AUDIO_UNAVAILABLE, audio.key, attempts)
        self.take(record, replace(incoming, audio=audio.as_gap(Reason.AUDIO_UNAVAILABLE)))

    def tick(self, now_ms: int) -> None:
        """Let time pass in every session, by the broker's clock: the last record's time, or later at the partition's end."""
        for run in list(self._runs):
            settled = run.settled
            self._outputs.ask(run, now_ms, lambda session: session.tick(now_ms))
            # Closing an idle segment may settle quiet audio without an output. The offset must not pass it without a snapshot.
            run.touched |= run.settled != settled
        self._closed.forget(now_ms)

    # Decoding

    def wants(self, now_ms: int) -> Iterator[tuple[RunKey, Wanted]]:
        """The windows that the sessions want decoded. A run waits until the run before it on its stream is closed."""
        for run in self._runs.ready():
            for wanted in run.session.wants(now_ms):
                yield run.key, wanted

    def urgency(self, key: RunKey, wanted: Wanted) -> Latency:
        """The latency class of a wanted window. An ended live run's finals count as file work once late: no viewer waits for them.

        This does not apply if a later run of the stream waits for them, or if the lane cannot read until they are published.
        """
        run = self._runs[key]
        gone = wanted.overdue_s > GONE_SECONDS and run.session.ended and not self._full and not self._runs.followed(run)
        return Latency.BATCH if gone else self.source.latency

    def begin(self, key: RunKey, window_id: int) -> Window:
        """Mark a wanted window in flight, and copy its audio."""
        return self._runs[key].session.begin(window_id)

    def abandon(self, key: RunKey, window_id: int) -> None:
        """Requeue a window that is in flight."""
        if run := self._runs.get(key):
            run.session.abandon(window_id)

    def fail(self, key: RunKey, window_id: int, *, hung: bool) -> bool:
        """Note that the model failed or hung on a window. True if the window is requeued, False if its session abandons it."""
        run = self._runs.get(key)
        return run is None or not self._outputs.ask(
            run, self.record_ms, lambda session: session.fail(window_id, hung=hung)
        )

    def apply(self, key: RunKey, window_id: int, decoded: Decoded, now_ms: int) -> None:
        """Hand a result to its session. A result for a run that has closed meanwhile is dropped."""
        if run := self._runs.get(key):
            run.touched = True
            self._outputs.ask(run, now_ms, lambda session: session.apply(window_id, decoded, now_ms))

    def committed(self) -> None:
        """Note that the last draft is committed."""
        for run in self._runs:
            run.session.committed()

    # Outputs

    @property
    def partials(self) -> list[Message]:
        """Partials and files' progress to send. The sender clears them."""
        return self._outputs.partials

    @property
    def shown(self) -> list[Shown]:
        """Shown partials, for the metrics. The caller that counts them clears them."""
        return self._outputs.shown

    @property
    def faults(self) -> list[str]:
        """Types of the sessions' exceptions. The caller that logs them clears them."""
        return self._outputs.faults

    @property
    def open_runs(self) -> int:
        """The number of open runs."""
        return len(self._runs)

    @property
    def closed_runs(self) -> int:
        """The number of remembered closed runs."""
        return len(self._closed)

    def runs_by_tenant(self) -> Counter[str]:
        """The number of open runs of each tenant."""
        return self._runs.by_tenant

    def backlog_seconds(self) -> float:
        """Seconds of audio in all sessions that no final covers yet."""
        return self._runs.backlog

    def has_room(self) -> bool:
        """Whether the lane may read on, by the seconds of held audio. If all of it waits for more audio, the lane reads on.

        It does not read while more outputs wait than the next few transactions take.
        """
        if self._letters.full or self._runs.due >= 4 * MOST_SAVED:
            self._full = True
            return False
        held, share = self.backlog_seconds(), BACKLOG_SECONDS[self.source.latency]
        few = held < share * min(max(1, self.open_runs), FULL_RUNS[self.source.latency])
        self._full = not few and (held >= share * self.open_runs or self._runs.undecoded)
        return not self._full

    def reading_late(self, now_ms: int) -> float:
        """Seconds that the newest taken record is behind the clock. 0 before the first record."""
        return max(0.0, (now_ms - self.record_ms) / 1000) if self.record_ms else 0.0

    def has_pending(self) -> bool:
        """Whether outputs wait for a transaction now."""
        return self._drafting.pending

    def draft(self, now_ms: int) -> Draft | None:
        """The next transaction, None if none is due. It counts as committed: after a failure, the memory is discarded."""
        now = Now(self.position, self.record_ms, now_ms)
        return self._drafting.draft(now, self._routing.take_repeats()) if self._drafting.due(now) else None
