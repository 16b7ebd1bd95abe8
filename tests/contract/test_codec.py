"""The codec is the one place that knows a record's form: what it writes it reads again, and nothing else names a header."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kaption_schemas.codec import (
    Body,
    Event,
    FilePiece,
    Message,
    Origin,
    SnapshotMarks,
    Sound,
    encode_claim,
    encode_dead_letter,
    encode_event,
    encode_lane,
    encode_published,
    encode_relayed,
    encode_snapshot,
    encode_transcript,
    is_relayed,
    read_dead_letter,
    read_event,
    read_inner,
    read_inner_body,
    read_published,
    read_relayed,
    read_sound,
    read_state,
    read_transcript,
)
from kaption_schemas.content_type import FrameFormat
from kaption_schemas.headers import text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef, Gap, MediaObject, StreamEnded, StreamRefused, StreamStarted
from kaption_schemas.topics import ACCEPTED, BATCH, DLQ, EVENTS, FINAL, LIVE, OBJECTS, PARTIAL, STATE, Type, topic_name
from tests.support.packages import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "schemas" / "golden" / "1"
RUN = "01JD8Q4Z5T9V2W3X4Y5Z6A7B8C"
PCM = FrameFormat("s16le", 16_000, 1)
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
GAP = Gap(run=RUN, first_sequence=3, last_sequence=3, first_sample=4800, samples=0, reason=Reason.ODD_BYTES)
PIECE = FilePiece(DataRef(bucket="work", key="a", offset=0, length=32_000), PCM, 16_000, 48_000)
#: What is written and read again, of each type.
PUBLISHED: list[tuple[Type, Body, int, Any, str]] = [
    (Type.STARTED, StreamStarted(), -1, EVENTS, "started"),
    (Type.FRAME, Sound(bytes(3200), PCM), 7, EVENTS, "frame/000000000007"),
    (Type.ENDED, StreamEnded(last_sequence=7), -1, EVENTS, "ended"),
    (Type.OBJECT, MediaObject(bucket="media", key="a.wav"), -1, OBJECTS, "object"),
]
INNER: list[tuple[Type, Body, Any]] = [
    (Type.STARTED, StreamStarted(), LIVE),
    (Type.FRAME, Sound(bytes(3200), PCM), LIVE),
    (Type.CHUNK, Sound(bytes(3200), PCM), LIVE),
    (Type.CHUNK, PIECE, BATCH),
    (Type.GAP, GAP, LIVE),
    (Type.ENDED, StreamEnded(last_sequence=7), LIVE),
    (Type.REFUSED, StreamRefused(reason=Reason.CLOCK_SKEW), BATCH),
]


def origin(message: Message, tenant: str = "acme", at_ms: int = 1_764_000_000_123) -> Origin:
    """The record that ``message`` becomes."""
    return Origin(tenant, message.topic, 2, 41, at_ms, message.key, message.value, message.headers)


def golden(name: str) -> tuple[dict[str, Any], Origin]:
    record = json.loads((GOLDEN / f"{name}.json").read_text())
    raw = record.get("body_base64")
    body = base64.b64decode(raw) if raw else json.dumps(record["body"]).encode()
    headers = [(key, value.encode()) for key, value in record["headers"].items()]
    return record, Origin("default", "golden", 0, 0, 0, record["key"].encode(), body, headers)


@pytest.mark.parametrize("name", ["kaption.audio.chunk.pcm", "kaption.audio.chunk.reference", "kaption.stream.refused"])
def test_an_inner_golden_record_is_read_and_written_the_same(name: str) -> None:
    record, read = golden(name)
    head = read_inner(read, 0)
    event = head.event(read_inner_body(head, read.value, by_reference="reference" in name))
    made = encode_event(event, LIVE)
    assert (text_headers(made.headers), made.key) == (record["headers"], read.key)
    assert made.value == read.value or json.loads(made.value or b"") == record["body"]


def test_each_type_of_a_topic_is_written_and_read_here() -> None:
    """A new type needs its round trip; those of the output topics are read from their golden records."""
    assert {kind for kind, *_ in PUBLISHED} == {*EVENTS.types, *OBJECTS.types}
    assert {kind for kind, *_ in INNER} == {*ACCEPTED.types, *LIVE.types, *BATCH.types}


@pytest.mark.parametrize("kind", [*PARTIAL.types, *FINAL.types])
def test_a_golden_transcript_is_read_and_written_the_same(kind: Type) -> None:
    record, read = golden(kind)
    transcript = read_transcript(read.headers, read.value)
    assert transcript is not None
    made = encode_transcript(transcript, TRACE)
    # The files are of a time when the pool had another name, and an id of a gap or a completion did not name its channel.
    ours = {"ce_source": "/kaption/pool"}
    if kind in (Type.GAP, Type.COMPLETED):
        ours["ce_id"] = record["headers"]["ce_id"].replace("/gap/", "/gap/0/").replace("/completed", "/completed/0")
    assert text_headers(made.headers) == record["headers"] | ours
    assert made.key == read.key


@pytest.mark.parametrize("name", ["kaption.audio.frame", "kaption.stream.started", "kaption.stream.ended"])
def test_a_publishers_golden_record_is_read(name: str) -> None:
    record, read = golden(name)
    head = read_published(read, [Type(record["headers"]["ce_type"])])
    assert (head.run, head.stream, dict(head.trace)) == (RUN, "call-17", TRACE)
    if head.kind is Type.FRAME:
        assert (head.sequence, head.first_sample, head.mute) == (1, 0, ((0, 160),))
        assert read_sound(head, read.value or b"").format == PCM


@pytest.mark.parametrize(("kind", "body", "number", "topic", "name"), PUBLISHED)
def test_what_the_publisher_writes(kind: Type, body: Body, number: int, topic: Any, name: str) -> None:
    at = max(0, 1600 * number)
    made = encode_published(Event(kind, "acme", "call", RUN, body, 0, number, at), 1_764_000_000_123)
    head = text_headers(made.headers)
    assert (made.topic, made.key, head["ce_id"]) == (topic_name(topic, "acme"), b"call", f"{RUN}/{name}")
    assert (head["ce_source"], head["ce_time"]) == ("/kaption/publisher", "2025-11-24T16:00:00.123+00:00")
    read = read_published(origin(made), [kind])
    assert (read.kind, read.tenant, read.stream, read.run, read.sequence, read.first_sample) == (
        kind, "acme", "call", RUN, number, at,
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "topic"), INNER)
def test_an_event_of_an_inner_topic_is_read_as_it_was_written(kind: Type, body: Body, topic: Any) -> None:
    placed = kind in (Type.FRAME, Type.CHUNK, Type.GAP)
    event = Event(kind, "acme", "call", RUN, body, 1234, 3 if placed else -1, 4800 if placed else 0, (), TRACE)
    made = encode_event(event, topic)
    assert (made.topic, made.key, made.kind) == (topic.name, b"acme/call", kind)
    if topic is LIVE:
        assert read_event(origin(made), 99) == event
    head = read_inner(origin(made), 99)
    assert head.event(read_inner_body(head, made.value, by_reference=topic is BATCH)) == event


def test_a_relayed_record_is_the_publishers_whatever_its_headers_are_called() -> None:
    own = [("ce_origin", b"mine/0/0"), ("ce_received", b"1"), ("odd", None)]
    record = Origin("acme", "acme.media.events.v1", 2, 41, 1234, b"call", b"body", own)
    made = encode_relayed(record, ACCEPTED)
    between = origin(made, tenant="", at_ms=9)
    assert is_relayed(between)
    again = read_relayed(between)
    assert (again.headers, again) == (
        tuple(own),
        Origin("acme", record.topic, 2, 41, 1234, b"call", b"body", tuple(own)),
    )


def test_the_state_topics_records_say_whose_they_are() -> None:
    marks = SnapshotMarks(
        "batch", closed=False, settled=7, began=3, ref=("work", "a/b.pcm"), next_sequence=5, newest_ms=1234
    )
    saved = encode_snapshot(("acme", "call", RUN), b"{}", marks)
    assert (saved.topic, saved.key) == (STATE.name, f"acme/call/{RUN}".encode())
    assert read_state(origin(saved)) == (("acme", "call", RUN), marks)
    assert read_state(origin(encode_lane("audio.live.v1/3", b"{}"))) == "audio.live.v1/3"
    assert read_state(origin(encode_claim("audio.live.v1/3"))) == "claim/audio.live.v1/3"
    assert read_state(origin(Message(STATE.name, b"\xff", b"", []))) is None


def test_a_dead_letter_says_when_it_was_refused() -> None:
    """Of agents and pool alike, in one form: house rule and schemas/asyncapi.yaml."""
    record = Origin("acme", "acme.media.events.v1", 2, 41, 1000, b"call", b"body", [("ce_run", RUN.encode())])
    made = encode_dead_letter(record, Reason.LATE, "session", 1_764_000_000_123, attempts=2)
    assert (made.topic, made.kind) == (topic_name(DLQ, "acme"), None)
    letter = read_dead_letter(origin(made))
    assert (letter.reason, letter.stage, letter.topic, letter.partition, letter.offset, letter.attempt) == (
        "late", "session", "acme.media.events.v1", "2", "41", "2",
    )  # fmt: skip
    assert (letter.time, letter.body_bytes, letter.headers) == ("2025-11-24T16:00:00.123+00:00", 4, {"ce_run": RUN})


#: A header's name as a literal: an attribute of CloudEvents, one of a dead letter, the content type, trace context.
NAMES = re.compile(r"""["'](?:ce_[a-z]+|errors\.[a-z_]+|content-type|traceparent)["']""")


@pytest.mark.parametrize("folder", [path for path in PACKAGES if path != "schemas/kaption_schemas"])
def test_nothing_but_the_codec_names_a_header(folder: str) -> None:
    hand = ROOT / "kaption" / "testing"  # publishers of tests write their records by hand, as a stranger's do
    paths = [path for path in sorted((ROOT / folder).rglob("*.py")) if not path.is_relative_to(hand)]
    assert paths
    found = [f"{path.relative_to(ROOT)}: {name}" for path in paths for name in NAMES.findall(path.read_text())]
    assert found == []
