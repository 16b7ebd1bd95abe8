"""Writes and reads the pool's records: transcripts, gaps and completions for readers, and those of the state topic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final as Const
from typing import assert_never

from kaption_schemas.codec.forms import Message, Raw, Writer
from kaption_schemas.headers import Headers, event_headers, text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import (
    FinalTranscript,
    Gap,
    PartialTranscript,
    StreamCompleted,
    StreamProgress,
    Transcript,
)
from kaption_schemas.topics import FINAL, PARTIAL, STATE, Type, topic_name


def encode_transcript(transcript: Transcript, trace: Mapping[str, str], *, split: bool = False) -> Message:
    """A transcript, gap, completion or progress of a run; the same one always has the same id.

    ``split``: the run's channels have transcripts of their own, so that a segment's id names its channel.
    """
    channel = f"{transcript.channel}/" if split and not isinstance(transcript, StreamProgress) else ""
    match transcript:
        case PartialTranscript():
            kind, topic = Type.PARTIAL, PARTIAL
            name = f"{channel}{transcript.segment}/{transcript.epoch}.{transcript.revision}"
        case StreamProgress():
            kind, topic, name = Type.PROGRESS, PARTIAL, f"progress/{transcript.done_ms}"
        case FinalTranscript():
            kind, topic, name = Type.FINAL, FINAL, f"{channel}{transcript.segment}"
        case Gap():
            kind, topic, name = Type.GAP, FINAL, f"gap/{transcript.channel}/{transcript.first_sequence}"
            if transcript.reason is Reason.DECODE_FAILED:  # two of these may begin in one frame
                name += f"/{transcript.first_sample}"
        case StreamCompleted():
            kind, topic, name = Type.COMPLETED, FINAL, f"completed/{transcript.channel}"
        case _:
            assert_never(transcript)
    headers = event_headers(kind, id=f"{transcript.run}/{name}", source=Writer.POOL, run=transcript.run, extra=trace)
    body = transcript.model_dump_json().encode()
    return Message(topic_name(topic, transcript.tenant), transcript.stream.encode(), body, headers, kind)


#: The body of each type that readers of transcripts get.
TRANSCRIPTS: Const[dict[str, type[Transcript]]] = {
    Type.PARTIAL: PartialTranscript,
    Type.FINAL: FinalTranscript,
    Type.GAP: Gap,
    Type.COMPLETED: StreamCompleted,
    Type.PROGRESS: StreamProgress,
}


def read_transcript(headers: Headers, value: bytes | None) -> Transcript | None:
    """A record of an output topic; None for a type that this version does not know. Raises ``pydantic.ValidationError``."""
    model = TRANSCRIPTS.get(text_headers(headers).get("ce_type", ""))
    return None if model is None else model.model_validate_json(value or b"")


@dataclass(frozen=True, slots=True)
class SnapshotMarks:
    """The part of a snapshot that a lane needs without reading it; it travels in the record's headers.

    ``latency``: ``live`` or ``batch``. ``settled``: records of the run before this offset are covered. ``began``: offset of the
    run's first record. ``ref``: bucket and key of the run's normalised object, if it has one. ``next_sequence``: chunks before
    it were taken. ``newest_ms``: when the broker received the newest record that was taken.
    """

    latency: str
    closed: bool
    settled: int
    began: int
    ref: tuple[str, str] | None = None
    next_sequence: int = 0
    newest_ms: int = -1


def encode_snapshot(run: tuple[str, str, str], snapshot: bytes, marks: SnapshotMarks) -> Message:
    """The snapshot of ``run`` (tenant, stream, run), keyed by it, with ``marks`` in its headers."""
    extra = {
        "latency": marks.latency,
        "closed": str(int(marks.closed)),
        "settled": str(marks.settled),
        "began": str(marks.began),
        "next": str(marks.next_sequence),
        "newest": str(marks.newest_ms),
    }
    if marks.ref:
        extra["dataref"] = "/".join(marks.ref)
    headers = event_headers(Type.SNAPSHOT, id=f"{run[2]}/snapshot", source=Writer.POOL, run=run[2], extra=extra)
    return Message(STATE.name, "/".join(run).encode(), snapshot, headers, Type.SNAPSHOT)


def encode_claim(lane: str) -> Message:
    """Encode the record that a new owner writes first, keyed ``claim/<topic>/<partition>``; its offset is the owner's epoch."""
    return encode_lane(f"claim/{lane}", b"{}")


def encode_lane(lane: str, value: bytes) -> Message:
    """A lane's own record, keyed ``<topic>/<partition>``: what it dead-lettered behind its committed offset."""
    headers = event_headers(Type.CLAIM, id=lane, source=Writer.POOL, run="")
    return Message(STATE.name, lane.encode(), value, headers, Type.CLAIM)


def read_state(record: Raw) -> tuple[tuple[str, str, str], SnapshotMarks] | str | None:
    """Read whose a record of the state topic is: run and marks of a snapshot, the key of a lane's own record, None of another.

    Raises ``ValueError``, ``KeyError`` or ``TypeError`` for one that is not as written here.
    """
    head = text_headers(record.headers)
    kind = head.get("ce_type")
    if kind not in (Type.CLAIM, Type.SNAPSHOT):
        return None
    key = (record.key or b"").decode()
    if kind == Type.CLAIM:
        return key
    tenant, stream, run = key.split("/")
    bucket, slash, name = head.get("ce_dataref", "").partition("/")
    marks = SnapshotMarks(
        latency=head["ce_latency"],
        closed=head["ce_closed"] == "1",
        settled=int(head["ce_settled"]),
        began=int(head["ce_began"]),
        ref=(bucket, name) if slash else None,
        next_sequence=int(head.get("ce_next", "0")),
        newest_ms=int(head.get("ce_newest", "-1")),
    )
    return (tenant, stream, run), marks
