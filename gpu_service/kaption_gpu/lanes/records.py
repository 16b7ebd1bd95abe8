"""Parses records of the audio topics for a lane, and makes its dead letters. Pure.

The codec decodes a record; this module has the pool's further checks.
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
#: The most seconds of audio in a valid reference.
_LONGEST_CHUNK: Const = 2 * CHUNK_SECONDS


@dataclass(frozen=True, slots=True)
class Incoming:
    """A parsed audio record. ``ref`` refers to a batch chunk's bytes, which are put into ``audio.body`` before use.

    ``trace`` has its trace headers, which its transcripts continue. ``total_samples`` is its file's length, if a batch chunk
    includes it. ``refused``: the reason for a dead letter; ``audio`` is then the event that the record leaves in its run.
    """

    audio: AudioRecord
    ref: DataRef | None
    trace: Mapping[str, str]
    total_samples: int | None = None
    refused: Reason | None = None


def parse(record: ConsumerRecord, latency: Latency, work_bucket: str | None = None) -> Incoming:
    """Parse a record of an audio topic. A reference may name ``work_bucket`` only. Raises ``RefusedError``."""
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
    """Head and body for a session, and the reason if the record is still refused. Raises ``RefusedError``.

    All options of a run must be understood. An invalid ``started`` closes its run: otherwise the run would go on under the
    deployment's policy, which may be weaker.
    """
    try:
        return head, read_inner_body(head, data, by_reference=latency is Latency.BATCH), None
    except RefusedError as error:
        if head.kind not in (Type.STARTED, Type.REFUSED):
            raise
        return head._replace(kind=Type.REFUSED), StreamRefused(reason=error.reason), error.reason


def _check_piece(head: Head, piece: FilePiece, work_bucket: str | None) -> None:
    """Refuse a reference to other audio than the run's own, or to more than one chunk of it."""
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
    """Samples, rate, channels and PCM of a chunk. Another body gives the values of no audio."""
    match body:
        case Sound(data=data, format=what):
            return len(data) // what.stride, what.rate, what.channels, data
        case FilePiece(format=what):
            return body.samples, what.rate, what.channels, b""
        case _:
            return 0, 16_000, 1, b""


def tenant_of_key(key: bytes | None) -> str:
    """The tenant that a record's key names, or the default tenant."""
    tenant = (key or b"").decode("utf-8", "replace").partition("/")[0]
    return tenant if TENANT_PATTERN.fullmatch(tenant) else DEFAULT_TENANT


def dead_letter(record: ConsumerRecord, reason: Reason, now_ms: int, attempts: int = 1) -> Message:
    """The dead letter of ``record``: unchanged, as far as it fits, with the reason of its refusal at ``now_ms``."""
    origin = Origin(
        tenant_of_key(record.key), record.topic, record.partition, record.offset, record.timestamp, record.key,
        record.value, record.headers,
    )  # fmt: skip
    return encode_dead_letter(origin, reason, STAGE, now_ms, attempts=attempts)
