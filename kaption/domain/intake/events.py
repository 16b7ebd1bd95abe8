"""What goes through the stages: an event as it was read, the records it makes, and the dead letter of one refused."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import accumulate
from typing import Final as Const

from kaption_schemas.headers import JSON, Headers, event_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import Gap, StreamRefused
from kaption_schemas.topics import DLQ, MIB, Type

SOURCE = "/kaption/streams"
#: First header of a record that stands for a batch that could not be read; its value is the first offset that is missing.
#: No record of a client can have it: a lone surrogate is in no UTF-8.
UNDECODABLE: Const = "\udcffundecodable"
#: What a dead letter keeps of key, headers and value together; our own headers and the batch around it take the rest.
MOST_LETTER: Const = DLQ.max_bytes - MIB // 16
MOST_KEY: Const = 16 << 10
MOST_HEADERS: Const = 256 << 10
#: The two lengths that stand before each header.
_HEADER_OVERHEAD: Const = 10


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an event was read: the publisher's record, which a dead letter must show unchanged."""

    tenant: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Event:
    """An accepted event between stages. ``body`` is PCM or the encoded audio of a frame, JSON otherwise.

    ``extra`` are CloudEvents extensions without ``ce_`` and trace headers; ``mute`` are source samples ``[a, b)``.
    """

    kind: Type
    tenant: str
    stream: str
    run: str
    body: bytes
    content_type: str
    received_ms: int
    sequence: int = -1
    first_sample: int = 0
    mute: tuple[tuple[int, int], ...] = ()
    trace: dict[str, str] = field(default_factory=dict)

    def with_body(self, body: bytes, content_type: str | None = None) -> "Event":
        """The event with another body."""
        return replace(self, body=body, content_type=content_type or self.content_type)

    @property
    def key(self) -> bytes:
        """The key on an inner topic."""
        return f"{self.tenant}/{self.stream}".encode()

    def headers(self) -> Headers:
        """Headers on an inner topic."""
        extra = {"received": str(self.received_ms)} | self.trace
        if self.sequence >= 0:
            extra |= {"sequence": f"{self.sequence:012d}", "firstsample": str(self.first_sample)}
        if self.mute:
            extra["mute"] = ",".join(f"{a}-{b}" for a, b in self.mute)
        number = f"/{self.sequence}" if self.sequence >= 0 else ""
        return event_headers(
            self.kind,
            id=f"{self.run}/{self.kind}{number}",
            source=SOURCE,
            run=self.run,
            content_type=self.content_type,
            extra=extra,
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event goes no further; ``mark`` is what it leaves in its run, where that is known.

    ``detail`` says more in words, and nothing of what was published.
    """

    reason: Reason
    stage: str
    mark: Event | None = None
    detail: str = ""


class RefusedError(Exception):
    """Raised inside a stage; carries the stable code and never a value of the event. ``detail`` says more in words."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason.meaning)
        self.reason = reason
        self.detail = detail


def mark_for(event: Event, reason: Reason) -> Event:
    """What a refused event leaves in its run.

    A frame leaves a gap, so that its session does not wait for it; a ``started`` a ``kaption.stream.refused``, since the frames
    that follow would else be taken under a weaker policy than was asked for.
    """
    if event.kind is Type.STARTED:
        refused = StreamRefused(reason=reason).model_dump_json().encode()
        return replace(event, kind=Type.REFUSED, body=refused, content_type=JSON)
    body = Gap(
        run=event.run, first_sequence=event.sequence, last_sequence=event.sequence,
        first_sample=event.first_sample, samples=0, reason=reason,
    )  # fmt: skip
    return replace(event, kind=Type.GAP, body=body.model_dump_json().encode(), content_type=JSON, mute=())


def is_undecodable(headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Whether a record stands for a batch that could not be read."""
    return any(name == UNDECODABLE for name, _ in headers)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused record as it goes to the dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def dead_letter(origin: Origin, refusal: Refusal, now_ms: int, attempts: int = 1) -> DeadLetter:
    """The record with what is known of its refusal in ``errors.*`` headers; it was refused at ``now_ms``.

    Key, headers and value are as they came, unless the record is more than the topic takes: a compressed one may be. Then
    the value is cut, and so are a key and headers that are huge themselves, and ``errors.body_bytes`` and
    ``errors.body_sha256`` tell what it was, ``errors.key_bytes`` and ``errors.headers_left_out`` what else is missing.
    """
    added = {
        "errors.topic": origin.topic,
        "errors.partition": str(origin.partition),
        "errors.offset": str(origin.offset),
        "errors.stage": refusal.stage,
        "errors.reason": str(refusal.reason),
        "errors.message": f"{refusal.reason.meaning} {refusal.detail}".strip(),
        "errors.attempt": str(attempts),
        "errors.time": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds"),
    }
    key, value, headers = origin.key, origin.value, list(origin.headers)
    for name, first in origin.headers:
        if name == UNDECODABLE:
            headers = []
            added |= {"errors.offset": (first or b"").decode(), "errors.last_offset": str(origin.offset)}
    if _size(key, value, headers) > MOST_LETTER:
        if len(key or b"") > MOST_KEY:
            added["errors.key_bytes"] = str(len(key or b""))
            key = (key or b"")[:MOST_KEY]
        kept = _first(headers, MOST_HEADERS)
        if len(kept) < len(headers):
            added["errors.headers_left_out"] = str(len(headers) - len(kept))
        headers = kept
        room = MOST_LETTER - _size(key, None, headers)
        if value is not None and len(value) > room:
            added |= {"errors.body_bytes": str(len(value)), "errors.body_sha256": sha256(value).hexdigest()}
            value = value[:room]
    return DeadLetter(key, value, [*headers, *((name, text.encode()) for name, text in added.items())])


def _size(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> int:
    return len(key or b"") + len(value or b"") + sum(map(_header_size, headers))


def _header_size(header: tuple[str, bytes | None]) -> int:
    name, value = header
    return len(name.encode()) + len(value or b"") + _HEADER_OVERHEAD


def _first(headers: list[tuple[str, bytes | None]], most: int) -> list[tuple[str, bytes | None]]:
    """As many of the first headers as ``most`` bytes hold."""
    sizes = accumulate(map(_header_size, headers))
    return [header for header, size in zip(headers, sizes, strict=True) if size <= most]
