"""Runs the second and third stage: redact what came with the audio, and turn frames into chunks. Pure; see ``validate``.

``accept`` runs all three stages. They keep nothing between two events.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from kaption.domain.intake.pcm import silence, to_s16
from kaption.domain.intake.refusal import Refusal, mark_of
from kaption.domain.intake.validate import check_length, validate
from kaption.domain.redaction.masking import unfinished
from kaption.domain.redaction.matches import TextRedactor, mask
from kaption.domain.redaction.open_suffix import RECOGNISED
from kaption_schemas.codec import Event, Origin, Sound, claims_raw_sound, read_refused
from kaption_schemas.content_type import FrameFormat
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import RunOptions, StreamEnded, StreamStarted
from kaption_schemas.topics import EVENTS, Type

#: Decodes a self-contained frame to PCM s16le of the stated format, for the tenant named. Raises ``RefusedError`` (``UNDECODABLE``).
DecodeFrame = Callable[[bytes, FrameFormat, str], bytes]

EVENT_TYPES = EVENTS.types
#: Types of events that leave an event in their run when they are refused.
_MARKED = (Type.STARTED, Type.FRAME)


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of the stages: the redactor, the deployment's default policy, and the decoder of frames."""

    redactor: TextRedactor
    redaction: tuple[str, ...]
    decode: DecodeFrame
    entities: frozenset[str] = RECOGNISED


def is_quick(origin: Origin) -> bool:
    """Whether the record claims to be a frame of raw samples. Such a frame needs no thread, whatever its bytes are."""
    return claims_raw_sound(origin.headers)


def redact(event: Event, tools: Tools) -> list[Event]:
    """Remove what the run's policy names from metadata and vocabulary, decode audio, and silence muted ranges."""
    match event.body:
        case Sound():
            return [_muted(event, event.body, tools)]
        case StreamEnded():
            return [replace(event, body=_ended(event.body, tools))]
        case StreamStarted():
            options = redact_options(event.body.options, tools)
            return [replace(event, body=event.body.model_copy(update={"options": options}))]
        case _:
            return [event]


def _ended(body: StreamEnded, tools: Tools) -> StreamEnded:
    """The end of a run, without its reason if that holds anything to redact. The run's own policy is not known here."""
    found = tools.redactor.find(body.reason, tuple(sorted(tools.entities)))
    return body.model_copy(update={"reason": "ended"}) if found else body


def redact_options(options: RunOptions, tools: Tools) -> RunOptions:
    """Options with the policy filled in, and without what it names in metadata and vocabulary. Raises ``RefusedError``."""
    policy = tools.redaction if options.redaction is None else options.redaction
    if not tools.entities.issuperset(policy):
        # Refuse rather than redact less than the run asked for.
        raise RefusedError(Reason.UNKNOWN_ENTITY)

    def clear(text: str) -> str:
        return mask(text, tools.redactor.find(text, policy)).text if policy else text

    kept = tuple(
        term for term in options.vocabulary if clear(term) == term and not (policy and unfinished(term, policy))
    )
    metadata: dict[str, str] = {}
    for name, value in options.metadata.items():
        masked = clear(name)
        # Two names with the same masked form stay two entries: nothing that a caller sent is lost.
        same = sum(other == masked or other.startswith(f"{masked} (") for other in metadata)
        metadata[f"{masked} ({same + 1})" if same else masked] = clear(value)
    return options.model_copy(update={"redaction": policy, "vocabulary": kept, "metadata": metadata})


def _muted(event: Event, sound: Sound, tools: Tools) -> Event:
    what = sound.format
    if what.encoding == "s16le" and not event.mute:
        return event  # the common case
    if what.is_raw:
        pcm = to_s16(sound.data, what.encoding)
    else:
        pcm = tools.decode(sound.data, what, event.tenant)
        check_length(len(pcm) // 2 // what.channels, what.rate)
    if event.mute:
        pcm = silence(pcm, what.channels, event.first_sample, event.mute)
    return replace(event, body=Sound(pcm, replace(what, encoding="s16le")), mute=())


def chunk(event: Event) -> list[Event]:
    """Turn a frame of at most a second into one chunk on the sample clock. Other events pass unchanged."""
    return [replace(event, kind=Type.CHUNK) if event.kind is Type.FRAME else event]


def accept(origin: Origin, tools: Tools) -> list[Event] | Refusal:
    """Run all three stages: the events for the audio topic, or the refusal."""
    result = clear(origin, tools)
    return result if isinstance(result, Refusal) else [done for one in result for done in chunk(one)]


def clear(origin: Origin, tools: Tools) -> list[Event] | Refusal:
    """Run the first two stages."""
    stage = "validate"
    try:
        event = validate(origin, EVENT_TYPES)
        stage = "redact"
        return redact(event, tools)
    except RefusedError as error:
        return refusal(origin, error.reason, stage)


def check(origin: Origin) -> Refusal | None:
    """Run the first stage alone."""
    try:
        validate(origin, EVENT_TYPES)
    except RefusedError as error:
        return refusal(origin, error.reason, "validate")
    return None


def refusal(origin: Origin, reason: Reason, stage: str) -> Refusal:
    """The refusal of ``origin``, with the event that it leaves in its run, as far as the run is known."""
    known = read_refused(origin, _MARKED)
    return Refusal(reason, stage, mark_of(known, reason) if known else None)
