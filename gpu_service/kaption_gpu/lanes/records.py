"""Records of the audio topics as a lane takes them, and the dead letters that it writes. Pure.

How a record is read is the codec's; here stands what the pool asks of it beyond that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final as Const

from aiokafka.structs import ConsumerRecord

from kaption.adapters.store.s3 import normalised_key
from kaption.domain.intake.file_chunks import CHUNK_SECONDS
from kaption.domain.records import AudioRecord, Latency, RunKey
from kaption_schemas.codec import (
    Body,
    FilePiece,
    Head,
    Message,
    Origin,
    Sound,
    encode_dead_letter,
    is_undecodable,
    read_inner,
    read_inner_body,
)
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef, Gap, StreamEnded, StreamRefused, StreamStarted
from kaption_schemas.topics import BATCH, DEFAULT_TENANT, LIVE, TENANT_PATTERN, Type

STAGE: Const = "session"
TOPIC_OF: Const = {Latency.LIVE: LIVE, Latency.BATCH: BATCH}
#: A reference that names more is none of ours.
_LONGEST_CHUNK: Const = 2 * CHUNK_SECONDS


@dataclass(frozen=True, slots=True)
class Incoming:
    """A parsed audio record. ``ref`` is where a batch chunk's bytes are; they are put into ``audio.body`` before use.

    ``trace`` are its trace headers, which its transcripts carry on. ``total_samples`` is its file's length, where a batch
    chunk tells it. ``refused``: the record is dead-lettered for this, and ``audio`` is what it leaves to its run.
    """

    audio: AudioRecord
    ref: DataRef | None
    trace: Mapping[str, str]
    total_samples: int | None = None
    refused: Reason | None = None


def parse(record: ConsumerRecord, latency: Latency, work_bucket: str | None = None) -> Incoming:
    """Read one record of an audio topic. ``work_bucket`` is the only one that a reference may name. Raises ``RefusedError``."""
    if is_undecodable(record.headers):
        raise RefusedError(Reason.UNDECODABLE_BATCH)
    head = read_inner(record, record.timestamp)
    if head.kind is Type.FRAME:
        raise RefusedError(Reason.UNKNOWN_TYPE)
    head, body, refused = _readable(head, record.value, latency)
    ref, total = None, None
    if isinstance(body, FilePiece):
        _check_piece(head, body, work_bucket)
        ref, total = body.ref, body.total_samples
    return Incoming(_audio(head, body, record), ref, head.trace, total, refused)


def _readable(head: Head, data: bytes | None, latency: Latency) -> tuple[Head, Body, Reason | None]:
    """Head and body as a session takes them, and why the record is refused all the same. Raises ``RefusedError``.

    What a run asked for must be understood whole: a ``started`` that is not closes the run, which would else go on under
    the deployment's policy, and that may be a weaker one.
    """
    try:
        return head, read_inner_body(head, data, by_reference=latency is Latency.BATCH), None
    except RefusedError as error:
        if head.kind not in (Type.STARTED, Type.REFUSED):
            raise
        return head._replace(kind=Type.REFUSED), StreamRefused(reason=error.reason), error.reason


def _check_piece(head: Head, piece: FilePiece, work_bucket: str | None) -> None:
    """Refuse a reference to what is not the run's own audio, or to more than one chunk of it."""
    ref, key = piece.ref, RunKey(head.tenant, head.stream, head.run)
    if (ref.bucket, ref.key) != (work_bucket, normalised_key(key)):
        raise RefusedError(Reason.OUTSIDE_PREFIX)
    whole = ref.length == piece.samples * piece.format.stride
    if ref.offset < 0 or not whole or not 0 < piece.samples <= _LONGEST_CHUNK * piece.format.rate:
        raise RefusedError(Reason.INVALID_BODY)


def _audio(head: Head, body: Body, record: ConsumerRecord) -> AudioRecord:
    audio = AudioRecord(
        head.kind, RunKey(head.tenant, head.stream, head.run), record.offset, record.timestamp, head.received_ms,
        head.sequence, head.first_sample, *_heard(body),
    )  # fmt: skip
    match body:
        case StreamStarted() | StreamEnded():
            return replace(audio, said=body)
        case Gap() | StreamRefused():
            return replace(audio, reason=body.reason)
        case _:
            return audio


def _heard(body: Body) -> tuple[int, int, int, bytes]:
    """Samples, rate, channels and PCM of a chunk; of another body what no audio has."""
    match body:
        case Sound(data=data, format=what):
            return len(data) // what.stride, what.rate, what.channels, data
        case FilePiece(format=what):
            return body.samples, what.rate, what.channels, b""
        case _:
            return 0, 16_000, 1, b""


def tenant_of_key(key: bytes | None) -> str:
    """The tenant that a record's key names; the default one where it names none."""
    tenant = (key or b"").decode("utf-8", "replace").partition("/")[0]
    return tenant if TENANT_PATTERN.fullmatch(tenant) else DEFAULT_TENANT


def dead_letter(record: ConsumerRecord, reason: Reason, now_ms: int, attempts: int = 1) -> Message:
    """``record`` as it is, as far as it fits, with why it was refused at ``now_ms``."""
    origin = Origin(
        tenant_of_key(record.key), record.topic, record.partition, record.offset, record.timestamp, record.key,
        record.value, record.headers,
    )  # fmt: skip
    return encode_dead_letter(origin, reason, STAGE, now_ms, attempts=attempts)
