"""The second and third stage: redact what came with the audio, and turn frames into chunks. Pure; see ``validate``.

The three in a row are the front door (``accept``); nothing is remembered between two events.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from kaption.domain.intake.events import Event, Origin, Refusal, RefusedError, mark_for
from kaption.domain.intake.formats import FrameFormat, parse_format, silence, to_s16
from kaption.domain.intake.validate import check_length, parse_body, readable, validate
from kaption.domain.redaction.masking import unfinished
from kaption.domain.redaction.matches import TextRedactor, mask
from kaption.domain.redaction.open_suffix import RECOGNISED
from kaption_schemas.headers import pcm_type
from kaption_schemas.reasons import Reason
from kaption_schemas.records import RunOptions, StreamEnded, StreamStarted
from kaption_schemas.topics import Type

#: Decodes a self-contained frame to PCM s16le of the stated format, for the tenant named. Raises ``RefusedError`` (``UNDECODABLE``).
DecodeFrame = Callable[[bytes, FrameFormat, str], bytes]

_FRAME = Type.FRAME.encode()
_RAW = b"audio/pcm"
EVENT_TYPES = (Type.STARTED, Type.FRAME, Type.ENDED)


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages are given: the redactor, the tenant's default policy, and the decoder of frames."""

    redactor: TextRedactor
    redaction: tuple[str, ...]
    decode: DecodeFrame
    entities: frozenset[str] = RECOGNISED


def is_quick(origin: Origin) -> bool:
    """Whether the record claims to be a frame of raw samples, which takes no time worth a thread, whatever its bytes are."""
    head = dict(origin.headers)
    return head.get("ce_type") == _FRAME and (head.get("content-type") or b"").lstrip().lower().startswith(_RAW)


def redact(event: Event, tools: Tools) -> list[Event]:
    """Remove from metadata and vocabulary what the run's policy names, and silence muted audio."""
    if event.kind is Type.FRAME:
        return [_muted(event, tools)]
    if event.kind is Type.ENDED:
        return [_ended(event, tools)]
    body = parse_body(StreamStarted, event.body)
    options = redact_options(body.options, tools)
    return [event.with_body(body.model_copy(update={"options": options}).model_dump_json().encode())]


def _ended(event: Event, tools: Tools) -> Event:
    """The end without a reason that holds anything recognised; the run's own policy is not known here."""
    body = parse_body(StreamEnded, event.body)
    if not tools.redactor.find(body.reason, tuple(sorted(tools.entities))):
        return event
    return event.with_body(body.model_copy(update={"reason": "ended"}).model_dump_json().encode())


def redact_options(options: RunOptions, tools: Tools) -> RunOptions:
    """Options with the policy filled in, and nothing in metadata and vocabulary that it names. Raises ``RefusedError``."""
    policy = tools.redaction if options.redaction is None else options.redaction
    if not tools.entities.issuperset(policy):
        # Redacting less than was asked for would be the worst answer.
        raise RefusedError(Reason.UNKNOWN_ENTITY)

    def clear(text: str) -> str:
        return mask(text, tools.redactor.find(text, policy)).text if policy else text

    kept = tuple(
        term for term in options.vocabulary if clear(term) == term and not (policy and unfinished(term, policy))
    )
    metadata: dict[str, str] = {}
    for name, value in options.metadata.items():
        masked = clear(name)
        # Two names that mask alike stay two: nothing that a caller sent is lost.
        same = sum(other == masked or other.startswith(f"{masked} (") for other in metadata)
        metadata[f"{masked} ({same + 1})" if same else masked] = clear(value)
    return options.model_copy(update={"redaction": policy, "vocabulary": kept, "metadata": metadata})


def _muted(event: Event, tools: Tools) -> Event:
    what = parse_format(event.content_type)
    body = to_s16(event.body, what.encoding) if what.is_raw else tools.decode(event.body, what, event.tenant)
    check_length(len(body) // 2 // what.channels, what.rate)
    if event.mute:
        body = silence(body, what.channels, event.first_sample, event.mute)
    return replace(event, body=body, content_type=pcm_type(what.rate, what.channels), mute=())


def chunk(event: Event) -> list[Event]:
    """A frame of at most a second is one chunk on the sample clock; everything else goes through."""
    return [replace(event, kind=Type.CHUNK) if event.kind is Type.FRAME else event]


def accept(origin: Origin, tools: Tools) -> list[Event] | Refusal:
    """All three stages: the events for the audio topic, or why there are none."""
    result = clear(origin, tools)
    return result if isinstance(result, Refusal) else [done for one in result for done in chunk(one)]


def clear(origin: Origin, tools: Tools) -> list[Event] | Refusal:
    """The first two stages."""
    stage = "validate"
    try:
        event = validate(origin, EVENT_TYPES)
        stage = "redact"
        return redact(event, tools)
    except RefusedError as error:
        return refusal(origin, error.reason, stage)


def check(origin: Origin) -> Refusal | None:
    """The first stage alone."""
    try:
        validate(origin, EVENT_TYPES)
    except RefusedError as error:
        return refusal(origin, error.reason, "validate")
    return None


def refusal(origin: Origin, reason: Reason, stage: str) -> Refusal:
    """Why ``origin`` goes no further, and what it leaves in its run, as far as that can be told."""
    known = readable(origin)
    return Refusal(reason, stage, mark_for(known, reason) if known else None)
