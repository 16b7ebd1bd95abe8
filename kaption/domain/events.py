"""What goes through the stages: an event as it was read, the records it makes, and the dead letter of one refused."""

from dataclasses import dataclass, field, replace

from kaption_schemas.headers import JSON, Headers, event_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import Gap, StreamRefused
from kaption_schemas.topics import Type

SOURCE = "/kaption/streams"


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


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused record as it goes to the dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def dead_letter(origin: Origin, refusal: Refusal, now_ms: int, attempts: int = 1) -> DeadLetter:
    """The record with what is known of its refusal in ``errors.*`` headers; it was refused at ``now_ms``."""
    return DeadLetter(origin.key, origin.value, dead_letter_headers(origin, refusal, now_ms, attempts))


def dead_letter_headers(
    origin: Origin, refusal: Refusal, now_ms: int, attempts: int = 1
) -> list[tuple[str, bytes | None]]:
    """The original headers with what is known of the refusal added (CONVENTIONS)."""
    added = {
        "errors.topic": origin.topic,
        "errors.partition": str(origin.partition),
        "errors.offset": str(origin.offset),
        "errors.stage": refusal.stage,
        "errors.reason": str(refusal.reason),
        "errors.message": f"{refusal.reason.meaning} {refusal.detail}".strip(),
        "errors.attempt": str(attempts),
        "errors.time": str(now_ms),
    }
    return [*origin.headers, *((name, value.encode()) for name, value in added.items())]
