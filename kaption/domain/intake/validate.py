"""The first stage: is this record an event that can be used? Judged from the record alone; each refusal has its code."""

import json
import re
import unicodedata
from itertools import pairwise
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from kaption.domain.intake.events import Event, Origin, RefusedError
from kaption.domain.intake.formats import WIDTH, parse_format
from kaption_schemas.headers import JSON, SCHEMA_PREFIX, SPEC_VERSION, data_schema, trace_context
from kaption_schemas.reasons import Reason
from kaption_schemas.records import MAX_METADATA, StreamEnded, StreamStarted
from kaption_schemas.topics import RUN_PATTERN, STREAM_PATTERN, Type

Body = TypeVar("Body", bound=BaseModel)

MAX_HEADERS = 64
MAX_HEADER_BYTES = 16 << 10
MAX_JSON = 64 << 10
MAX_DEPTH = 16
MAX_FRAME = 512 << 10
MAX_NUMBER = 10**12
MAX_MUTES = 64
MAX_VOCABULARY_BYTES = 4 << 10
MAX_METADATA_NAME = 128
MAX_METADATA_VALUE = 1 << 10
MAX_METADATA_BYTES = 8 << 10
MAX_SKEW_MS = 24 * 3600 * 1000
SHORTEST_MS, LONGEST_MS = 20, 1000
_REQUIRED = ("ce_specversion", "ce_id", "ce_source", "ce_type")
#: A JSON string, or what begins as one: it matches wherever it is tried, so that a search takes one way through.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_MUTE = re.compile(r"([0-9]{1,13})-([0-9]{1,13})")


def validate(origin: Origin, types: tuple[Type, ...]) -> Event:
    """The event that ``origin`` is. Raises ``RefusedError``."""
    head = _headers(origin)
    if head["ce_specversion"] != SPEC_VERSION:
        raise RefusedError(Reason.UNSUPPORTED_VERSION)
    if head["ce_type"] not in types:
        raise RefusedError(Reason.UNKNOWN_TYPE)
    kind = Type(head["ce_type"])
    schema = head.get("ce_dataschema")
    if schema is not None and schema != data_schema(kind) and schema.startswith(SCHEMA_PREFIX):
        raise RefusedError(Reason.UNSUPPORTED_VERSION)
    if head.get("ce_tenant", origin.tenant) != origin.tenant:
        raise RefusedError(Reason.UNKNOWN_TENANT)
    stream, run = _stream(origin.key), head.get("ce_run", "")
    if not RUN_PATTERN.fullmatch(run):
        raise RefusedError(Reason.BAD_RUN)
    event = Event(
        kind, origin.tenant, stream, run, origin.value or b"", head.get("content-type", JSON), origin.timestamp_ms,
        trace=trace_context(head),
    )  # fmt: skip
    if kind is Type.FRAME:
        return _frame(event, head)
    if kind is Type.STARTED:
        _started(event)
    elif kind is Type.ENDED:
        parse_body(StreamEnded, event.body)
    return event


def readable(origin: Origin) -> Event | None:
    """What can be told of a refused frame or ``started``, whatever else is wrong with it: its run, and a frame's sequence."""
    head = {name: (value or b"").decode("utf-8", "replace") for name, value in reversed(origin.headers)}
    run = head.get("ce_run", "")
    kind = head.get("ce_type")
    if kind not in (Type.STARTED, Type.FRAME) or not RUN_PATTERN.fullmatch(run):
        return None
    try:
        stream = _stream(origin.key)
        if kind == Type.STARTED:
            return Event(Type.STARTED, origin.tenant, stream, run, b"", "", origin.timestamp_ms)
        sequence = _number(head, "ce_sequence", Reason.BAD_SEQUENCE)
    except RefusedError:
        return None
    first = head.get("ce_firstsample", "")
    first_sample = int(first) if first.isascii() and first.isdigit() and len(first) <= len(str(MAX_NUMBER)) else 0
    return Event(Type.FRAME, origin.tenant, stream, run, b"", "", origin.timestamp_ms, sequence, first_sample)


def _headers(origin: Origin) -> dict[str, str]:
    headers = origin.headers
    size = sum(len(name) + len(value or b"") for name, value in headers)
    # U+FFFD is what a name that is no UTF-8 was read as (adapters/record_headers.py).
    odd = any("\ufffd" in name for name, _ in headers)
    if (
        odd
        or len(headers) > MAX_HEADERS
        or size > MAX_HEADER_BYTES
        or len({name for name, _ in headers}) < len(headers)
    ):
        raise RefusedError(Reason.BAD_HEADERS)
    try:
        head = {name: (value or b"").decode() for name, value in headers}
    except UnicodeDecodeError:
        raise RefusedError(Reason.BAD_HEADERS) from None
    if not all(head.get(name) for name in _REQUIRED):
        raise RefusedError(Reason.NOT_CLOUDEVENTS)
    return head


def _stream(key: bytes | None) -> str:
    try:
        stream = (key or b"").decode()
    except UnicodeDecodeError:
        stream = ""
    if not STREAM_PATTERN.fullmatch(stream):
        raise RefusedError(Reason.BAD_KEY)
    return stream


def _number(head: dict[str, str], name: str, reason: Reason) -> int:
    text = head.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_NUMBER)) and int(text) <= MAX_NUMBER):
        raise RefusedError(reason)
    return int(text)


def _mutes(text: str) -> tuple[tuple[int, int], ...]:
    parts = [_MUTE.fullmatch(part) for part in text.split(",")] if text else []
    ranges = tuple((int(part[1]), int(part[2])) for part in parts if part)
    ascending = all(a < b for a, b in ranges) and all(x[1] <= y[0] for x, y in pairwise(ranges))
    if len(ranges) < len(parts) or len(ranges) > MAX_MUTES or not ascending:
        raise RefusedError(Reason.BAD_MUTE)
    return ranges


def _frame(event: Event, head: dict[str, str]) -> Event:
    sequence = _number(head, "ce_sequence", Reason.BAD_SEQUENCE)
    first = _number(head, "ce_firstsample", Reason.BAD_FIRSTSAMPLE)
    mute = _mutes(head.get("ce_mute", ""))
    body = event.body
    if not body:
        raise RefusedError(Reason.EMPTY_BODY)
    if len(body) > MAX_FRAME:
        raise RefusedError(Reason.BODY_TOO_LARGE)
    what = parse_format(head.get("content-type", ""))
    if what.is_raw:
        width = WIDTH[what.encoding] * what.channels
        if len(body) % width:
            raise RefusedError(Reason.ODD_BYTES)
        check_length(len(body) // width, what.rate)
    return Event(
        event.kind, event.tenant, event.stream, event.run, body, head["content-type"], event.received_ms, sequence,
        first, mute, event.trace,
    )  # fmt: skip


def check_length(samples: int, rate: int) -> None:
    """Refuse a frame that is not 20-1000 ms long."""
    if samples * 1000 < SHORTEST_MS * rate:
        raise RefusedError(Reason.FRAME_TOO_SHORT)
    if samples * 1000 > LONGEST_MS * rate:
        raise RefusedError(Reason.FRAME_TOO_LONG)


def _started(event: Event) -> None:
    body = parse_body(StreamStarted, event.body)
    if body.wall_time_ms is not None and abs(body.wall_time_ms - event.received_ms) > MAX_SKEW_MS:
        raise RefusedError(Reason.CLOCK_SKEW)


def parse_body(model: type[Body], body: bytes) -> Body:
    """Read a JSON body. Raises ``RefusedError``: too large, no JSON, too deep, a wrong field, a bad vocabulary."""
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
    """An upper bound of how deep the JSON nests, without parsing it; brackets within strings are none."""
    depth = deepest = 0
    for byte in _STRING.sub(b"", body):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _metadata(entries: object) -> None:
    """Refuse more than is worth looking through for what a policy names. What is no text is refused by the model."""
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
