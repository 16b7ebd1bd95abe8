"""Drafts a lane's next transaction: the runs to save, their outputs, and the offset that may be committed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final as Const

from kaption.domain.records import RunKey
from kaption_gpu.lanes.book import Book
from kaption_gpu.lanes.closed_runs import Closed
from kaption_gpu.lanes.data import Draft, DraftStats
from kaption_gpu.lanes.letters import Letter
from kaption_gpu.lanes.open_runs import OpenRun
from kaption_gpu.lanes.records import dead_letter
from kaption_schemas.codec import Message, SnapshotMarks, encode_lane, encode_snapshot, encode_transcript
from kaption_schemas.reasons import Reason
from kaption_schemas.records import FinalTranscript, StreamCompleted

#: The most runs that one transaction saves.
MOST_SAVED: Const = 1000


@dataclass(frozen=True, slots=True)
class Now:
    """A lane's position: the offset of its next record, its newest record's time, and the current time, in ms since 1970."""

    position: int
    record_ms: int
    ms: int


class Drafting:
    """Drafts one lane's transactions. ``committed`` is the committed offset. Silence is committed every ``silence_ms``."""

    def __init__(self, book: Book, committed: int, silence_ms: int) -> None:
        self._book = book
        self._committed = committed
        self._committed_ms: int | None = None
        self._silence_ms = silence_ms

    @property
    def pending(self) -> bool:
        """Whether outputs wait for a transaction now."""
        return bool(self._book.letters) or self._book.runs.pending

    def draft(self, now: Now, repeats: int) -> Draft:
        """Draft the next transaction, which then counts as committed. ``repeats`` is the number of repeats of closed runs."""
        messages: list[Message] = []
        finished: list[RunKey] = []
        progress: list[Message] = []
        spoken: list[tuple[FinalTranscript, float | None]] = []
        letters = self._book.letters.take()
        for run in self._chosen(now):
            repeats += sum(o.repeats for o in run.pending if isinstance(o, StreamCompleted) and not o.channel)
            finals = _render(run, messages, now.ms)
            spoken += finals
            if run.progress and (told := run.progress.after([final for final, _ in finals], now.ms)):
                progress.append(encode_transcript(told, run.trace))
            run.session.drafted()
            messages.append(self._save(run, now))
            if run.session.closed:
                finished += [run.key] if run.ref else []
                self._close(run, now)
        offset = max(self._floor(now), self._committed)
        messages += [dead_letter(letter.record, letter.reason, now.ms, letter.attempts) for letter in letters]
        messages += self._mark_told(letters, offset, now)
        self._committed, self._committed_ms = offset, now.ms
        reasons = tuple(letter.reason for letter in letters)
        return Draft(tuple(messages), offset, tuple(finished), _stats(spoken, reasons, repeats), tuple(progress))

    def due(self, now: Now) -> bool:
        """Whether a transaction is due: outputs wait, or a later offset may be committed after ``silence_ms``."""
        if self._committed_ms is None:
            self._committed_ms = now.ms
        if self.pending:
            return True
        return self._passed(self._committed_ms, now.ms) and self._floor(now, saving=True) > self._committed

    def _chosen(self, now: Now) -> list[OpenRun]:
        """The runs to save now: the oldest first, and rejected runs after all others."""
        runs = self._book.runs
        due = (run for run in runs if self._saves(run, now) and not runs.waits(run))
        return sorted(due, key=lambda run: (run.turned_away, run.began))[:MOST_SAVED]

    def _passed(self, since_ms: int, now_ms: int) -> bool:
        """Whether ``silence_ms`` have passed since ``since_ms``. A clock that went back also counts as passed."""
        return not 0 <= now_ms - since_ms < self._silence_ms

    def _saves(self, run: OpenRun, now: Now) -> bool:
        """Whether the run's snapshot is due. It waits for the run's dead letters: a replay does not check records that it covers."""
        if self._book.letters.owed(run.key):
            return False
        must = bool(run.pending) or run.session.closed
        return must or (run.touched and self._passed(run.saved_ms, now.ms) and run.reached(now.position) > run.needs)

    def _save(self, run: OpenRun, now: Now) -> Message:
        run.needs, run.saved_ms, run.touched = run.reached(now.position), now.ms, False
        run.pending.clear()
        session = run.session
        taken = (session.next_sequence, session.newest_ms)
        marks = SnapshotMarks(self._book.source.latency, session.closed, run.needs, run.began, run.ref, *taken)
        self._book.runs.note(run)
        return encode_snapshot(run.key, session.snapshot(), marks)

    def _close(self, run: OpenRun, now: Now) -> None:
        session = run.session
        # The clock counts, too: a new owner may close a run before it has read a record, and would forget the run at once.
        closed = Closed(run.needs, session.next_sequence, session.newest_ms, max(now.record_ms, now.ms))
        self._book.closed.add(run.key, closed)
        self._book.runs.remove(run)

    def _floor(self, now: Now, *, saving: bool = False) -> int:
        """The offset that may be committed now, or with ``saving`` after all due runs are saved."""
        oldest, runs = self._book.letters.oldest, self._book.runs
        floor = now.position if oldest is None else min(now.position, oldest)
        for run in runs:
            saved = saving and self._saves(run, now) and not runs.waits(run)
            floor = min(floor, run.needs if run.touched and not saved else max(run.needs, run.reached(now.position)))
        return floor

    def _mark_told(self, letters: Sequence[Letter], offset: int, now: Now) -> list[Message]:
        """The lane's record, if dead letters lie at or after the committed offset: a replay reads their records again."""
        if not self._book.letters.marks(letters, offset):
            return []
        undecided = (at for run in self._book.runs for at in run.session.undecided)
        mark = self._book.letters.mark(offset, now.position, undecided)
        return [encode_lane(str(self._book.source), mark.value())]


def _render(run: OpenRun, messages: list[Message], now_ms: int) -> list[tuple[FinalTranscript, float | None]]:
    """Render the run's outputs. Returns its finals, each with the seconds since its speech ended if that is known."""
    finals: list[tuple[FinalTranscript, float | None]] = []
    for output in run.pending:
        messages.append(encode_transcript(output, run.trace, split=run.split))
        if isinstance(output, FinalTranscript):
            finals.append((output, run.lateness(output.speech_end_sample / output.rate, now_ms)))
    return finals


def _stats(spoken: list[tuple[FinalTranscript, float | None]], letters: tuple[Reason, ...], repeats: int) -> DraftStats:
    return DraftStats(
        letters,
        sum((final.end_sample - final.start_sample) / final.rate for final, _ in spoken),
        tuple((late, final.language) for final, late in spoken if late is not None and not final.silent),
        repeats,
    )
