"""Writes and reads a session's snapshot on the state topic. The next version can read it (``version``)."""

import base64
from typing import Annotated

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from kaption.domain.decoding.port import SAMPLE_RATE
from kaption.domain.records import Latency, RunKey
from kaption.domain.redaction.masking import UNKNOWN
from kaption.domain.run.publication import Publication, Said
from kaption.domain.run.resample import Pcm
from kaption.domain.run.track import Checkpoint, Track
from kaption_schemas.errors import IncompatibleError
from kaption_schemas.records import RunOptions, WrittenReason

VERSION = 1


class TrackState(BaseModel):
    """One channel at a boundary: 16 kHz ``position``; ``tail`` has the source samples before it that resampling needs.

    ``before`` is the end of the published text, with which the next text is masked. Earlier versions kept ``carried`` of it.
    """

    model_config = ConfigDict(frozen=True)

    position: int
    sequence: int
    sample: int
    tail: str
    tail_start: int
    range_start: int
    segment: int
    prompt: str
    prompt_end: int
    carried: bool = False
    before: str = ""


def _known_options(value: object) -> object:
    """Drop options of a newer version: within ``VERSION``, a run can go on without them."""
    return (
        {name: value[name] for name in RunOptions.model_fields if name in value} if isinstance(value, dict) else value
    )


class RunState(BaseModel):
    """One run at its last commit. ``closed`` is the reason of its end; such a snapshot outlives the run's audio.

    ``model`` is the digest of the weights with which it began; a former version did not write it.
    """

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    tenant: str
    stream: str
    run: str
    latency: Latency
    options: Annotated[RunOptions, BeforeValidator(_known_options)]
    rate: int
    channels: int
    started: bool
    framed: bool
    closed: WrittenReason | None
    last_ms: int
    first_received_ms: int | None
    last_offset: int
    gaps: int
    repeats: int
    #: -1 also if an earlier version did not write it: then no record counts as published again.
    newest_ms: int = -1
    next_sequence: int
    next_sample: int
    seen: dict[int, str]
    tracks: tuple[TrackState, ...]
    model: str = ""

    @property
    def key(self) -> RunKey:
        """The run."""
        return RunKey(self.tenant, self.stream, self.run)

    @classmethod
    def new(cls, key: RunKey, latency: Latency, options: RunOptions) -> "RunState":
        """The state of a run before its first record."""
        return cls(
            tenant=key.tenant, stream=key.stream, run=key.run, latency=latency, options=options, rate=SAMPLE_RATE,
            channels=1, started=False, framed=False, closed=None, last_ms=0, first_received_ms=None, last_offset=-1,
            gaps=0, repeats=0, next_sequence=0, next_sample=0, seen={}, tracks=(),
        )  # fmt: skip

    @classmethod
    def read(cls, snapshot: bytes) -> "RunState":
        """Parse a snapshot. Raises ``IncompatibleError``, which names the fault and never a value."""
        try:
            state = cls.model_validate_json(snapshot)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, e["loc"])) or "body" for e in error.errors(include_input=False))
            raise IncompatibleError(f"snapshot fields are missing or wrong: {places}") from None
        if state.version != VERSION:
            raise IncompatibleError(f"snapshot version {state.version} is not {VERSION}; run the version that wrote it")
        return state


def save_track(track: Track, publication: Publication) -> TrackState:
    """The state of a channel after its last published final."""
    done = publication.done
    waiting = track.segments[0] if track.segments else None
    return TrackState(
        position=done.position, sequence=done.sequence, sample=done.sample,
        tail=base64.b64encode(done.tail.astype("<i2").tobytes()).decode(), tail_start=done.tail_start,
        range_start=waiting.start if waiting else track.range_start,
        segment=waiting.index if waiting else track.next_index,
        prompt=publication.last_text, prompt_end=publication.last_end, carried=publication.before[-1:].isdigit(),
        before=publication.before,
    )  # fmt: skip


def load_cut(state: TrackState) -> Checkpoint:
    """The checkpoint at which a channel continues."""
    tail: Pcm = np.frombuffer(base64.b64decode(state.tail), "<i2").astype(np.int16)
    return Checkpoint(state.position, tail, state.tail_start, state.sample, state.sequence)


def load_said(state: TrackState) -> Said:
    """The channel's last publication. An earlier version's snapshot gives a placeholder number if one was open."""
    return Said(state.prompt, state.prompt_end, state.before or (UNKNOWN[0] if state.carried else ""))
