"""Defines the records as frozen pydantic models. JSON Schemas and asyncapi.yaml are generated from them.

Samples are integers of the run's source rate, counted from 0; milliseconds appear only in transcripts.
A model that a publisher writes refuses unknown fields. A model that Kaption writes ignores them, so that an older reader
can read a newer writer's records.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from kaption_schemas.audio import MAX_CHANNELS, RATES
from kaption_schemas.languages import code_of
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import RUN_PATTERN, STREAM_PATTERN

Stream = Annotated[str, StringConstraints(pattern=f"^(?:{STREAM_PATTERN.pattern})$")]
Run = Annotated[str, StringConstraints(pattern=f"^(?:{RUN_PATTERN.pattern})$")]
#: Most samples of a run: eight months at 48 kHz.
MOST_SAMPLES = 10**12
Samples = Annotated[int, Field(ge=0, le=MOST_SAMPLES)]
Milliseconds = Annotated[int, Field(ge=0)]
#: A language code; a tag such as ``en-US`` becomes its code.
Language = Annotated[str, BeforeValidator(code_of), StringConstraints(pattern=r"^(auto|[a-z]{2,3})$")]
Entity = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,40}$")]
Term = Annotated[str, StringConstraints(min_length=1, max_length=64)]

#: Entries of a run's metadata; ``kaption.domain.intake.validate`` bounds their size.
MAX_METADATA = 64


def _known_rate(rate: int) -> int:
    if rate not in RATES:
        raise ValueError(f"rate must be one of {', '.join(map(str, RATES))}")
    return rate


Rate = Annotated[int, AfterValidator(_known_rate), Field(json_schema_extra={"enum": list(RATES)})]


def _known_reason(code: object) -> object:
    return (Reason.read(code) or Reason.UNKNOWN_REASON) if isinstance(code, str) else code


#: A code that Kaption wrote, for readers of any version: a code that a newer version added becomes ``unknown_reason``.
WrittenReason = Annotated[Reason, BeforeValidator(_known_reason)]


class Inbound(BaseModel):
    """A body that a publisher writes: unknown fields are refused, since they are misspelt options."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Outbound(BaseModel):
    """A body that Kaption writes: unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class AudioFormat(Inbound):
    """Format of a run's audio, as ``content-type`` states it for a frame."""

    encoding: Literal["s16le", "mulaw", "alaw", "flac", "ogg", "wav"] = "s16le"
    rate: Rate = 16000
    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] = 1


class RunOptions(Inbound):
    """A publisher's options for a run. ``None`` takes the deployment's default.

    ``redaction`` lists Presidio entity names, for example ``CREDIT_CARD``; an empty list redacts nothing.
    ``vocabulary`` goes into the model's prompt; ``completed`` returns ``metadata``.
    """

    language: Language = "auto"
    task: Literal["transcribe", "translate"] = "transcribe"
    channels: Literal["mix", "split"] = "mix"
    redaction: Annotated[tuple[Entity, ...], Field(max_length=32, strict=False)] | None = None
    vocabulary: Annotated[tuple[Term, ...], Field(max_length=200, strict=False)] = ()
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA)] = Field(default_factory=dict)
    replaces: Run | None = None


class StreamStarted(Inbound):
    """``kaption.stream.started``: a run begins. ``wall_time_ms`` anchors sample 0 (milliseconds since 1970)."""

    format: AudioFormat = AudioFormat()
    options: RunOptions = RunOptions()
    wall_time_ms: int | None = None


class StreamEnded(Inbound):
    """``kaption.stream.ended``: the last frame's sequence; -1 for a run without frames.

    With the reason ``aborted`` the run completes as ``aborted``; with any other text as ``ended``.
    """

    last_sequence: Annotated[int, Field(ge=-1, le=10**12)]
    reason: Annotated[str, StringConstraints(max_length=64)] = "ended"


class MediaObject(Inbound):
    """``kaption.media.object``: an object in the tenant's bucket to transcribe. ``muted`` are ranges in ms.

    ``track``: the sound track, counted from 0; None for the one marked as default, or the first that is not silent.
    """

    bucket: Annotated[str, StringConstraints(min_length=3, max_length=63)]
    key: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    version: str | None = None
    etag: str | None = None
    size: Annotated[int, Field(ge=0)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    options: RunOptions = RunOptions()
    muted: Annotated[tuple[tuple[int, int], ...], Field(max_length=1000, strict=False)] = ()
    track: Annotated[int, Field(ge=0, le=1000)] | None = None


class DataRef(Outbound):
    """Body of a batch chunk: a byte range of one normalised object, PCM s16le at the source rate."""

    bucket: str
    key: str
    offset: int
    length: int


class Gap(Outbound):
    """``kaption.audio.gap``: audio that is missing. On an audio topic it stands for one refused frame, with ``samples`` 0 if
    unknown; on transcripts.final for ``[first_sample, first_sample + samples)`` of the run.
    """

    run: str
    first_sequence: int
    last_sequence: int
    first_sample: int
    samples: int
    reason: WrittenReason
    tenant: str = ""
    stream: str = ""
    channel: int = 0


class StreamRefused(Outbound):
    """``kaption.stream.refused``: the run's ``started`` was refused, and so is what follows, since the run has no policy.

    It replaces that ``started``, which is dead-lettered with the same ``reason``, on an audio topic.
    """

    reason: WrittenReason


class Word(Outbound):
    """One word of a final with its times from the run's start and its probability (0-1)."""

    text: str
    start_ms: Milliseconds
    end_ms: Milliseconds
    probability: float


class Model(Outbound):
    """The weights and the runtime that decoded a segment. ``precision``: of encoder and decoder, such as ``bf16/int8``; it
    depends on the processor, and texts may differ with it.
    """

    name: str
    digest: str
    backend: str
    precision: str = ""


class Redaction(Outbound):
    """One replacement made in ``text``: characters ``[start, end)`` of the text as published."""

    entity: str
    start: int
    end: int


class Quality(Outbound):
    """Whisper's own figures of a decode, and the effect of a guard."""

    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    suppressed: str | None = None


class PartialTranscript(Outbound):
    """``kaption.transcript.partial``: the text of the open segment so far. ``text[:stable]`` only grows within a segment."""

    tenant: str
    stream: str
    run: str
    channel: int
    segment: int
    epoch: int
    revision: int
    start_ms: Milliseconds
    end_ms: Milliseconds
    text: str
    stable: Annotated[int, Field(ge=0)]
    language: str | None = None


class StreamProgress(Outbound):
    """``kaption.stream.progress``: the progress of a file. Its finals up to ``done_ms`` are committed, ``segments`` in all.

    The pool writes it every few seconds on the partials' topic, and may leave it out; ``done_ms`` only grows. ``total_ms`` is
    the file's length, null while it is unknown.
    """

    tenant: str
    stream: str
    run: str
    done_ms: Milliseconds
    total_ms: Milliseconds | None = None
    segments: int


class FinalTranscript(Outbound):
    """``kaption.transcript.final``: segment ``[start_sample, end_sample)``; a run's ranges tile it. Silent ones have no text.

    ``speech_start_sample`` and ``speech_end_sample`` bound the speech within the range. ``channels`` is the number of the
    run's channels that have their own transcripts.
    """

    tenant: str
    stream: str
    run: str
    channel: int
    segment: int
    start_sample: Samples
    end_sample: Samples
    speech_start_sample: Samples
    speech_end_sample: Samples
    rate: int
    start_ms: Milliseconds
    end_ms: Milliseconds
    text: str
    words: tuple[Word, ...]
    language: str | None
    silent: bool
    quality: Quality | None
    redactions: tuple[Redaction, ...]
    model: Model
    channels: Annotated[int, Field(ge=1)] = 1


class StreamCompleted(Outbound):
    """``kaption.stream.completed``: the channel of the run is closed and every segment published."""

    tenant: str
    stream: str
    run: str
    channel: int
    segments: int
    samples: Samples
    rate: int
    duration_ms: Milliseconds
    reason: WrittenReason
    gaps: int
    repeats: int
    metadata: dict[str, str] = Field(default_factory=dict)
    replaces: str | None = None


#: What a reader of a tenant's output topics gets.
Transcript = PartialTranscript | FinalTranscript | Gap | StreamCompleted | StreamProgress
