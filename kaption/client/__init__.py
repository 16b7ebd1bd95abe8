"""Exports the client for users: ``Publisher`` and ``Transcripts``, with the records that they send and yield."""

from kaption.client.publisher import FRAME_MS, Publisher, StreamWriter
from kaption.client.transcripts import Position, Transcripts, parse
from kaption.domain.reading.reader import Reader
from kaption_schemas.records import (
    FinalTranscript,
    Gap,
    PartialTranscript,
    RunOptions,
    StreamCompleted,
    StreamProgress,
    Transcript,
)

__all__ = [
    "FRAME_MS",
    "FinalTranscript",
    "Gap",
    "PartialTranscript",
    "Position",
    "PublishError",
    "Publisher",
    "Reader",
    "RunFailedError",
    "RunOptions",
    "StreamCompleted",
    "StreamProgress",
    "StreamWriter",
    "Transcript",
    "Transcripts",
    "parse",
]
