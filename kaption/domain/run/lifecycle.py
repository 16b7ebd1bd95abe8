"""How far a run is: what its publisher said of it, when something came last, and why it closes.

It knows nothing of frames or audio. What is due when nothing comes is decided here; who does it is ``ingest``.
"""

from enum import Enum, auto

from kaption.domain.records import AudioRecord
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.frame_check import began_ms
from kaption.domain.run.snapshots import RunState
from kaption_schemas.reasons import Reason
from kaption_schemas.records import StreamEnded


class Due(Enum):
    """What is due of a run from which nothing comes."""

    NOTHING = auto()
    #: What was said last is shown.
    REST = auto()
    #: The open segment is closed.
    IDLE_CUT = auto()
    #: The same, and the run closes.
    IDLE_CLOSE = auto()
    #: The run closes without what its end still lacks.
    ENDED_CLOSE = auto()


class Lifecycle:
    """One run's life. Times are milliseconds of the broker's clock.

    ``started``: its start was taken. ``framed``: its first frame was. ``ended``: what its publisher said at the end. ``closing``:
    why no more is taken. ``closed``: all of it was returned. ``first_received_ms``: when sample 0 was.
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
        """When the last record came that this session was fed; in a replay newer ones are known of (``last_ms``)."""
        return self._fed_ms or self.last_ms

    def feed(self, record: AudioRecord) -> bool:
        """Note a record that comes; whether it is replayed, since an earlier owner took it."""
        replayed = record.offset <= self.last_offset
        self._fed_ms = record.timestamp_ms
        self.last_offset = max(self.last_offset, record.offset)
        self.last_ms = max(self.last_ms, record.timestamp_ms)
        return replayed

    def start(self, record: AudioRecord) -> None:
        """The run's start is taken."""
        self.started = True
        self.first_received_ms = record.received_ms

    def frame(self, record: AudioRecord) -> None:
        """The run's first frame is taken."""
        self.framed = True
        if self.first_received_ms is None:
            self.first_received_ms = began_ms(record)

    def end(self, record: AudioRecord, said: StreamEnded) -> None:
        """The publisher says that the run has ended; frames may be missing still."""
        self.ended, self.ended_offset, self._ended_ms = said, record.offset, record.timestamp_ms

    def wake(self) -> None:
        """Something has come: what comes after it may be idle again."""
        self._idle_cut = False

    def cut(self) -> bool:
        """Note an idle cut; whether it is the first since something came."""
        first, self._idle_cut = not self._idle_cut, True
        return first

    def close(self, reason: Reason) -> None:
        """Take nothing more."""
        self.closing = reason

    def complete(self) -> None:
        """All of the run was returned."""
        self.closed = True
        self.ended_offset = None

    def due(self, now_ms: int, since_ms: int) -> Due:
        """What is due at ``now_ms`` when nothing has come since ``since_ms``."""
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
