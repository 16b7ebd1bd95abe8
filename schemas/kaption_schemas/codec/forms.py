"""Defines what the codec takes and returns: a record as it was read, an event with its body parsed, a record to write."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from kaption_schemas.content_type import FrameFormat
from kaption_schemas.headers import Headers
from kaption_schemas.records import DataRef, Gap, MediaObject, StreamEnded, StreamRefused, StreamStarted
from kaption_schemas.topics import Type


class Writer(StrEnum):
    """``ce_source``: who wrote a record."""

    PUBLISHER = "/kaption/publisher"
    STREAMS = "/kaption/streams"
    POOL = "/kaption/pool"


class Raw(Protocol):
    """The parts of a record that the codec reads; aiokafka's ``ConsumerRecord`` has them."""

    @property
    def key(self) -> bytes | None:
        """The key's bytes."""

    @property
    def value(self) -> bytes | None:
        """The body's bytes."""

    @property
    def headers(self) -> Headers:
        """As they came."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A record as it was read, and where: what a dead letter must show unchanged. ``tenant`` is taken from topic or inner key."""

    tenant: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Message:
    """One record to write. ``topic`` is its name on the broker; ``kind`` is None for a dead letter."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    kind: Type | None = None


@dataclass(frozen=True, slots=True)
class Sound:
    """Body of a frame or of a live chunk: samples, or a self-contained file, of ``format``."""

    data: bytes
    format: FrameFormat


@dataclass(frozen=True, slots=True)
class FilePiece:
    """Body of a file's chunk: where its PCM s16le is. ``samples`` are per channel, ``total_samples`` the whole file's."""

    ref: DataRef
    format: FrameFormat
    samples: int
    total_samples: int | None = None


Body = StreamStarted | StreamEnded | StreamRefused | Gap | MediaObject | Sound | FilePiece


class Head(NamedTuple):
    """A record's key and headers, before its body is read. ``sequence`` is -1 where the type has none.

    ``received_ms`` is when the broker had the publisher's record, in ms since 1970; ``mute`` are source samples ``[a, b)``.
    """

    kind: Type
    tenant: str
    stream: str
    run: str
    received_ms: int
    sequence: int = -1
    first_sample: int = 0
    mute: tuple[tuple[int, int], ...] = ()
    trace: Mapping[str, str] = {}
    text: Mapping[str, str] = {}

    def event(self, body: Body) -> "Event":
        """The event that a record with this head and ``body`` is."""
        return Event(
            self.kind, self.tenant, self.stream, self.run, body, self.received_ms, self.sequence, self.first_sample,
            self.mute, self.trace,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """A record of media events, media objects or an audio topic, read; the fields are those of ``Head``."""

    kind: Type
    tenant: str
    stream: str
    run: str
    body: Body
    received_ms: int
    sequence: int = -1
    first_sample: int = 0
    mute: tuple[tuple[int, int], ...] = ()
    trace: Mapping[str, str] = field(default_factory=dict)


def iso_time(ms: int) -> str:
    """``ms`` since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
