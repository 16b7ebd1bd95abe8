"""CloudEvents 1.0, Kafka binding, binary mode: the headers of every record, read and written in one place.

A header list is what aiokafka wants, ``[(name, value bytes)]``; a mapping is what a reader wants.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final as Const

from kaption_schemas.topics import Type

Headers = list[tuple[str, bytes]]

SPEC_VERSION: Const = "1.0"
SCHEMA_VERSION: Const = "1"
SCHEMA_PREFIX: Const = "urn:kaption:schema:"
JSON: Const = "application/json"
#: Trace context travels in a header of its own (W3C Trace Context), never as ce_traceparent. ``tracestate`` and ``baggage`` hold
#: whatever their writer likes, which no policy looks at, so they go no further than the publisher's topic.
TRACE: Const = ("traceparent",)
_TRACEPARENT: Const = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
SEQUENCE_DIGITS: Const = 12


def data_schema(kind: Type) -> str:
    """``ce_dataschema`` of a type in the version that this code writes."""
    return f"{SCHEMA_PREFIX}{kind}:{SCHEMA_VERSION}"


def event_headers(
    kind: Type, *, id: str, source: str, run: str, content_type: str = JSON, extra: Mapping[str, str] | None = None
) -> Headers:
    """The headers of one record.

    ``extra`` holds CloudEvents extensions without their ``ce_`` prefix (``sequence``, ``firstsample``, ``mute``), and
    trace headers under their own names.
    """
    head = {
        "ce_specversion": SPEC_VERSION,
        "ce_id": id,
        "ce_source": source,
        "ce_type": str(kind),
        "ce_dataschema": data_schema(kind),
        "ce_run": run,
        "content-type": content_type,
    }
    for name, value in (extra or {}).items():
        head[name if name in TRACE else f"ce_{name}"] = value
    return [(name, value.encode()) for name, value in head.items()]


def sequence(number: int) -> str:
    """``ce_sequence`` as it is written: zero-padded, so that it sorts."""
    return f"{number:0{SEQUENCE_DIGITS}d}"


def pcm_type(rate: int, channels: int, encoding: str = "s16le") -> str:
    """``content-type`` of raw samples: ``audio/pcm;rate=16000;channels=1;encoding=s16le``."""
    return f"audio/pcm;rate={rate};channels={channels};encoding={encoding}"


def trace_context(head: Mapping[str, str]) -> dict[str, str]:
    """What of ``head`` goes on with a record's audio and transcripts: a ``traceparent`` that is one."""
    return {name: head[name] for name in TRACE if _TRACEPARENT.fullmatch(head.get(name, ""))}


def text_headers(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """Headers as text; a later one of the same name wins, and bytes that are no UTF-8 become U+FFFD."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
