"""What a session is given and what it counts: configuration, ports, and the run's progress."""

from collections.abc import Callable
from dataclasses import dataclass, field

from kaption.domain.decoding import Kind, ModelInfo, VoiceDetector
from kaption.domain.outputs import Latency
from kaption.domain.redaction import TextRedactor
from kaption.domain.segmenter import JOINED, SegmentRules
from kaption_schemas.reasons import Reason
from kaption_schemas.records import StreamEnded


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What holds for every run of a pool. Seconds; see ``Settings`` for the timers. ``file_rules`` are those of files."""

    redaction: tuple[str, ...] = ()
    beam_size: int = 1
    partial_step: float = 0.4
    idle_final: float = 30
    idle_close: float = 900
    ended_wait: float = 2
    ahead: float = 30
    prompt_seconds: float = 0
    rules: SegmentRules = field(default_factory=SegmentRules)
    file_rules: SegmentRules = field(default_factory=lambda: SegmentRules(join=JOINED))

    def rules_of(self, latency: Latency) -> SegmentRules:
        """Where the segments of a run end."""
        return self.rules if latency is Latency.LIVE else self.file_rules


@dataclass(frozen=True, slots=True)
class Ports:
    """What a session is given: a maker of detectors, the redactor, and what the model can do."""

    detector: Callable[[], VoiceDetector]
    redactor: TextRedactor
    model: ModelInfo


@dataclass(frozen=True, slots=True)
class Wanted:
    """A window that could be decoded now: ``seconds`` of audio, ``overdue_s`` since it was due.

    ``alone``: it, or another of its channel, has failed; it shall not take others down.
    """

    window_id: int
    kind: Kind
    seconds: float
    overdue_s: float
    alone: bool = False


@dataclass(slots=True)
class Progress:
    """What a session has counted and decided of its run."""

    started: bool = False
    framed: bool = False
    closing: Reason | None = None
    last_ms: int = 0
    first_received_ms: int | None = None
    last_offset: int = -1
    gaps: int = 0
    idle_cut: bool = False
    ended: StreamEnded | None = None
    ended_offset: int | None = None
    ended_ms: int = 0
