"""A file as records of audio.batch.v1: its start, references to 30 s each of its normalised audio, its end. Pure."""

from dataclasses import dataclass
from typing import Final as Const

from kaption.domain.intake.bucket_events import ObjectRun
from kaption.domain.intake.events import SOURCE
from kaption_schemas.headers import JSON, Headers, event_headers, pcm_type, sequence
from kaption_schemas.records import AudioFormat, DataRef, RunOptions, StreamEnded, StreamStarted
from kaption_schemas.topics import Type

CHUNK_SECONDS: Const = 30


@dataclass(frozen=True, slots=True)
class Normalised:
    """A run's audio in the work bucket: PCM s16le, interleaved; ``samples`` is per channel."""

    bucket: str
    key: str
    rate: int
    channels: int
    samples: int


def batch_records(run: ObjectRun, options: RunOptions, audio: Normalised) -> list[tuple[bytes, Headers]]:
    """Bodies and headers in order. ``options`` have been redacted and name their policy."""
    started = StreamStarted(format=AudioFormat(rate=audio.rate, channels=audio.channels), options=options)
    out = [(started.model_dump_json().encode(), _headers(run, Type.STARTED, {}))]
    chunk, width = CHUNK_SECONDS * audio.rate, 2 * audio.channels
    last = -1
    for last, first in enumerate(range(0, audio.samples, chunk)):
        samples = min(chunk, audio.samples - first)
        ref = DataRef(bucket=audio.bucket, key=audio.key, offset=first * width, length=samples * width)
        extra = {
            "sequence": sequence(last),
            "firstsample": str(first),
            "samples": str(samples),
            "format": pcm_type(audio.rate, audio.channels),
            "totalsamples": str(audio.samples),
        }
        out.append((ref.model_dump_json().encode(), _headers(run, Type.CHUNK, extra)))
    ended = StreamEnded(last_sequence=last)
    return [*out, (ended.model_dump_json().encode(), _headers(run, Type.ENDED, {}))]


def _headers(run: ObjectRun, kind: Type, extra: dict[str, str]) -> Headers:
    number = f"/{int(extra['sequence'])}" if extra else ""
    more = {**extra, "received": str(run.received_ms), **run.trace}
    name = f"{run.run}/{kind}{number}"
    return event_headers(kind, id=name, source=SOURCE, run=run.run, content_type=JSON, extra=more)


def muted_samples(muted: tuple[tuple[int, int], ...], rate: int) -> tuple[tuple[int, int], ...]:
    """Ranges in ms as samples ``[a, b)`` of ``rate``, rounded outwards so that nothing muted is left."""
    return tuple((start * rate // 1000, -(-end * rate // 1000)) for start, end in muted)
