"""Transcripts made by hand, and put on the output topics as the pool does."""

from typing import Any

from aiokafka import AIOKafkaProducer

from kaption_schemas.codec import TRANSCRIPTS
from kaption_schemas.headers import event_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import (
    FinalTranscript,
    Gap,
    Model,
    PartialTranscript,
    StreamCompleted,
    StreamProgress,
    Transcript,
    Word,
)
from kaption_schemas.topics import FINAL, PARTIAL, Type, topic_name

RUN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
_TYPES = {model: Type(kind) for kind, model in TRANSCRIPTS.items()}


def partial(segment: int, revision: int, *, epoch: int = 1, text: str = "so far", **fields: Any) -> PartialTranscript:
    base = {"tenant": "default", "stream": "call", "run": RUN, "channel": 0, "start_ms": 0, "end_ms": 1000, "stable": 0}
    return PartialTranscript(
        **(base | {"segment": segment, "revision": revision, "epoch": epoch, "text": text} | fields)
    )


def final(segment: int, text: str = "said", words: tuple[Word, ...] = (), **fields: Any) -> FinalTranscript:
    """Segment of 4 s at 16 kHz; its speech ends half a second before it does."""
    start = segment * 64000
    base: dict[str, Any] = {
        "tenant": "default",
        "stream": "call",
        "run": RUN,
        "channel": 0,
        "segment": segment,
        "start_sample": start,
        "end_sample": start + 64000,
        "speech_start_sample": start,
        "speech_end_sample": start + 56000,
        "rate": 16000,
        "start_ms": segment * 4000,
        "end_ms": segment * 4000 + 4000,
        "text": text,
        "words": words,
        "language": "en",
        "silent": not text,
        "quality": None,
        "redactions": (),
        "model": Model(name="tiny.en", digest="0" * 64, backend="fake"),
    }
    return FinalTranscript(**(base | fields))


def completed(segments: int = 1, **fields: Any) -> StreamCompleted:
    base: dict[str, Any] = {
        "tenant": "default",
        "stream": "call",
        "run": RUN,
        "channel": 0,
        "segments": segments,
        "samples": segments * 64000,
        "rate": 16000,
        "duration_ms": segments * 4000,
        "reason": Reason.ENDED,
        "gaps": 0,
        "repeats": 0,
    }
    return StreamCompleted(**(base | fields))


def progress(done_ms: int, **fields: Any) -> StreamProgress:
    base: dict[str, Any] = {"tenant": "default", "stream": "call", "run": RUN, "total_ms": 60_000, "segments": 1}
    return StreamProgress(**(base | {"done_ms": done_ms} | fields))


def gap(**fields: Any) -> Gap:
    base: dict[str, Any] = {
        "run": RUN,
        "first_sequence": 4,
        "last_sequence": 4,
        "first_sample": 6400,
        "samples": 1600,
        "reason": Reason.LOST,
        "tenant": "default",
        "stream": "call",
    }
    return Gap(**(base | fields))


async def put(producer: AIOKafkaProducer, record: Transcript, partition: int = 0) -> None:
    """Put ``record`` on its topic; finals need a producer in a transaction to be as the pool's."""
    kind = _TYPES[type(record)]
    topic = topic_name(PARTIAL if kind in PARTIAL.types else FINAL, record.tenant)
    await producer.send_and_wait(
        topic,
        record.model_dump_json().encode(),
        key=record.stream.encode(),
        headers=event_headers(kind, id="x", source="/kaption/pool", run=record.run),
        partition=partition,
    )
