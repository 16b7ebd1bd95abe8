"""What a session is given: configuration and ports; and how it describes what it wants decoded."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final as Const

from kaption.domain.decoding.port import Kind, ModelInfo, VoiceDetector
from kaption.domain.records import Latency
from kaption.domain.redaction.matches import TextRedactor
from kaption.domain.run.segmenter import JOINED, SegmentRules

#: A file's open segment waits this long for more, in seconds: longer than it takes to replace the agent that writes its records.
FILE_IDLE: Const = 30.0


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What holds for every run of a pool. Seconds; see ``Settings`` for the timers. ``file_rules`` are those of files.

    ``rest``: without a record for this long, what was said last is shown; more than the second that a frame may last.
    """

    redaction: tuple[str, ...] = ()
    beam_size: int = 1
    partial_step: float = 0.4
    rest: float = 1.2
    idle_final: float = 8
    idle_close: float = 900
    unheard_close: float = 120
    ended_wait: float = 2
    ahead: float = 30
    prompt_seconds: float = 0
    rules: SegmentRules = field(default_factory=SegmentRules)
    file_rules: SegmentRules = field(default_factory=lambda: SegmentRules(join=JOINED))

    def close_of(self, latency: Latency, *, heard: bool) -> float:
        """Seconds without a record after which a run is over, of which a frame was ``heard`` or not. A file's come when its agent gets to them."""
        return self.idle_close if heard or latency is Latency.BATCH else min(self.idle_close, self.unheard_close)

    def idle_of(self, latency: Latency) -> float:
        """Seconds without a record that close the open segment. Nobody waits for a file's, whose records come from one agent."""
        return self.idle_final if latency is Latency.LIVE else max(self.idle_final, FILE_IDLE)

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
