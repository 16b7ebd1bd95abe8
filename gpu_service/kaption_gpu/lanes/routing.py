"""Routes a record to its run: an open one, a new one, or none if the run is over or rejected."""

from typing import Final as Const

from aiokafka.structs import ConsumerRecord

from kaption.domain.pool.ports import Admission, LaneSession, Sessions
from kaption.domain.records import AudioRecord, Latency
from kaption.domain.run.ordering import published_again
from kaption_gpu.lanes.book import Book
from kaption_gpu.lanes.closed_runs import Closed
from kaption_gpu.lanes.data import Saved
from kaption_gpu.lanes.file_progress import FileProgress
from kaption_gpu.lanes.open_runs import OpenRun
from kaption_gpu.lanes.records import Incoming
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import Type

#: No dead letter when their run is closed: a repeat of `ended` changes nothing, and the others stand for dead-lettered records.
_UNTOLD: Const = frozenset({Type.ENDED, Type.GAP, Type.REFUSED})


class Routing:
    """Routes one lane's records, and opens its runs.

    ``epoch`` is the claim's offset, ``claimed_ms`` its time. ``lost``: the log does not hold every record since the last commit.
    """

    def __init__(
        self, book: Book, sessions: Sessions, refusal: Admission, *, epoch: int, claimed_ms: int, lost: bool
    ) -> None:
        self._book = book
        self._sessions = sessions
        self._refusal = refusal
        self._epoch = epoch
        self._claimed_ms = claimed_ms
        self._lost = lost
        self._repeats = 0

    def take_repeats(self) -> int:
        """The number of repeats of closed runs since the last call."""
        repeats, self._repeats = self._repeats, 0
        return repeats

    def restore(self, item: Saved, position: int, *, cut_off: bool) -> None:
        """Restore a run, open or closed, from its snapshot. ``position`` is the offset of the lane's next record."""
        marks = item.marks
        # After the end of a log that was cut off, the broker gives offsets again, to records newer than the snapshot.
        until = item.written_ms if cut_off else None
        if marks.closed:
            self._book.closed.add(
                item.key, Closed(marks.settled, marks.next_sequence, marks.newest_ms, item.written_ms, until)
            )
            return
        session = self._sessions.restore(item.value)
        session.epoch = self._epoch
        run = OpenRun(
            item.key, session, began=min(marks.began, position), covered=marks.settled, needs=marks.settled, saved_ms=0,
            ref=marks.ref, progress=self._file_progress(), until_ms=until, judged=-1 if session.ended or cut_off else session.last_offset,
        )  # fmt: skip
        self._book.runs.add(run)
        if session.ended:  # it cannot go on here, and taken records without a final get dead letters
            self._book.letters.forget_told()
            run.touched = True
            self._book.outputs.ask(run, 0, lambda session: session.tick(0))

    def route(self, record: ConsumerRecord, incoming: Incoming, record_ms: int) -> OpenRun | None:
        """The record's run, which is opened if it is new. None if the run is closed. ``record_ms`` is the lane's time."""
        key, runs = incoming.audio.key, self._book.runs
        if (closed := self._book.closed.heard(key, record.timestamp)) is not None:
            if not closed.covers(record.offset, record.timestamp):
                self._too_late(record, incoming.audio, closed)
            return None
        run = runs.get(key) or self._begin(record, incoming, record_ms)
        for other in runs.before(run):
            self._supersede(other, record.timestamp)
        if (run.session.ended or run.superseded) and not run.covers(record.offset, record.timestamp):
            if record.offset > run.judged:
                self._too_late(record, incoming.audio, run.session)
            return None
        return run

    def _begin(self, record: ConsumerRecord, incoming: Incoming, record_ms: int) -> OpenRun:
        key, latency = incoming.audio.key, self._book.source.latency
        session = self._sessions.new(key, latency)
        session.epoch = self._epoch
        old = not self._claimed_ms or record.timestamp < self._claimed_ms
        if self._lost and old and incoming.audio.kind is not Type.STARTED:
            session.note_loss()  # its beginning may be among the lost records
        run = OpenRun(
            key, session, record.offset, covered=0, needs=record.offset, saved_ms=record_ms,
            progress=self._file_progress(),
        )  # fmt: skip
        self._book.runs.add(run)
        # A record from before the claim may belong to a run that the previous owner took and had not saved yet.
        # A refused start opens no run that counts against a limit.
        opens = incoming.audio.kind is not Type.REFUSED and latency is Latency.LIVE
        here, new = self._book.runs.by_tenant[key.tenant], record.timestamp >= self._claimed_ms
        if opens and (reason := self._refusal(key.tenant, here, new=new)):
            self._turn_away(run, record, reason)
        return run

    def _too_late(self, record: ConsumerRecord, audio: AudioRecord, over: Closed | LaneSession) -> None:
        """Dead-letter a record of a closed run, unless it repeats a taken record."""
        if published_again(audio, self._book.source.latency, over.next_sequence, over.newest_ms):
            self._repeats += 1
        elif audio.kind not in _UNTOLD:
            self._book.letters.add(record, Reason.RUN_CLOSED, audio.key)

    def _file_progress(self) -> FileProgress | None:
        return FileProgress() if self._book.source.latency is Latency.BATCH else None

    def _turn_away(self, run: OpenRun, record: ConsumerRecord, reason: Reason) -> None:
        """Reject a run at its first record. The snapshot of the closed run makes a replay repeat this (promise 5)."""
        self._book.letters.add(record, reason, run.key)
        run.turned_away = True
        self._book.outputs.close(run, reason, record.timestamp)

    def _supersede(self, run: OpenRun, now_ms: int) -> None:
        if not run.superseded and not run.session.closed:
            run.superseded = True
            self._book.outputs.close(run, Reason.SUPERSEDED, now_ms)
