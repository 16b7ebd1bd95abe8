"""Keeps the state of a run's life: its start and end, the time of its last record, and the reason why it closes.

It does not know frames or audio. It decides what is due when no record comes; ``ingest`` does it.
"""

from enum import Enum, auto

from kaption.domain.records import AudioRecord
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.frame_check import began_ms
from kaption.domain.run.snapshots import RunState
from kaption_schemas.reasons import Reason
from kaption_schemas.records import StreamEnded


class Due(Enum):
    """The next step for a run from which no record comes."""

    NOTHING = auto()
    #: Show the last words.
    REST = auto()
    #: Close the open segment.
    IDLE_CUT = auto()
    #: Close the open segment and the run.
    IDLE_CLOSE = auto()
    #: Close the run without the records that are still missing before its end.
    ENDED_CLOSE = auto()


class Lifecycle:
    """One run's life. Times are milliseconds of the broker's clock.

    ``started``: its start was taken. ``framed``: its first frame was taken. ``ended``: its publisher's last event.
    ``closing``: the reason why no more records are taken. ``closed``: all outputs were returned. ``first_received_ms``: the
    time of sample 0.
    """

    def __init__(self, saved: RunState, config: SessionConfig) -> None:
        self.started = saved.started
        self.framed = saved.framed
        self.closing: Reason | None = saved.closed
        self.closed = saved.closed is not None
        self.ended: StreamEnded | None = None
        self.ended_offset: int | None = None
        self.last_ms = saved.last_ms
        self.last_offset = saved.last_offset
        self.first_received_ms = saved.first_received_ms
        self._latency = saved.latency
        self._config = config
        self._ended_ms = 0
        self._fed_ms: int | None = None
        self._idle_cut = False

    @property
    def known(self) -> bool:
        """Whether the run's format is known: by its start, or by its first frame."""
        return self.started or self.framed

    @property
    def fed_ms(self) -> int:
        """The time of the last record fed to this session. In a replay, ``last_ms`` may be that of a newer record."""
        return self._fed_ms or self.last_ms

    def feed(self, record: AudioRecord) -> bool:
        """Note a record. Returns whether it is replayed: an earlier owner has taken it."""
        replayed = record.offset <= self.last_offset
        self._fed_ms = record.timestamp_ms
        self.last_offset = max(self.last_offset, record.offset)
        self.last_ms = max(self.last_ms, record.timestamp_ms)
        return replayed

    def start(self, record: AudioRecord) -> None:
        """Note that the run's start is taken."""
        self.started = True
        self.first_received_ms = record.received_ms

    def frame(self, record: AudioRecord) -> None:
        """Note that the run's first frame is taken."""
        self.framed = True
        if self.first_received_ms is None:
            self.first_received_ms = began_ms(record)

    def end(self, record: AudioRecord, said: StreamEnded) -> None:
        """Note that the publisher has ended the run. Frames may still be missing."""
        self.ended, self.ended_offset, self._ended_ms = said, record.offset, record.timestamp_ms

    def wake(self) -> None:
        """Note that a record has come: the run is no longer idle."""
        self._idle_cut = False

    def cut(self) -> bool:
        """Note that the open segments are closed as idle. Returns whether it is the first time since a record came."""
        first, self._idle_cut = not self._idle_cut, True
        return first

    def close(self, reason: Reason) -> None:
        """Take no more records, for ``reason``."""
        self.closing = reason

    def complete(self) -> None:
        """Note that all outputs of the run were returned."""
        self.closed = True
        self.ended_offset = None

    def due(self, now_ms: int, since_ms: int) -> Due:
        """The step that is due at ``now_ms`` when no record has come since ``since_ms``."""
        if self.closed or self.closing or not self.last_ms:
            return Due.NOTHING
        idle, config = (now_ms - since_ms) / 1000, self._config
        if self.ended and (now_ms - self._ended_ms) / 1000 >= config.ended_wait:
            return Due.ENDED_CLOSE
        closes = config.close_of(self._latency, heard=self.framed)
        if idle >= closes:
            return Due.IDLE_CLOSE
        if idle >= config.idle_of(self._latency):
            return Due.IDLE_CUT
        return Due.REST if idle >= config.rest else Due.NOTHING
