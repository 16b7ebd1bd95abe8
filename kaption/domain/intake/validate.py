"""Runs the first stage: checks from the record alone that it is a valid event. Each refusal has its reason code."""

import json
import re
import unicodedata
from collections.abc import Collection
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from kaption_schemas.codec import Event, Head, Origin, Sound, read_published, read_sound
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import MAX_METADATA, MediaObject, StreamEnded, StreamStarted
from kaption_schemas.topics import Type

Body = TypeVar("Body", bound=BaseModel)

MAX_JSON = 64 << 10
MAX_DEPTH = 16
MAX_FRAME = 512 << 10
MAX_VOCABULARY_BYTES = 4 << 10
MAX_METADATA_NAME = 128
MAX_METADATA_VALUE = 1 << 10
MAX_METADATA_BYTES = 8 << 10
MAX_SKEW_MS = 24 * 3600 * 1000
SHORTEST_MS, LONGEST_MS = 20, 1000
#: A JSON string, or the beginning of one. It matches wherever it is tried, so a search does not backtrack.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


def validate(origin: Origin, types: Collection[Type]) -> Event:
    """Parse ``origin`` as an event with its body. Raises ``RefusedError``."""
    head = read_published(origin, types)
    body = origin.value or b""
    match head.kind:
        case Type.FRAME:
            return head.event(_sound(head, body))
        case Type.STARTED:
            return head.event(_started(head, body))
        case Type.ENDED:
            return head.event(parse_body(StreamEnded, body))
        case Type.OBJECT:
            return head.event(parse_body(MediaObject, body))
        case _:
            raise RefusedError(Reason.UNKNOWN_TYPE)


def _sound(head: Head, body: bytes) -> Sound:
    if not body:
        raise RefusedError(Reason.EMPTY_BODY)
    if len(body) > MAX_FRAME:
        raise RefusedError(Reason.BODY_TOO_LARGE)
    sound = read_sound(head, body)
    if sound.format.is_raw:
        check_length(len(body) // sound.format.stride, sound.format.rate)
    return sound


def check_length(samples: int, rate: int) -> None:
    """Refuse a frame that is not 20-1000 ms long."""
    if samples * 1000 < SHORTEST_MS * rate:
        raise RefusedError(Reason.FRAME_TOO_SHORT)
    if samples * 1000 > LONGEST_MS * rate:
        raise RefusedError(Reason.FRAME_TOO_LONG)


def _started(head: Head, data: bytes) -> StreamStarted:
    body = parse_body(StreamStarted, data)
    if body.wall_time_ms is not None and abs(body.wall_time_ms - head.received_ms) > MAX_SKEW_MS:
        raise RefusedError(Reason.CLOCK_SKEW)
    return body


def parse_body(model: type[Body], body: bytes) -> Body:
    """Parse a JSON body. Raises ``RefusedError``: too large, not JSON, nested too deeply, a wrong field, a bad vocabulary."""
    if not body:
        raise RefusedError(Reason.EMPTY_BODY)
    if len(body) > MAX_JSON:
        raise RefusedError(Reason.BAD_VOCABULARY if b'"vocabulary"' in body[:MAX_JSON] else Reason.BODY_TOO_LARGE)
    if _depth(body) > MAX_DEPTH:
        raise RefusedError(Reason.BAD_JSON)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(Reason.BAD_JSON) from None
    if not isinstance(value, dict):
        raise RefusedError(Reason.BAD_JSON)
    options = value.get("options")
    if isinstance(options, dict):
        _vocabulary(options.get("vocabulary"))
        _metadata(options.get("metadata"))
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if any("rate" in e["loc"] or "encoding" in e["loc"] for e in error.errors(include_input=False)):
            raise RefusedError(Reason.UNSUPPORTED_FORMAT) from None
        raise RefusedError(Reason.INVALID_BODY) from None


def _depth(body: bytes) -> int:
    """An upper bound of the JSON's nesting depth, without parsing it. Brackets within strings do not count."""
    depth = deepest = 0
    for byte in _STRING.sub(b"", body):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _metadata(entries: object) -> None:
    """Refuse metadata that is too large to redact. The model refuses values that are not text."""
    if not isinstance(entries, dict):
        return
    sizes = [(_bytes(name), _bytes(value)) for name, value in entries.items() if isinstance(value, str)]
    if (
        len(entries) > MAX_METADATA
        or any(name > MAX_METADATA_NAME or value > MAX_METADATA_VALUE for name, value in sizes)
        or sum(name + value for name, value in sizes) > MAX_METADATA_BYTES
    ):
        raise RefusedError(Reason.BAD_METADATA)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _vocabulary(terms: object) -> None:
    if not isinstance(terms, list):
        return
    texts = [term for term in terms if isinstance(term, str)]
    printable = all(unicodedata.category(c)[0] != "C" for text in texts for c in text)
    if not printable or sum(map(_bytes, texts)) > MAX_VOCABULARY_BYTES or len(texts) > 200:
        raise RefusedError(Reason.BAD_VOCABULARY)
