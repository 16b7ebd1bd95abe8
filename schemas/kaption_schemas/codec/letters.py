"""Writes and reads dead letters: a refused record unchanged, as far as it fits, with ``errors.*`` headers after its own."""

from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from typing import Final as Const

from kaption_schemas.codec.forms import Message, Origin, Raw, iso_time
from kaption_schemas.headers import Headers, text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import DLQ, MIB, topic_name

#: First header of a record that stands for a batch that could not be read; its value is the first offset that is missing.
#: No record of a client can have it: a lone surrogate is in no UTF-8.
UNDECODABLE: Const = "\udcffundecodable"
#: What a dead letter keeps of key, headers and value together; our own headers and the batch around it take the rest.
MOST_LETTER: Const = DLQ.max_bytes - MIB // 16
MOST_KEY: Const = 16 << 10
MOST_HEADERS: Const = 256 << 10
#: The two lengths that stand before each header.
_HEADER_OVERHEAD: Const = 10
#: What ``kaption dlq`` shows of the refused record's own headers.
_SHOWN: Const = ("errors.body_sha256", "ce_type", "ce_run", "ce_sequence", "ce_firstsample", "content-type")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The contents of a dead letter's headers, as they were written; the refused record's own may be a stranger's.

    ``time`` is when it was refused, in ISO 8601; ``body_bytes`` how large its body was, in bytes; ``headers`` are some of its own.
    """

    reason: str
    stage: str
    topic: str
    partition: str
    offset: str
    attempt: str
    time: str
    body_bytes: int
    headers: dict[str, str]


def undecodable_headers(first: int) -> list[tuple[str, bytes | None]]:
    """Headers of the record that stands for a batch which could not be read from offset ``first`` on."""
    return [(UNDECODABLE, str(first).encode())]


def is_undecodable(headers: Headers) -> bool:
    """Whether a record stands for a batch that could not be read."""
    return any(name == UNDECODABLE for name, _ in headers)


def encode_dead_letter(
    origin: Origin, reason: Reason, stage: str, at_ms: int, *, detail: str = "", attempts: int = 1
) -> Message:
    """The record with what is known of its refusal in ``errors.*`` headers; it was refused at ``at_ms``, in ms since 1970.

    Key, headers and value are as they came, unless the record is more than the topic takes: a compressed one may be. Then
    the value is cut, and so are a key and headers that are huge themselves, and ``errors.body_bytes`` and
    ``errors.body_sha256`` tell what it was, ``errors.key_bytes`` and ``errors.headers_left_out`` what else is missing.
    """
    added = {
        "errors.topic": origin.topic,
        "errors.partition": str(origin.partition),
        "errors.offset": str(origin.offset),
        "errors.stage": stage,
        "errors.reason": str(reason),
        "errors.message": f"{reason.meaning} {detail}".strip(),
        "errors.attempt": str(attempts),
        "errors.time": iso_time(at_ms),
    }
    key, value, headers = origin.key, origin.value, list(origin.headers)
    for name, first in origin.headers:
        if name == UNDECODABLE:
            headers = []
            added |= {"errors.offset": (first or b"").decode(), "errors.last_offset": str(origin.offset)}
    if _size(key, value, headers) > MOST_LETTER:
        if len(key or b"") > MOST_KEY:
            added["errors.key_bytes"] = str(len(key or b""))
            key = (key or b"")[:MOST_KEY]
        kept = _first(headers, MOST_HEADERS)
        if len(kept) < len(headers):
            added["errors.headers_left_out"] = str(len(headers) - len(kept))
        headers = kept
        room = MOST_LETTER - _size(key, None, headers)
        if value is not None and len(value) > room:
            added |= {"errors.body_bytes": str(len(value)), "errors.body_sha256": sha256(value).hexdigest()}
            value = value[:room]
    errors = ((name, text.encode()) for name, text in added.items())
    return Message(topic_name(DLQ, origin.tenant), key, value, [*headers, *errors])


def read_dead_letter(record: Raw) -> DeadLetter:
    """Read a record of a dead-letter topic; ``?`` stands for what it does not say."""
    head = text_headers(record.headers)
    whole = head.get("errors.body_bytes", "")
    return DeadLetter(
        reason=head.get("errors.reason", "?"),
        stage=head.get("errors.stage", "?"),
        topic=head.get("errors.topic", "?"),
        partition=head.get("errors.partition", "?"),
        offset=head.get("errors.offset", "?"),
        attempt=head.get("errors.attempt", "1"),
        time=head.get("errors.time", "?"),
        body_bytes=int(whole) if whole.isdecimal() else len(record.value or b""),
        headers={name: head[name] for name in _SHOWN if name in head},
    )


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    return len(key or b"") + len(value or b"") + sum(map(_header_size, headers))


def _header_size(header: tuple[str, bytes | None]) -> int:
    name, value = header
    return len(name.encode()) + len(value or b"") + _HEADER_OVERHEAD


def _first(headers: list[tuple[str, bytes | None]], most: int) -> list[tuple[str, bytes | None]]:
    """As many of the first headers as ``most`` bytes hold."""
    sizes = accumulate(map(_header_size, headers))
    return [header for header, size in zip(headers, sizes, strict=True) if size <= most]
