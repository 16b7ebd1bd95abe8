"""Defines the data that a lane's parts exchange: its source, its saved state, its transactions and its statistics."""

from dataclasses import dataclass

from kaption.domain.records import Latency, RunKey
from kaption_gpu.lanes.letters import NOTHING_TOLD, Told
from kaption_gpu.lanes.records import TOPIC_OF
from kaption_schemas.codec import Message, SnapshotMarks
from kaption_schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class Source:
    """The partition of a lane."""

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
    """A snapshot from the state topic, and the time of its writing, in ms since 1970. A closed run's needs no ``value``."""

    key: RunKey
    marks: SnapshotMarks
    value: bytes
    written_ms: int = 0


@dataclass(frozen=True, slots=True)
class SavedLane:
    """The state of a lane on the state topic.

    ``claimed_ms`` is the broker's time of the claim: no earlier owner has taken records from then on. ``cut_off``: the log
    ends before the committed offset, so offsets beyond its end now belong to other records.
    """

    snapshots: tuple[Saved, ...] = ()
    told: Told = NOTHING_TOLD
    claimed_ms: int = 0
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class DraftStats:
    """Statistics of a transaction, for the metrics.

    ``latencies``: for each final with speech of a live run, the seconds from the end of its speech until now, and its language.
    """

    dead_letters: tuple[Reason, ...] = ()
    audio_seconds: float = 0.0
    latencies: tuple[tuple[float, str | None], ...] = ()
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """A partial, for the metrics: seconds since its newest audio, and since its speech began if it is a segment's first."""

    late_s: float
    first_s: float | None
    language: str | None


@dataclass(frozen=True, slots=True)
class Draft:
    """A planned transaction: ``messages`` and the input offset that is committed with them.

    The normalised audio of the files' runs in ``finished`` is deleted after the commit.
    ``progress`` is published after the commit, and is not part of the transaction.
    """

    messages: tuple[Message, ...]
    offset: int
    finished: tuple[RunKey, ...]
    stats: DraftStats
    progress: tuple[Message, ...] = ()
