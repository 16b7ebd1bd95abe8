"""Names and writes the headers of every record: CloudEvents 1.0, Kafka binding, binary mode.

Only this package imports it; all other code reads and writes records through ``codec`` (import-linter checks that).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final as Const

from kaption_schemas import content_type
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import Type

#: A record's headers, as they are read and written; names may repeat, and a value may be null.
Headers = Sequence[tuple[str, bytes | None]]

SPEC_VERSION: Const = "1.0"
SCHEMA_VERSION: Const = "1"
SCHEMA_PREFIX: Const = "urn:kaption:schema:"
JSON: Const = "application/json"
#: Trace context travels in a header of its own (W3C Trace Context), never as ce_traceparent. ``tracestate`` and ``baggage`` hold
#: whatever their writer likes, which no policy looks at, so they go no further than the publisher's topic.
TRACE: Const = ("traceparent",)
_TRACEPARENT: Const = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
SEQUENCE_DIGITS: Const = 12
MOST_HEADERS: Const = 64
MOST_HEADER_BYTES: Const = 16 << 10
#: For who writes a publisher's record by hand.
pcm_type: Const = content_type.pcm_type
_REQUIRED: Const = ("ce_specversion", "ce_id", "ce_source", "ce_type")


_SCHEMAS: Const = {kind: f"{SCHEMA_PREFIX}{kind}:{SCHEMA_VERSION}" for kind in Type}


def data_schema(kind: Type) -> str:
    """``ce_dataschema`` of a type in the version that this code writes."""
    return _SCHEMAS[kind]


def event_headers(
    kind: Type, *, id: str, source: str, run: str, content_type: str = JSON, extra: Mapping[str, str] | None = None
) -> list[tuple[str, bytes]]:
    """The headers of one record.

    ``extra`` holds CloudEvents extensions without their ``ce_`` prefix (``sequence``, ``firstsample``, ``mute``), and
    trace headers under their own names.
    """
    head = {
        "ce_specversion": SPEC_VERSION.encode(),
        "ce_id": id.encode(),
        "ce_source": source.encode(),
        "ce_type": kind.encode(),
        "ce_dataschema": _SCHEMAS[kind].encode(),
        "ce_run": run.encode(),
        "content-type": content_type.encode(),
    }
    for name, value in (extra or {}).items():
        head[name if name in TRACE else f"ce_{name}"] = value.encode()
    return list(head.items())


def sequence(number: int) -> str:
    """``ce_sequence`` as it is written: zero-padded, so that it sorts."""
    return f"{number:0{SEQUENCE_DIGITS}d}"


def text_headers(headers: Headers) -> dict[str, str]:
    """Headers as text; a later one of the same name wins, and bytes that are no UTF-8 become U+FFFD."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers}


def first_texts(headers: Headers) -> dict[str, str]:
    """The same, but the first one of a name wins: what a publisher wrote, whatever was added behind it."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in reversed(headers)}


def strict_headers(headers: Headers) -> dict[str, str]:
    """A stranger's headers as text. Raises ``RefusedError``: too many or too large, one twice, no UTF-8, no CloudEvent."""
    size = sum(len(name) + len(value or b"") for name, value in headers)
    # U+FFFD is what a name that is no UTF-8 was read as (kaption/adapters/kafka/record_batches.py).
    odd = any("\ufffd" in name for name, _ in headers)
    repeated = len({name for name, _ in headers}) < len(headers)
    if odd or repeated or len(headers) > MOST_HEADERS or size > MOST_HEADER_BYTES:
        raise RefusedError(Reason.BAD_HEADERS)
    try:
        head = {name: (value or b"").decode() for name, value in headers}
    except UnicodeDecodeError:
        raise RefusedError(Reason.BAD_HEADERS) from None
    if not all(head.get(name) for name in _REQUIRED):
        raise RefusedError(Reason.NOT_CLOUDEVENTS)
    return head


def is_current(schema: str, kind: Type) -> bool:
    """Whether ``ce_dataschema`` is the one that this code writes, or somebody else's, which is no matter of ours."""
    return schema == data_schema(kind) or not schema.startswith(SCHEMA_PREFIX)


def trace_context(head: Mapping[str, str]) -> dict[str, str]:
    """Keep the part of ``head`` that goes on with a record's audio and transcripts: a valid ``traceparent``."""
    return {name: head[name] for name in TRACE if _TRACEPARENT.fullmatch(head.get(name, ""))}
