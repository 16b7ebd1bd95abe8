"""Defines a session's configuration and ports, and how it describes a window that it wants decoded."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final as Const

from kaption.domain.decoding.port import Kind, ModelInfo, VoiceDetector
from kaption.domain.records import Latency
from kaption.domain.redaction.matches import TextRedactor
from kaption.domain.run.segmenter import JOINED, SegmentRules

#: Seconds that a file's open segment waits for more audio: longer than replacing the agent that writes its records takes.
FILE_IDLE: Const = 30.0


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """The configuration of every run of a pool. In seconds; see ``Settings`` for the timers. ``file_rules`` are for files.

    ``rest``: the last words are shown after this time without a record. It exceeds the longest frame (1 s).
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
        """Seconds without a record after which a run is over. ``heard``: it has had a frame. A file's agent may send late."""
        return self.idle_close if heard or latency is Latency.BATCH else min(self.idle_close, self.unheard_close)

    def idle_of(self, latency: Latency) -> float:
        """Seconds without a record that close the open segment. No viewer waits for a file, and one agent sends its records."""
        return self.idle_final if latency is Latency.LIVE else max(self.idle_final, FILE_IDLE)

    def rules_of(self, latency: Latency) -> SegmentRules:
        """The rules by which the segments of a run end."""
        return self.rules if latency is Latency.LIVE else self.file_rules


@dataclass(frozen=True, slots=True)
class Ports:
    """A session's ports: a maker of detectors, the redactor, and the model's description."""

    detector: Callable[[], VoiceDetector]
    redactor: TextRedactor
    model: ModelInfo


@dataclass(frozen=True, slots=True)
class Wanted:
    """A window that could be decoded now: ``seconds`` of audio, ``overdue_s`` since it was due.

    ``alone``: this window, or another of its channel, has failed. It is decoded alone, so that no other fails with it.
    """

    window_id: int
    kind: Kind
    seconds: float
    overdue_s: float
    alone: bool = False
