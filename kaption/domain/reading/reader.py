"""Decides which transcripts a reader shows and when a run is complete: promise 3 as a state machine, without I/O.

Partials have their own topic, outside transactions, so a reader can get them late, twice, or from an owner that was
replaced. Finals come in order from a ``read_committed`` consumer, and a second time only after a resume.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final as Const
from typing import NamedTuple

from kaption_schemas.errors import RunFailedError
from kaption_schemas.reasons import NORMAL_ENDS
from kaption_schemas.records import FinalTranscript, Gap, PartialTranscript, StreamCompleted, StreamProgress, Transcript

#: Channels of runs that a reader remembers; it forgets the least recently seen first.
REMEMBERED: Const = 10_000


class TrackKey(NamedTuple):
    """One channel of one run, within which segments are numbered."""

    tenant: str
    stream: str
    run: str
    channel: int


@dataclass(slots=True)
class _Track:
    """State of a channel. ``epoch`` is the newest owner's; ``revisions`` are the newest of its open segments.

    ``done_ms`` is the run's progress, kept with its first channel.
    """

    last_final: int = -1
    completed: bool = False
    epoch: int = -1
    revisions: dict[int, int] = field(default_factory=dict)
    done_ms: int = -1


class Reader:
    """Decides for each record, in the order of arrival, whether it is new."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        """``remembered`` bounds the channels that are kept, so that a reader may run without end."""
        self._remembered = remembered
        self._tracks: OrderedDict[TrackKey, _Track] = OrderedDict()

    def accept(self, record: Transcript) -> bool:
        """Whether to pass ``record`` on.

        A partial passes when its segment has no final, its run is open, its owner is not a replaced one, and its
        revision is the segment's newest. A final passes once. A gap always passes, progress only where it is more.
        """
        if isinstance(record, Gap):
            return True
        if isinstance(record, StreamProgress):
            return _progress(self._track(TrackKey(record.tenant, record.stream, record.run, 0)), record)
        track = self._track(TrackKey(record.tenant, record.stream, record.run, record.channel))
        if isinstance(record, PartialTranscript):
            return _partial(track, record)
        if isinstance(record, FinalTranscript):
            return _final(track, record)
        first, track.completed = not track.completed, True
        return first

    def _track(self, key: TrackKey) -> _Track:
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _Track()
            if len(self._tracks) > self._remembered:
                self._tracks.popitem(last=False)
        self._tracks.move_to_end(key)
        return track


def _partial(track: _Track, record: PartialTranscript) -> bool:
    if track.completed or record.segment <= track.last_final or record.epoch < track.epoch:
        return False
    if record.epoch > track.epoch:
        # The new owner counts revisions from the start, and its texts replace the old owner's.
        track.epoch, track.revisions = record.epoch, {}
    if record.revision <= track.revisions.get(record.segment, -1):
        return False
    track.revisions[record.segment] = record.revision
    return True


def _progress(track: _Track, record: StreamProgress) -> bool:
    if track.completed or record.done_ms <= track.done_ms:
        return False
    track.done_ms = record.done_ms
    return True


def _final(track: _Track, record: FinalTranscript) -> bool:
    if record.segment <= track.last_final:
        return False
    track.last_final = record.segment
    track.revisions = {segment: rev for segment, rev in track.revisions.items() if segment > record.segment}
    return True


def failed(run: StreamCompleted) -> bool:
    """Whether the run was refused or abandoned, so that its transcript is missing or ends early."""
    return run.reason not in NORMAL_ENDS


class OneRun:
    """Selects the records of one run of each stream, and says when the runs are complete.

    The run is the chosen one, otherwise the first one seen.
    """

    def __init__(self, streams: Iterable[str], run: str | None = None) -> None:
        """``run`` chooses the run of the only stream."""
        self._waiting = set(streams)
        self._runs = dict.fromkeys(self._waiting, run) if run else {}
        self._open: set[TrackKey] = set()
        self._failed: dict[str, StreamCompleted] = {}

    def choose(self, stream: str, run: str) -> None:
        """Read ``run`` of ``stream``."""
        self._runs[stream] = run

    def takes(self, record: Transcript) -> bool:
        """Whether ``record`` is of a run that is read."""
        return self._runs.setdefault(record.stream, record.run) == record.run

    def after(self, record: Transcript) -> bool:
        """Take ``record`` of such a run; return whether it was the last of all: every channel seen is completed."""
        if isinstance(record, StreamProgress):
            return False  # it is of a run, not of a channel
        key = TrackKey(record.tenant, record.stream, record.run, record.channel)
        if isinstance(record, StreamCompleted):
            self._open.discard(key)
            if failed(record):
                self._failed[record.stream] = record
            if not any(other.stream == record.stream for other in self._open):
                self._waiting.discard(record.stream)
        else:
            self._open.add(key)
        return not self._waiting

    def check(self) -> None:
        """Raise ``RunFailedError`` if a run was refused or abandoned."""
        if self._failed:
            raise RunFailedError(self._failed.values())


class Newest:
    """Finds the newest run of each stream, with its records, among past ones; it drops partials and progress as outdated."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, str], int] = {}
        self._runs: dict[str, tuple[str, list[Transcript]]] = {}

    def add(self, record: Transcript, timestamp_ms: int) -> None:
        """Take a record written at ``timestamp_ms``. A run is as new as its first record."""
        key = (record.stream, record.run)
        self._begun[key] = min(self._begun.get(key, timestamp_ms), timestamp_ms)
        run, records = self._runs.get(record.stream, ("", []))
        if run != record.run and self._begun[key] >= self._begun.get((record.stream, run), 0):
            run, records = self._runs[record.stream] = record.run, []
        if run == record.run and not isinstance(record, PartialTranscript | StreamProgress):
            records.append(record)

    @property
    def runs(self) -> dict[str, tuple[str, list[Transcript]]]:
        """Return the run's id and its records in the order of arrival, by stream."""
        return self._runs
