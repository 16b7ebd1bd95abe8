"""Records of the pool: audio records read, transcripts, snapshots and dead letters written. No I/O, no clock."""

from dataclasses import dataclass, replace
from typing import Final as Const
from typing import cast

from aiokafka.structs import ConsumerRecord
from pydantic import BaseModel, ConfigDict, ValidationError

from kaption.adapters.store.s3 import normalised_key
from kaption.domain.intake import events
from kaption.domain.intake.events import Origin, Refusal
from kaption.domain.intake.file_chunks import CHUNK_SECONDS
from kaption.domain.records import AudioRecord, Latency, RunKey
from kaption_schemas.audio import RATES
from kaption_schemas.headers import Headers, event_headers, text_headers, trace_context
from kaption_schemas.reasons import Reason
from kaption_schemas.records import (
    DataRef,
    FinalTranscript,
    Gap,
    PartialTranscript,
    StreamCompleted,
    StreamEnded,
    StreamProgress,
    StreamRefused,
    StreamStarted,
)
from kaption_schemas.topics import (
    BATCH,
    DEFAULT_TENANT,
    DLQ,
    FINAL,
    LIVE,
    PARTIAL,
    RUN_PATTERN,
    STATE,
    STREAM_PATTERN,
    TENANT_PATTERN,
    Topic,
    Type,
    topic_name,
)

SOURCE: Const = "/kaption/pool"
STAGE: Const = "session"
TOPIC_OF: Const = {Latency.LIVE: LIVE, Latency.BATCH: BATCH}
_TYPES: Const = frozenset({Type.STARTED, Type.CHUNK, Type.GAP, Type.ENDED, Type.REFUSED})
#: A reference that names more is none of ours.
_LONGEST_CHUNK: Const = 2 * CHUNK_SECONDS


class RefusedError(Exception):
    """A record of an audio topic is none that the service writes. ``reason`` is its code."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Incoming:
    """A parsed audio record. ``ref`` is where a batch chunk's bytes are; they are put into ``audio.body`` before use.

    ``trace`` are its trace headers, which its transcripts carry on. ``total_samples`` is its file's length, where a batch
    chunk tells it. ``refused``: the record is dead-lettered for this, and ``audio`` is what it leaves to its run.
    """

    audio: AudioRecord
    ref: DataRef | None
    trace: dict[str, str]
    total_samples: int | None = None
    refused: Reason | None = None


class _Ended(StreamEnded):
    """As it is read: what a newer version adds to an end changes nothing for this one."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


@dataclass(frozen=True, slots=True)
class Message:
    """One record to write. Its partition is the lane's number, mod the topic's partitions.

    ``partial``: a revision of a partial, which metrics count.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partial: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotMarks:
    """What a lane must know of a snapshot without reading it; it travels in the record's headers.

    ``settled``: records of the run before this offset are covered. ``began``: offset of the run's first record.
    ``ref``: bucket and key of the run's normalised object, if it has one. ``next_sequence``: chunks before it were taken.
    ``newest_ms``: when the broker received the newest record that was taken.
    """

    latency: Latency
    closed: bool
    settled: int
    began: int
    ref: tuple[str, str] | None = None
    next_sequence: int = 0
    newest_ms: int = -1


def parse(record: ConsumerRecord, latency: Latency, work_bucket: str | None = None) -> Incoming:
    """Read one record of an audio topic. ``work_bucket`` is the only one that a reference may name. Raises ``RefusedError``."""
    if events.is_undecodable(record.headers):
        raise RefusedError(Reason.UNDECODABLE_BATCH)
    head = text_headers(record.headers)
    key = _run_key(record.key, head.get("ce_run", ""))
    try:
        kind = Type(head.get("ce_type", ""))
    except ValueError:
        raise RefusedError(Reason.UNKNOWN_TYPE) from None
    if kind not in _TYPES:
        raise RefusedError(Reason.UNKNOWN_TYPE)
    body = record.value or b""
    if not body:
        raise RefusedError(Reason.EMPTY_BODY)
    received = _number(head.get("ce_received", str(record.timestamp)), Reason.BAD_HEADERS)
    ref, total, samples, rate, channels, refused = None, None, 0, 16_000, 1, None
    if kind is Type.CHUNK and latency is Latency.BATCH:
        rate, channels = _pcm(head.get("ce_format", ""))
        samples, ref, body = _number(head.get("ce_samples", ""), Reason.BAD_HEADERS), _data_ref(body), b""
        if (ref.bucket, ref.key) != (work_bucket, normalised_key(key)):
            raise RefusedError(Reason.OUTSIDE_PREFIX)
        if ref.offset < 0 or ref.length != samples * channels * 2 or not 0 < samples <= _LONGEST_CHUNK * rate:
            raise RefusedError(Reason.INVALID_BODY)
        total = _number(head["ce_totalsamples"], Reason.BAD_HEADERS) if "ce_totalsamples" in head else None
    elif kind is Type.CHUNK:
        rate, channels = _pcm(head.get("content-type", ""))
        if len(body) % (2 * channels):
            raise RefusedError(Reason.ODD_BYTES)
        samples = len(body) // (2 * channels)
    else:
        kind, body, refused = _readable(kind, body)
    needs_place = kind in (Type.CHUNK, Type.GAP)
    audio = AudioRecord(
        kind=kind,
        key=key,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        received_ms=received,
        sequence=_number(head.get("ce_sequence", ""), Reason.BAD_SEQUENCE) if needs_place else -1,
        first_sample=_number(head.get("ce_firstsample", ""), Reason.BAD_FIRSTSAMPLE) if needs_place else 0,
        samples=samples,
        rate=rate,
        channels=channels,
        body=body,
    )
    return Incoming(audio, ref, trace_context(head), total, refused)


def _readable(kind: Type, body: bytes) -> tuple[Type, bytes, Reason | None]:
    """Type and body as a session reads them, and why the record is refused all the same. Raises ``RefusedError``.

    What a run asked for must be understood whole: a ``started`` that is not closes the run, which would else go on under
    the deployment's policy, and that may be a weaker one.
    """
    try:
        match kind:
            case Type.STARTED:
                StreamStarted.model_validate_json(body)
            case Type.REFUSED:
                StreamRefused.model_validate_json(body)
            case Type.GAP:
                Gap.model_validate_json(body)
            case Type.ENDED:
                body = StreamEnded(**_Ended.model_validate_json(body).model_dump()).model_dump_json().encode()
    except ValidationError:
        if kind not in (Type.STARTED, Type.REFUSED):
            raise RefusedError(Reason.INVALID_BODY) from None
        reason = Reason.INVALID_BODY
        return Type.REFUSED, StreamRefused(reason=reason).model_dump_json().encode(), reason
    return kind, body, None


def tenant_of_key(key: bytes | None) -> str:
    """The tenant that a record's key names; the default one where it names none."""
    tenant = (key or b"").decode("utf-8", "replace").partition("/")[0]
    return tenant if TENANT_PATTERN.fullmatch(tenant) else DEFAULT_TENANT


def partial_message(partial: PartialTranscript, trace: dict[str, str], *, split: bool) -> Message:
    """``kaption.transcript.partial``; id ``run/[channel/]segment/epoch.revision``."""
    event = f"{_segment_id(partial, split=split)}/{partial.epoch}.{partial.revision}"
    return replace(_transcript(PARTIAL, Type.PARTIAL, partial, event, trace), partial=True)


def progress_message(progress: StreamProgress, trace: dict[str, str]) -> Message:
    """``kaption.stream.progress``, beside the partials; id ``run/progress/done_ms``."""
    return _transcript(PARTIAL, Type.PROGRESS, progress, f"{progress.run}/progress/{progress.done_ms}", trace)


def durable_message(output: FinalTranscript | Gap | StreamCompleted, trace: dict[str, str], *, split: bool) -> Message:
    """A final, gap or completion; the same one always has the same id."""
    match output:
        case FinalTranscript():
            return _transcript(FINAL, Type.FINAL, output, _segment_id(output, split=split), trace)
        case Gap():
            event = f"{output.run}/gap/{output.channel}/{output.first_sequence}"
            if output.reason is Reason.DECODE_FAILED:  # two of these may begin in one frame
                event += f"/{output.first_sample}"
            return _transcript(FINAL, Type.GAP, output, event, trace)
        case StreamCompleted():
            return _transcript(FINAL, Type.COMPLETED, output, f"{output.run}/completed/{output.channel}", trace)


def dead_letter(record: ConsumerRecord, reason: Reason, now_ms: int, attempts: int = 1) -> Message:
    """``record`` as it is, as far as it fits, with ``errors.*`` headers added."""
    tenant = tenant_of_key(record.key)
    origin = Origin(
        tenant, record.topic, record.partition, record.offset, record.timestamp, record.key, record.value,
        tuple(record.headers),
    )  # fmt: skip
    letter = events.dead_letter(origin, Refusal(reason, STAGE), now_ms, attempts)
    return Message(topic_name(DLQ, tenant), letter.key, letter.value, cast("Headers", letter.headers))


def snapshot_message(key: RunKey, snapshot: bytes, marks: SnapshotMarks) -> Message:
    """A run's snapshot, keyed by the run, with ``marks`` in its headers."""
    extra = {
        "latency": marks.latency.value,
        "closed": str(int(marks.closed)),
        "settled": str(marks.settled),
        "began": str(marks.began),
        "next": str(marks.next_sequence),
        "newest": str(marks.newest_ms),
    }
    if marks.ref:
        extra["dataref"] = "/".join(marks.ref)
    headers = event_headers(Type.SNAPSHOT, id=f"{key.run}/snapshot", source=SOURCE, run=key.run, extra=extra)
    return Message(STATE.name, str(key).encode(), snapshot, headers)


def read_marks(record: ConsumerRecord) -> SnapshotMarks:
    """The marks of a snapshot's record. Raises ``ValueError`` or ``KeyError`` when they are not as written here."""
    head = text_headers(record.headers)
    bucket, slash, key = head.get("ce_dataref", "").partition("/")
    return SnapshotMarks(
        latency=Latency(head["ce_latency"]),
        closed=head["ce_closed"] == "1",
        settled=int(head["ce_settled"]),
        began=int(head["ce_began"]),
        ref=(bucket, key) if slash else None,
        next_sequence=int(head.get("ce_next", "0")),
        newest_ms=int(head.get("ce_newest", "-1")),
    )


def claim_message(lane: str) -> Message:
    """What a new owner writes first, keyed ``claim/<topic>/<partition>``; its offset is the owner's epoch."""
    return _lane_record(f"claim/{lane}", b"{}")


def lane_message(lane: str, value: bytes) -> Message:
    """A lane's own record, keyed ``<topic>/<partition>``: what it dead-lettered behind its committed offset."""
    return _lane_record(lane, value)


def _lane_record(key: str, value: bytes) -> Message:
    headers = event_headers(Type.CLAIM, id=key, source=SOURCE, run="")
    return Message(STATE.name, key.encode(), value, headers)


def _transcript(topic: Topic, kind: Type, body: BaseModel, id: str, trace: dict[str, str]) -> Message:
    fields: dict[str, str] = {name: getattr(body, name) for name in ("tenant", "stream", "run")}
    headers = event_headers(kind, id=id, source=SOURCE, run=fields["run"], extra=trace)
    return Message(
        topic_name(topic, fields["tenant"]), fields["stream"].encode(), body.model_dump_json().encode(), headers
    )


def _segment_id(transcript: FinalTranscript | PartialTranscript, *, split: bool) -> str:
    """``run/segment``, or ``run/channel/segment`` in a run whose channels are transcribed apart."""
    channel = f"{transcript.channel}/" if split else ""
    return f"{transcript.run}/{channel}{transcript.segment}"


def _run_key(key: bytes | None, run: str) -> RunKey:
    tenant, slash, stream = (key or b"").decode("utf-8", "replace").partition("/")
    if not slash or not TENANT_PATTERN.fullmatch(tenant) or not STREAM_PATTERN.fullmatch(stream):
        raise RefusedError(Reason.BAD_KEY)
    if not RUN_PATTERN.fullmatch(run):
        raise RefusedError(Reason.BAD_RUN)
    return RunKey(tenant, stream, run)


def _number(text: str, reason: Reason) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise RefusedError(reason)
    return int(text)


def _pcm(content_type: str) -> tuple[int, int]:
    """Rate and channels of ``audio/pcm;rate=R;channels=C;encoding=s16le``."""
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    fields = dict(part.split("=", 1) for part in parameters if "=" in part)
    if kind != "audio/pcm" or fields.get("encoding") != "s16le":
        raise RefusedError(Reason.UNSUPPORTED_FORMAT)
    rate = _number(fields.get("rate", ""), Reason.UNSUPPORTED_FORMAT)
    channels = _number(fields.get("channels", ""), Reason.UNSUPPORTED_FORMAT)
    if rate not in RATES or channels not in (1, 2):
        raise RefusedError(Reason.UNSUPPORTED_FORMAT)
    return rate, channels


def _data_ref(body: bytes) -> DataRef:
    try:
        return DataRef.model_validate_json(body)
    except ValidationError:
        raise RefusedError(Reason.INVALID_BODY) from None
