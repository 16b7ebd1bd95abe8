"""What a reader of transcripts may show: promise 3 as a state machine over records, without I/O.

Partials travel on a topic of their own, outside transactions, so a reader can get them late, twice, or from an owner
that was replaced meanwhile. Finals come in order from a ``read_committed`` consumer, and a second time only after a resume.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final as Const
from typing import NamedTuple

from kaption_schemas.records import FinalTranscript, Gap, PartialTranscript, StreamCompleted, StreamProgress

Transcript = PartialTranscript | FinalTranscript | Gap | StreamCompleted | StreamProgress

#: Runs (and channels) that a reader remembers; the one it has not heard of for longest is forgotten first.
REMEMBERED: Const = 10_000


class TrackKey(NamedTuple):
    """One channel of one run: what segments are counted in."""

    tenant: str
    stream: str
    run: str
    channel: int


@dataclass(slots=True)
class _Track:
    """``epoch`` is the newest owner's; ``revisions`` are the newest of its segments that are still open.

    ``done_ms`` is the run's progress, kept with its first channel.
    """

    last_final: int = -1
    completed: bool = False
    epoch: int = -1
    revisions: dict[int, int] = field(default_factory=dict)
    done_ms: int = -1


class Reader:
    """Decides for each record, in the order of arrival, whether it is news."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        """``remembered`` bounds the tracks that are kept, so that a reader may run for ever."""
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
        # The new owner counts revisions anew, and its segments' texts replace the old owner's.
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
