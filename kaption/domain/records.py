"""Defines a session's inputs and outputs as data. The pool turns outputs into records and transactions."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from kaption_schemas.reasons import Reason
from kaption_schemas.records import FinalTranscript, Gap, PartialTranscript, StreamCompleted, StreamEnded, StreamStarted
from kaption_schemas.topics import Type


class RunKey(NamedTuple):
    """One run of a stream."""

    tenant: str
    stream: str
    run: str

    def __str__(self) -> str:
        return "/".join(self)


class Latency(StrEnum):
    """The latency class of a run, which follows from its audio topic."""

    LIVE = "live"
    BATCH = "batch"


@dataclass(frozen=True, slots=True, eq=False)
class AudioRecord:
    """One record of an audio topic, parsed. ``body`` is PCM s16le of a chunk (a batch chunk's bytes already fetched).

    ``said`` is the body of a ``started`` or an ``ended``. ``reason`` is the reason of a gap, or of a refused ``started``.

    ``timestamp_ms`` is the broker's append time of this record and drives timers; ``received_ms`` is the append time of
    the publisher's record and measures pace and latency. ``samples`` is per channel.
    """

    kind: Type
    key: RunKey
    offset: int
    timestamp_ms: int
    received_ms: int
    sequence: int = -1
    first_sample: int = 0
    samples: int = 0
    rate: int = 16000
    channels: int = 1
    body: bytes = b""
    said: StreamStarted | StreamEnded | None = None
    reason: Reason | None = None

    def as_gap(self, reason: Reason) -> "AudioRecord":
        """The gap that replaces a refused frame."""
        return replace(self, kind=Type.GAP, samples=0, body=b"", reason=reason)


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused record at ``offset`` of the lane, to dead-letter. The lane keeps its original bytes and headers."""

    offset: int
    reason: Reason


#: Outputs that must be committed with the offset and the snapshot, and partials, which must not.
Durable = FinalTranscript | Gap | StreamCompleted | Refused
Output = Durable | PartialTranscript
