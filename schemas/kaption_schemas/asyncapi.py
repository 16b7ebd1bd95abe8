"""Builds the AsyncAPI 3 document and the JSON Schemas as plain data from the topic map and the records.

``tools/generate.py`` writes them to files. Nothing here repeats by hand what the map or a record says.
"""

import re
from typing import Any
from typing import Final as Const

from pydantic import BaseModel

from kaption_schemas import records
from kaption_schemas.headers import SCHEMA_VERSION, SPEC_VERSION, TRACE, data_schema
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import DLQ, EVENTS, OBJECTS, RUN_PATTERN, TOPICS, Owner, Topic, Type

Schema = dict[str, Any]
JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"

#: The JSON body of each type. A frame's body is audio, and only the pool reads the body of a snapshot or a claim.
BODIES: dict[Type, type[BaseModel]] = {
    Type.STARTED: records.StreamStarted,
    Type.ENDED: records.StreamEnded,
    Type.OBJECT: records.MediaObject,
    Type.CHUNK: records.DataRef,
    Type.GAP: records.Gap,
    Type.REFUSED: records.StreamRefused,
    Type.PARTIAL: records.PartialTranscript,
    Type.FINAL: records.FinalTranscript,
    Type.COMPLETED: records.StreamCompleted,
    Type.PROGRESS: records.StreamProgress,
}
_NUMBER = {"type": "string", "pattern": r"^\d{1,13}$"}
_RUN = {
    "type": "string",
    "pattern": f"^{RUN_PATTERN.pattern}$",
    "description": "A ULID; one for each start of a stream.",
}
_MUTE = r"^\d+-\d+(,\d+-\d+)*$"
#: CloudEvents extensions of a type in addition to ``ce_run``: name, schema, whether it is required.
_EXTENSIONS: dict[Type, tuple[tuple[str, Schema, bool], ...]] = {
    Type.FRAME: (
        ("ce_sequence", _NUMBER | {"description": "Zero-padded, one more a frame, from 0 or 1."}, True),
        ("ce_firstsample", _NUMBER | {"description": "First sample of the frame, counted from the run's start."}, True),
        (
            "ce_mute",
            {"type": "string", "pattern": _MUTE, "description": "Sample ranges a-b,c-d of the run to silence."},
            False,
        ),
    ),
    Type.CHUNK: (
        ("ce_sequence", _NUMBER, True),
        ("ce_firstsample", _NUMBER, True),
        ("ce_samples", _NUMBER | {"description": "Samples a channel; where the body is a reference."}, False),
        ("ce_format", {"type": "string", "description": "The audio's format; where the body is a reference."}, False),
        ("ce_totalsamples", _NUMBER | {"description": "Samples a channel of the whole file, where it is one."}, False),
    ),
}
_AUDIO = "audio/pcm"
_RAW: Schema = {"type": "string", "format": "binary", "description": "Audio bytes as they are, never base64."}


def json_schemas() -> dict[str, Schema]:
    """Return the JSON Schema of each type's JSON body, by ``ce_type``."""
    return {
        str(kind): {"$schema": JSON_SCHEMA, "$id": data_schema(kind)} | model.model_json_schema(mode="validation")
        for kind, model in BODIES.items()
    }


def asyncapi() -> Schema:
    """Build the AsyncAPI 3.1 document: a channel per topic, a message per type, an operation per topic and direction."""
    kinds = sorted({kind for topic in TOPICS for kind in topic.types})
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Kaption",
            "version": f"{SCHEMA_VERSION}.0.0",
            "description": "Live transcripts on Kafka. CloudEvents 1.0, Kafka binding, binary mode: attributes are `ce_*` "
            "headers, the record's value is the body.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {"host": "127.0.0.1:9092", "protocol": "kafka", "description": "The brokers (KAPTION_KAFKA)."}
        },
        "channels": {_name(topic): _channel(topic) for topic in TOPICS},
        "operations": dict(_operation(topic, action) for topic in TOPICS for action in _actions(topic)),
        "components": {
            "messages": {_last(kind): _message(kind) for kind in kinds} | {"deadLetter": _dead_letter()},
            "schemas": _shared_schemas(),
        },
    }


def _name(topic: Topic) -> str:
    """Turn ``media.events.v1`` into an identifier: ``mediaEvents``."""
    first, *rest = topic.name.removesuffix(".v1").split(".")
    return first + "".join(part.capitalize() for part in rest)


def _last(kind: Type) -> str:
    """Turn ``kaption.stream.started`` into an identifier: ``streamStarted``."""
    _, noun, verb = kind.split(".")
    return noun + verb.capitalize()


def _messages(topic: Topic) -> list[str]:
    return ["deadLetter"] if topic is DLQ else [_last(kind) for kind in topic.types]


def _channel(topic: Topic) -> Schema:
    tenants = f" Tenants other than `default`: `<tenant>.{topic.name}`." if topic.owner is Owner.EDGE else ""
    staged = " Only with staged stages." if topic.staged_only else ""
    config = topic.config()
    return {
        "address": topic.name,
        "description": f"Key: `{topic.key}`.{tenants}{staged}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(topic)},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "topicConfiguration": {
                    "cleanup.policy": config["cleanup.policy"].split(","),
                    "retention.ms": topic.retention_ms,
                    "max.message.bytes": topic.max_bytes,
                },
                "bindingVersion": "0.5.0",
            }
        },
        "x-owner": str(topic.owner),
        "x-topic-configuration": config,
    }


def _actions(topic: Topic) -> tuple[str, ...]:
    """Return what Kaption does with a topic: read it, write it, or both, if it is its own."""
    if topic in (EVENTS, OBJECTS):
        return ("receive",)
    return ("send",) if topic.owner is Owner.EDGE else ("send", "receive")


def _operation(topic: Topic, action: str) -> tuple[str, Schema]:
    name = _name(topic)
    body = {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in _messages(topic)],
    }
    return action + name[0].upper() + name[1:], body


def _message(kind: Type) -> Schema:
    model = BODIES.get(kind)
    raw = kind in (Type.FRAME, Type.CHUNK)
    payload: Schema = {"$ref": f"#/components/schemas/{model.__name__}"} if model else {"type": "object"}
    if raw:
        payload = {"oneOf": [_RAW, payload]} if model else _RAW
    return {
        "name": str(kind),
        "title": _last(kind),
        "summary": _first_sentence(model.__doc__ or "") if model else _SUMMARIES[kind],
        "contentType": _AUDIO if raw else "application/json",
        "headers": _headers(kind),
        "payload": payload,
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": "0.5.0"}},
    }


_SUMMARIES = {
    Type.FRAME: "20 to 1000 ms of audio; content-type states its format.",
    Type.SNAPSHOT: "A session's state; internal, readable by the next version.",
    Type.CLAIM: "A worker's claim of a partition; its offset is the owner epoch.",
}


def _headers(kind: Type) -> Schema:
    fields: Schema = {
        "ce_specversion": {"type": "string", "const": SPEC_VERSION},
        "ce_id": {"type": "string", "minLength": 1},
        "ce_source": {"type": "string", "minLength": 1},
        "ce_type": {"type": "string", "const": str(kind)},
        "ce_dataschema": {"type": "string", "const": data_schema(kind)},
        "ce_run": _RUN,
        "content-type": {"type": "string"},
    }
    required = ["ce_specversion", "ce_id", "ce_source", "ce_type"]
    # A notification's run follows from bucket, key and version, so a publisher need not name one.
    if kind is not Type.OBJECT:
        required.append("ce_run")
    for name, schema, must in _EXTENSIONS.get(kind, ()):
        fields[name] = schema
        if must:
            required.append(name)
    fields |= {name: {"type": "string", "description": "W3C Trace Context."} for name in TRACE}
    return {"type": "object", "properties": fields, "required": required}


#: Headers that only some dead letters have.
_LETTER_EXTRAS: Const = {
    "last_offset": "The letter is a batch that could not be read: records errors.offset to this one of the topic.",
    "body_bytes": "The value was larger than the topic takes: its whole size. The letter has its first part.",
    "body_sha256": "Beside errors.body_bytes: SHA-256 of the whole value, in hex.",
    "key_bytes": "The key was larger than 16 KiB: its whole size. The letter has its first part.",
    "headers_left_out": "How many of the last headers are missing, since they were over 256 KiB in all.",
}


def _dead_letter() -> Schema:
    names = ("topic", "partition", "offset", "stage", "reason", "message", "attempt", "time")
    fields: Schema = {f"errors.{name}": {"type": "string"} for name in names}
    required = list(fields)
    fields |= {f"errors.{name}": {"type": "string", "description": what} for name, what in _LETTER_EXTRAS.items()}
    fields["errors.reason"] = {"type": "string", "enum": sorted(reason.value for reason in Reason)}
    return {
        "name": "deadLetter",
        "title": "deadLetter",
        "summary": "A refused record with its key, value and headers untouched as far as they fit, and why; errors.time is when it was refused (ISO 8601).",
        "headers": {"type": "object", "properties": fields, "required": required},
        "payload": {
            "description": "The refused record's value, whatever it was; its first part where it does not fit."
        },
        "bindings": {"kafka": {"bindingVersion": "0.5.0"}},
    }


def _first_sentence(doc: str) -> str:
    """Return the first paragraph of a docstring in one line, without the markup of code."""
    return re.sub(r"\s+", " ", doc.strip().split("\n\n")[0]).replace("``", "`")


def _shared_schemas() -> Schema:
    """Return the schema of every record and its parts, each once, with references within the document."""
    out: Schema = {}
    for model in BODIES.values():
        schema = model.model_json_schema(mode="validation", ref_template="#/components/schemas/{model}")
        out |= schema.pop("$defs", {})
        out[model.__name__] = schema
    return dict(sorted(out.items()))
