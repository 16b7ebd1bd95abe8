"""Reads the objects that a record of media.objects.v1 names: our own event, or a bucket notification of MinIO or AWS S3.

Pure: it does not know whether an object exists. A notification's run id is derived from the object alone, so a
notification that is delivered twice gives the same run.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from typing import Final as Const
from urllib.parse import unquote, unquote_plus

from pydantic import ValidationError

from kaption.domain.intake import refusal
from kaption.domain.intake.validate import validate
from kaption_schemas.codec import Body, Event, Origin, claims_event, clean_trace_of, read_refused
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import MediaObject, StreamRefused
from kaption_schemas.topics import STREAM_PATTERN, Type

MAX_BODY: Const = 1 << 20
MAX_OBJECTS: Const = 1000
_CROCKFORD: Const = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_NAME_CHARACTERS: Const = 100
_MOST_VERSION: Const = 1024
_MOST_ETAG: Const = 256


@dataclass(frozen=True, slots=True)
class Place:
    """A tenant's place: the bucket, and the prefix that every key of the tenant has."""

    bucket: str
    prefix: str


@dataclass(frozen=True, slots=True)
class ObjectRun:
    """One object to transcribe, as run ``run`` of ``stream``. ``received_ms`` is the broker's append time."""

    tenant: str
    stream: str
    run: str
    media: MediaObject
    received_ms: int
    trace: Mapping[str, str] = field(default_factory=dict)

    def event(self, kind: Type, body: Body) -> Event:
        """An event of the run."""
        return Event(kind, self.tenant, self.stream, self.run, body, self.received_ms, trace=self.trace)


@dataclass(frozen=True, slots=True)
class RefusedObject:
    """A refused object and the reason. ``run`` is the run that it would have been, if that is known."""

    reason: Reason
    run: ObjectRun | None = None


def place_of(tenant: str, bucket: str, prefix: str) -> Place:
    """The place of ``tenant``; ``{tenant}`` in ``prefix`` is replaced."""
    return Place(bucket, prefix.replace("{tenant}", tenant))


def read_objects(
    origin: Origin, place: Place, secret: Callable[[str], bool] = lambda _: False
) -> list[ObjectRun | RefusedObject]:
    """The objects that ``origin`` names, in its order, with a refusal in place of each object that can't be taken.

    ``secret`` says whether a name holds what the deployment's policy redacts: a stream does not get such a name.

    Raises:
        RefusedError: The record as a whole is not valid on this topic.
    """
    if claims_event(origin.headers):
        run = _event(origin)
        return [run if within(run.media, place) else RefusedObject(Reason.OUTSIDE_PREFIX, run)]
    return [_notified(entry, origin, place, secret) for entry in _notification(origin)]


def mark_of(origin: Origin, reason: Reason, run: ObjectRun | None = None) -> Event | None:
    """The event that a refused object leaves in its run, so that readers of the run learn of the refusal.

    ``run`` is the object's run if it is known, else the run that ``origin`` names. Gives None if there is neither.
    """
    if run is not None:
        return run.event(Type.REFUSED, StreamRefused(reason=reason))
    known = read_refused(origin, (Type.OBJECT,))
    return refusal.mark_of(known, reason) if known else None


def _event(origin: Origin) -> ObjectRun:
    event = validate(origin, (Type.OBJECT,))
    media = event.body
    if (
        not isinstance(media, MediaObject)
        or any(not 0 <= start < end for start, end in media.muted)
        or not _fits(media)
    ):
        raise RefusedError(Reason.INVALID_BODY)
    return ObjectRun(origin.tenant, event.stream, event.run, media, origin.timestamp_ms, event.trace)


def _fits(media: MediaObject) -> bool:
    """Whether version and ETag are no longer than a store's can be: they go into a request line."""
    return len(media.version or "") <= _MOST_VERSION and len(media.etag or "") <= _MOST_ETAG


def _notification(origin: Origin) -> list[Any]:
    """The entries of a notification. Raises ``RefusedError``."""
    body = origin.value
    if not body:
        raise RefusedError(Reason.EMPTY_BODY)
    if len(body) > MAX_BODY:
        raise RefusedError(Reason.BODY_TOO_LARGE)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(Reason.NOT_CLOUDEVENTS) from None
    if isinstance(value, dict) and value.get("Event") == "s3:TestEvent":
        raise RefusedError(Reason.NOT_A_CREATION)
    entries = value.get("Records") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise RefusedError(Reason.NOT_CLOUDEVENTS)
    if not 0 < len(entries) <= MAX_OBJECTS:
        raise RefusedError(Reason.INVALID_BODY)
    return entries


def _notified(
    entry: Any,  # untrusted JSON
    origin: Origin,
    place: Place,
    secret: Callable[[str], bool],
) -> ObjectRun | RefusedObject:
    try:
        if not str(entry["eventName"]).removeprefix("s3:").startswith("ObjectCreated:"):
            return RefusedObject(Reason.NOT_A_CREATION)
        bucket, what = entry["s3"]["bucket"]["name"], entry["s3"]["object"]
        media = MediaObject(
            bucket=bucket,
            key=unquote_plus(what["key"], errors="strict"),
            version=what.get("versionId") or None,
            etag=(what.get("eTag") or "").strip('"') or None,
            size=what.get("size"),
        )
        sequencer = what.get("sequencer")
        revision = media.version or media.etag or (sequencer if isinstance(sequencer, str) else "")
        # Encoding finds a lone surrogate, which JSON may hold and UTF-8 may not.
        run = derived_run(media, revision)
        stream = _stream(origin.key, media, secret)
    except (KeyError, TypeError, AttributeError, ValidationError, UnicodeError):
        return RefusedObject(Reason.INVALID_BODY)
    if not _fits(media):
        return RefusedObject(Reason.INVALID_BODY)
    trace = clean_trace_of(origin.headers)
    if not within(media, place):  # no reader waits for a run that was derived for another tenant's object
        return RefusedObject(Reason.OUTSIDE_PREFIX)
    return ObjectRun(origin.tenant, stream, run, media, origin.timestamp_ms, trace)


def derived_run(media: MediaObject, revision: str) -> str:
    """A run id derived from the object: 128 bits of SHA-256 in a ULID's alphabet (26 characters)."""
    digest = hashlib.sha256("\0".join((media.bucket, media.key, revision)).encode()).digest()
    number = int.from_bytes(digest[:16])
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def derived_stream(media: MediaObject, secret: Callable[[str], bool] = lambda _: False) -> str:
    """A stream's name for an object without one: its file name and a hash of its key, so that the name is unique.

    If the file name is ``secret``, the hash alone: every record has the stream's name, and call recorders put phone numbers
    into file names.
    """
    file = media.key.rsplit("/", 1)[-1]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file)[:_NAME_CHARACTERS].strip("-.")
    tail = hashlib.sha256(f"{media.bucket}\0{media.key}".encode()).hexdigest()[:10]
    return f"{name}-{tail}" if name and not _holds(file, secret) else tail


def _holds(name: str, secret: Callable[[str], bool]) -> bool:
    """Whether ``name`` is secret, unchanged or with spaces in place of the characters that separate words in file names."""
    return secret(name) or secret(re.sub(r"[-_.+ ]+", " ", name))


def _stream(key: bytes | None, media: MediaObject, secret: Callable[[str], bool]) -> str:
    """The record's key if it is a stream's name, else a name derived from the object. MinIO's key has a slash, so it never is."""
    name = (key or b"").decode("utf-8", "replace")
    return name if STREAM_PATTERN.fullmatch(name) and not _holds(name, secret) else derived_stream(media, secret)


def within(media: MediaObject, place: Place) -> bool:
    """Whether the object is in the tenant's place. A key that a store or proxy could normalise to another path is not."""
    if media.bucket != place.bucket or not media.key.startswith(place.prefix) or media.key == place.prefix:
        return False
    return all(_is_plain(key) for key in (media.key, unquote(media.key)))


def _is_plain(key: str) -> bool:
    parts = key.split("/")
    return key.isprintable() and "\\" not in key and not any(part in ("", ".", "..") for part in parts)
