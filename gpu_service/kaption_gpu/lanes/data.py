"""What goes between a lane's parts, as data: where it reads, what was saved of it, what it writes and what it measured."""

from dataclasses import dataclass

from kaption.domain.records import Latency, RunKey
from kaption_gpu.lanes.letters import NOTHING_TOLD, Told
from kaption_gpu.lanes.records import TOPIC_OF
from kaption_schemas.codec import Message, SnapshotMarks
from kaption_schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class Source:
    """The partition that a lane is for."""

    latency: Latency
    partition: int

    @property
    def topic(self) -> str:
        """The audio topic's name on the broker."""
        return TOPIC_OF[self.latency].name

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class Saved:
    """A snapshot as it was read from the state topic, and when it was written, in ms since 1970. A closed run's needs no ``value``."""

    key: RunKey
    marks: SnapshotMarks
    value: bytes
    written_ms: int = 0


@dataclass(frozen=True, slots=True)
class SavedLane:
    """All that the state topic says of a lane.

    ``claimed_ms`` is the broker's time of the claim: records from then on were taken by nobody before. ``cut_off``: the log
    ends before what was committed, so that offsets beyond its end are other records' now.
    """

    snapshots: tuple[Saved, ...] = ()
    told: Told = NOTHING_TOLD
    claimed_ms: int = 0
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class DraftStats:
    """What a transaction holds, for the metrics.

    ``latencies``: of each spoken final of a live run, the seconds from the end of its speech until now, and its language.
    """

    dead_letters: tuple[Reason, ...] = ()
    audio_seconds: float = 0.0
    latencies: tuple[tuple[float, str | None], ...] = ()
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """A partial, for the metrics: seconds since its newest audio, and, if it is a segment's first, since its speech began."""

    late_s: float
    first_s: float | None
    language: str | None


@dataclass(frozen=True, slots=True)
class Draft:
    """A transaction to be: ``messages``, the input offset that goes with them, and the files whose normalised audio goes after it.

    ``progress`` is told once it is committed, and is no part of it.
    """

    messages: tuple[Message, ...]
    offset: int
    finished: tuple[RunKey, ...]
    stats: DraftStats
    progress: tuple[Message, ...] = ()
