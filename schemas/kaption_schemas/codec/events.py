"""Reads and writes events and their audio, in a publisher's form and in the form of the inner topics."""

import re
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Final as Const

from pydantic import ConfigDict, ValidationError

from kaption_schemas.codec.forms import Body, Event, FilePiece, Head, Message, Origin, Raw, Sound, Writer, iso_time
from kaption_schemas.content_type import parse_format, pcm_type
from kaption_schemas.errors import RefusedError
from kaption_schemas.headers import (
    JSON,
    SPEC_VERSION,
    Headers,
    event_headers,
    first_texts,
    is_current,
    sequence,
    strict_headers,
    text_headers,
    trace_context,
)
from kaption_schemas.reasons import Reason
from kaption_schemas.records import MOST_SAMPLES, DataRef, Gap, MediaObject, StreamEnded, StreamRefused, StreamStarted
from kaption_schemas.topics import (
    ACCEPTED,
    EVENTS,
    LIVE,
    OBJECTS,
    RUN_PATTERN,
    STREAM_PATTERN,
    TENANT_PATTERN,
    Topic,
    Type,
    topic_name,
)

MOST_MUTES: Const = 64
_NO_MUTES: Const[tuple[tuple[int, int], ...]] = ()
_MUTE: Const = re.compile(r"([0-9]{1,13})-([0-9]{1,13})")
_ORIGIN: Const = "ce_origin"
_FRAME: Const = Type.FRAME.encode()
_PCM: Const = b"audio/pcm"
_RECEIVED: Const = "ce_received"
_INNER_TYPES: Const = frozenset((*ACCEPTED.types, *LIVE.types))


def encode_published(event: Event, at_ms: int) -> Message:
    """An event as our publisher sends it, at ``at_ms`` of its clock. Its id is ``run/started``, ``run/frame/<sequence>`` and so on."""
    data, content, _ = _body(event.body)
    topic = OBJECTS if event.kind is Type.OBJECT else EVENTS
    extra = {"time": iso_time(at_ms)}
    name = event.kind.rpartition(".")[2]
    if event.kind is Type.FRAME:
        number = sequence(event.sequence)
        extra |= {"sequence": number, "firstsample": str(event.first_sample)}
        name = f"{name}/{number}"
    headers = event_headers(
        event.kind, id=f"{event.run}/{name}", source=Writer.PUBLISHER, run=event.run, content_type=content, extra=extra
    )
    return Message(topic_name(topic, event.tenant), event.stream.encode(), data, headers, event.kind)


def read_published(origin: Origin, types: Collection[Type]) -> Head:
    """Key and headers of a publisher's record. Raises ``RefusedError``: no CloudEvent, none of ``types``, a bad key, run or number."""
    head = strict_headers(origin.headers)
    if head["ce_specversion"] != SPEC_VERSION:
        raise RefusedError(Reason.UNSUPPORTED_VERSION)
    if head["ce_type"] not in types:
        raise RefusedError(Reason.UNKNOWN_TYPE)
    kind = Type(head["ce_type"])
    if not is_current(head.get("ce_dataschema", ""), kind):
        raise RefusedError(Reason.UNSUPPORTED_VERSION)
    if head.get("ce_tenant", origin.tenant) != origin.tenant:
        raise RefusedError(Reason.UNKNOWN_TENANT)
    stream, run = _stream(origin.key), _run(head)
    number, first, mute = -1, 0, _NO_MUTES
    if kind is Type.FRAME:
        number, first, mute = _sequence(head), _first_sample(head), _mutes(head.get("ce_mute", ""))
    return Head(kind, origin.tenant, stream, run, origin.timestamp_ms, number, first, mute, trace_context(head), head)


def read_refused(origin: Origin, types: Collection[Type]) -> Head | None:
    """Read of a refused record of ``types`` what is readable: its stream and run, and a frame's sequence. None without these."""
    head = first_texts(origin.headers)
    try:
        kind = Type(head.get("ce_type", ""))
        stream, run = _stream(origin.key), _run(head)
        number = _sequence(head) if kind is Type.FRAME else -1
    except (ValueError, RefusedError):
        return None
    try:
        first = _first_sample(head) if kind is Type.FRAME else 0
    except RefusedError:
        first = 0
    return Head(kind, origin.tenant, stream, run, origin.timestamp_ms, number, first) if kind in types else None


def read_sound(head: Head, data: bytes) -> Sound:
    """A frame's or live chunk's body. Raises ``RefusedError``: no format, one that is not supported, half a sample."""
    what = parse_format(head.text.get("content-type", ""))
    if what.is_raw and len(data) % what.stride:
        raise RefusedError(Reason.ODD_BYTES)
    return Sound(data, what)


def claims_event(headers: Headers) -> bool:
    """Whether a record means to be a CloudEvent; a bucket notification is none."""
    return any(name in ("ce_specversion", "ce_type") for name, _ in headers)


def claims_raw_sound(headers: Headers) -> bool:
    """Whether a record's headers say that it is a frame of raw samples, whatever its bytes are."""
    head = dict(headers)
    content = head.get("content-type") or b""
    return head.get("ce_type") == _FRAME and content.lstrip().lower().startswith(_PCM)


def encode_event(event: Event, topic: Topic) -> Message:
    """An event on an inner topic, keyed ``<tenant>/<stream>``; its id is ``run/type[/sequence]``."""
    data, content, more = _body(event.body)
    extra = {"received": str(event.received_ms), **event.trace, **more}
    name = f"{event.run}/{event.kind}"
    if event.sequence >= 0:
        extra["sequence"], extra["firstsample"] = sequence(event.sequence), str(event.first_sample)
        name = f"{name}/{event.sequence}"
    if event.mute:
        extra["mute"] = ",".join(f"{a}-{b}" for a, b in event.mute)
    headers = event_headers(
        event.kind, id=name, source=Writer.STREAMS, run=event.run, content_type=content, extra=extra
    )
    return Message(topic.name, f"{event.tenant}/{event.stream}".encode(), data, headers, event.kind)


def read_event(record: Raw, timestamp_ms: int) -> Event:
    """An event of an inner topic, which holds its audio itself, read again. Raises ``RefusedError``."""
    head = read_inner(record, timestamp_ms)
    return head.event(read_inner_body(head, record.value, by_reference=False))


def read_inner(record: Raw, timestamp_ms: int) -> Head:
    """Key and headers of an inner topic's record, appended at ``timestamp_ms``. Raises ``RefusedError``."""
    text = text_headers(record.headers)
    tenant, slash, stream = (record.key or b"").decode("utf-8", "replace").partition("/")
    if not slash or not TENANT_PATTERN.fullmatch(tenant) or not STREAM_PATTERN.fullmatch(stream):
        raise RefusedError(Reason.BAD_KEY)
    run = _run(text)
    kind = text.get("ce_type", "")
    if kind not in _INNER_TYPES:
        raise RefusedError(Reason.UNKNOWN_TYPE)
    if not record.value:
        raise RefusedError(Reason.EMPTY_BODY)
    received = _number(text, _RECEIVED, Reason.BAD_HEADERS, most=10**16) if _RECEIVED in text else timestamp_ms
    number, first = -1, 0
    if kind in (Type.FRAME, Type.CHUNK, Type.GAP):
        number, first = _sequence(text), _first_sample(text)
    return Head(Type(kind), tenant, stream, run, received, number, first, (), trace_context(text), text)


def read_inner_body(head: Head, data: bytes | None, *, by_reference: bool) -> Body:
    """The body of an inner topic's record; a chunk's is a ``FilePiece`` where it is ``by_reference``. Raises ``RefusedError``."""
    data = data or b""
    if head.kind in (Type.CHUNK, Type.FRAME):
        return _piece(head, data) if by_reference else _samples(head, data)
    try:
        match head.kind:
            case Type.STARTED:
                return StreamStarted.model_validate_json(data)
            case Type.ENDED:
                return StreamEnded(**_Ended.model_validate_json(data).model_dump())
            case Type.GAP:
                return Gap.model_validate_json(data)
            case Type.REFUSED:
                return StreamRefused.model_validate_json(data)
            case _:
                raise RefusedError(Reason.UNKNOWN_TYPE)
    except ValidationError:
        raise RefusedError(Reason.INVALID_BODY) from None


def encode_relayed(origin: Origin, topic: Topic) -> Message:
    """An accepted record between two stages: the publisher's own, so that a later one can refuse it as it came, and where it was read."""
    place = f"{origin.topic}/{origin.partition}/{origin.offset}"
    added = ((_ORIGIN, place.encode()), (_RECEIVED, str(origin.timestamp_ms).encode()))
    key = b"/".join([origin.tenant.encode(), origin.key or b""])
    return Message(topic.name, key, origin.value, (*origin.headers, *added))


def is_relayed(record: Origin) -> bool:
    """Whether a record between two stages is a publisher's; a gap is an event of the stage before."""
    return any(name == _ORIGIN for name, _ in record.headers)


def read_relayed(record: Origin) -> Origin:
    """The publisher's record as it was read, from what ``encode_relayed`` made of it."""
    # The last two are ours, whatever the publisher called its own.
    kept, added = record.headers[:-2], text_headers(record.headers[-2:])
    topic, partition, offset = added[_ORIGIN].rsplit("/", 2)
    tenant, _, stream = (record.key or b"").partition(b"/")
    return Origin(
        tenant.decode(), topic, int(partition), int(offset), int(added[_RECEIVED]), stream, record.value, kept
    )  # fmt: skip


class _Ended(StreamEnded):
    """As it is read: what a newer version adds to an end changes nothing for this one."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def _body(body: Body) -> tuple[bytes, str, dict[str, str]]:
    """A body's bytes, its content type, and what else of it stands in headers."""
    if isinstance(body, Sound):
        what = body.format
        content = pcm_type(what.rate, what.channels, what.encoding) if what.is_raw else f"audio/{what.encoding}"
        return body.data, content, {}
    if isinstance(body, FilePiece):
        what = body.format
        extra = {"samples": str(body.samples), "format": pcm_type(what.rate, what.channels, what.encoding)}
        if body.total_samples is not None:
            extra["totalsamples"] = str(body.total_samples)
        return body.ref.model_dump_json().encode(), JSON, extra
    return body.model_dump_json(exclude_none=isinstance(body, MediaObject)).encode(), JSON, {}


def _samples(head: Head, data: bytes) -> Sound:
    sound = read_sound(head, data)
    if sound.format.encoding != "s16le":
        raise RefusedError(Reason.UNSUPPORTED_FORMAT)
    return sound


def _piece(head: Head, data: bytes) -> FilePiece:
    what = parse_format(head.text.get("ce_format", ""))
    if what.encoding != "s16le":
        raise RefusedError(Reason.UNSUPPORTED_FORMAT)
    samples = _number(head.text, "ce_samples", Reason.BAD_HEADERS)
    try:
        ref = DataRef.model_validate_json(data)
    except ValidationError:
        raise RefusedError(Reason.INVALID_BODY) from None
    known = "ce_totalsamples" in head.text
    return FilePiece(
        ref, what, samples, _number(head.text, "ce_totalsamples", Reason.BAD_HEADERS) if known else None
    )  # fmt: skip


def _stream(key: bytes | None) -> str:
    try:
        stream = (key or b"").decode()
    except UnicodeDecodeError:
        stream = ""
    if not STREAM_PATTERN.fullmatch(stream):
        raise RefusedError(Reason.BAD_KEY)
    return stream


def _run(head: Mapping[str, str]) -> str:
    run = head.get("ce_run", "")
    if not RUN_PATTERN.fullmatch(run):
        raise RefusedError(Reason.BAD_RUN)
    return run


def _sequence(head: Mapping[str, str]) -> int:
    return _number(head, "ce_sequence", Reason.BAD_SEQUENCE)


def _first_sample(head: Mapping[str, str]) -> int:
    return _number(head, "ce_firstsample", Reason.BAD_FIRSTSAMPLE)


def _number(head: Mapping[str, str], name: str, reason: Reason, most: int = MOST_SAMPLES) -> int:
    text = head.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise RefusedError(reason)
    return int(text)


def _mutes(text: str) -> tuple[tuple[int, int], ...]:
    if not text:
        return _NO_MUTES
    parts = [_MUTE.fullmatch(part) for part in text.split(",")]
    ranges = tuple((int(part[1]), int(part[2])) for part in parts if part)
    ascending = all(a < b for a, b in ranges) and all(x[1] <= y[0] for x, y in pairwise(ranges))
    if len(ranges) < len(parts) or len(ranges) > MOST_MUTES or not ascending:
        raise RefusedError(Reason.BAD_MUTE)
    return ranges
