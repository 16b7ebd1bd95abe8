"""Turns a file into records of audio.batch.v1: its start, references to 30 s of its normalised audio each, its end. Pure."""

from dataclasses import dataclass, replace
from typing import Final as Const

from kaption.domain.intake.bucket_events import ObjectRun
from kaption_schemas.codec import Event, FilePiece
from kaption_schemas.content_type import FrameFormat
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


def batch_records(run: ObjectRun, options: RunOptions, audio: Normalised) -> list[Event]:
    """The file's events in order. ``options`` have been redacted and name their policy."""
    started = StreamStarted(format=AudioFormat(rate=audio.rate, channels=audio.channels), options=options)
    what = FrameFormat("s16le", audio.rate, audio.channels)
    pieces: list[Event] = []
    length = CHUNK_SECONDS * audio.rate
    for number, first in enumerate(range(0, audio.samples, length)):
        samples = min(length, audio.samples - first)
        ref = DataRef(bucket=audio.bucket, key=audio.key, offset=first * what.stride, length=samples * what.stride)
        piece = FilePiece(ref, what, samples, audio.samples)
        pieces.append(replace(run.event(Type.CHUNK, piece), sequence=number, first_sample=first))
    ended = StreamEnded(last_sequence=len(pieces) - 1)
    return [run.event(Type.STARTED, started), *pieces, run.event(Type.ENDED, ended)]


def muted_samples(muted: tuple[tuple[int, int], ...], rate: int) -> tuple[tuple[int, int], ...]:
    """Ranges in ms as samples ``[a, b)`` of ``rate``, rounded outwards so that nothing muted is left."""
    return tuple((start * rate // 1000, -(-end * rate // 1000)) for start, end in muted)
