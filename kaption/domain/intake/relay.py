"""What the stages hand each other where each runs on a topic of its own (``staged``).

The accepted topic carries the publisher's record with its headers as they were, so that a later stage can still refuse it
with its original bytes; what is added says where it was read. The redacted topic carries events, and no muted audio.
"""

from kaption.domain.intake.events import Event, Origin
from kaption_schemas.headers import text_headers, trace_context
from kaption_schemas.topics import Type

_ORIGIN = "ce_origin"
_RECEIVED = "ce_received"
_ADDED = (_ORIGIN, _RECEIVED)


def relayed(origin: Origin) -> list[tuple[str, bytes | None]]:
    """Headers of an accepted record: its own, and where and when it was read."""
    place = f"{origin.topic}/{origin.partition}/{origin.offset}"
    return [*origin.headers, (_ORIGIN, place.encode()), (_RECEIVED, str(origin.timestamp_ms).encode())]


def is_relayed(origin: Origin) -> bool:
    """Whether a record of the accepted topic is a publisher's; a gap is an event of the stage before."""
    return any(name == _ORIGIN for name, _ in origin.headers)


def original(record: Origin) -> Origin:
    """The publisher's record as it was read, from what ``relayed`` made of it."""
    # The last two are ours, whatever the publisher called its own.
    kept, added = record.headers[: -len(_ADDED)], record.headers[-len(_ADDED) :]
    head = text_headers(added)
    topic, partition, offset = head[_ORIGIN].rsplit("/", 2)
    tenant, _, stream = (record.key or b"").decode().partition("/")
    return Origin(
        tenant, topic, int(partition), int(offset), int(head[_RECEIVED]), stream.encode(), record.value, kept
    )  # fmt: skip


def event_of(record: Origin) -> Event:
    """An event that a stage wrote, read again."""
    head = text_headers(record.headers)
    tenant, _, stream = (record.key or b"").decode().partition("/")
    return Event(
        Type(head["ce_type"]), tenant, stream, head["ce_run"], record.value or b"", head["content-type"],
        int(head[_RECEIVED]), int(head.get("ce_sequence", -1)), int(head.get("ce_firstsample", 0)), (),
        trace_context(head),
    )  # fmt: skip
