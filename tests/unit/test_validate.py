"""Every code of the validate stage, and that a good event passes; the code is what clients build on."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from kaption.adapters.presidio import PresidioRedactor
from kaption.domain.intake.pcm import to_s16
from kaption.domain.intake.refusal import Refusal
from kaption.domain.intake.stages import Tools, accept
from kaption.domain.redaction.open_suffix import RECOGNISED
from kaption.testing.voices import DigitRedactor
from kaption_schemas.codec import Event, Headers, Message, Origin, Sound, encode_dead_letter, encode_event
from kaption_schemas.content_type import FrameFormat, parse_format
from kaption_schemas.headers import event_headers, pcm_type, sequence
from kaption_schemas.reasons import Reason
from kaption_schemas.records import Gap, StreamEnded, StreamRefused, StreamStarted
from kaption_schemas.topics import LIVE, Type

RUN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
NOW = 1_700_000_000_000
PCM = np.arange(1600, dtype="<i2").tobytes()


def no_decoder(body: bytes, what: FrameFormat, tenant: str) -> bytes:
    raise AssertionError("no frame of these tests is in a container")


TOOLS = Tools(DigitRedactor(), ("NUMBER",), no_decoder, frozenset({"NUMBER"}))


def origin(kind: Type, body: bytes | None, *, key: bytes | None = b"call", drop: str = "", **head: str) -> Origin:
    headers = dict(
        event_headers(kind, id="1", source="/test", run=RUN, content_type=head.pop("content_type", "application/json"))
    )
    headers |= {f"ce_{name}": value.encode() for name, value in head.items()}
    headers.pop(drop, None)
    return Origin("default", "media.events.v1", 0, 7, NOW, key, body, tuple(headers.items()))


def frame(body: bytes | None = PCM, *, key: bytes | None = b"call", drop: str = "", **head: str) -> Origin:
    given = {"content_type": pcm_type(16000, 1), "sequence": sequence(3), "firstsample": "4800"} | head
    return origin(Type.FRAME, body, key=key, drop=drop, **given)


def started(body: object = None, **head: str) -> Origin:
    return origin(Type.STARTED, json.dumps({} if body is None else body).encode(), **head)  # type: ignore[arg-type]  # mypy: `key`


def headers_of(base: Origin, extra: list[tuple[str, bytes | None]]) -> Origin:
    return replace(base, headers=(*base.headers, *extra))


def vocabulary(*terms: str) -> Origin:
    return started({"options": {"vocabulary": list(terms)}})


def metadata(entries: dict[str, object]) -> Origin:
    return started({"options": {"metadata": entries}})


DEEP = b'{"options":' * 1000 + b"1" + b"}" * 1000

REFUSED = {
    "no specversion": (frame(drop="ce_specversion"), Reason.NOT_CLOUDEVENTS),
    "no headers": (replace(frame(), headers=()), Reason.NOT_CLOUDEVENTS),
    "version 2": (frame(specversion="2.0"), Reason.UNSUPPORTED_VERSION),
    "another schema": (frame(dataschema="urn:kaption:schema:kaption.audio.frame:9"), Reason.UNSUPPORTED_VERSION),
    "unknown type": (frame(type="kaption.audio.film"), Reason.UNKNOWN_TYPE),
    "an object here": (frame(type="kaption.media.object"), Reason.UNKNOWN_TYPE),
    "another tenant": (frame(tenant="acme"), Reason.UNKNOWN_TENANT),
    "10,000 headers": (headers_of(frame(), [(f"x{n}", b"") for n in range(10_000)]), Reason.BAD_HEADERS),
    "a large header": (headers_of(frame(), [("x", b"x" * 20_000)]), Reason.BAD_HEADERS),
    "a header twice": (headers_of(frame(), [("ce_run", b"x")]), Reason.BAD_HEADERS),
    "headers not UTF-8": (headers_of(frame(), [("x", b"\xff")]), Reason.BAD_HEADERS),
    "a header's name not UTF-8": (headers_of(frame(), [("x\ufffd", b"1")]), Reason.BAD_HEADERS),
    "null key": (frame(key=None), Reason.BAD_KEY),
    "a path as key": (frame(key=b"../etc"), Reason.BAD_KEY),
    "key not UTF-8": (frame(key=b"\xff"), Reason.BAD_KEY),
    "a run that is no ULID": (frame(run="today"), Reason.BAD_RUN),
    "no sequence": (frame(drop="ce_sequence"), Reason.BAD_SEQUENCE),
    "a negative sequence": (frame(sequence="-1"), Reason.BAD_SEQUENCE),
    "a sequence in other digits": (frame(sequence="٣"), Reason.BAD_SEQUENCE),
    "no first sample": (frame(drop="ce_firstsample"), Reason.BAD_FIRSTSAMPLE),
    "a first sample too far": (frame(firstsample=str(10**13)), Reason.BAD_FIRSTSAMPLE),
    "mutes in no order": (frame(mute="9-12,1-3"), Reason.BAD_MUTE),
    "mute of nothing": (frame(mute="3-3"), Reason.BAD_MUTE),
    "null value": (frame(None), Reason.EMPTY_BODY),
    "empty": (frame(b""), Reason.EMPTY_BODY),
    "null started": (origin(Type.STARTED, None), Reason.EMPTY_BODY),
    "oversized": (frame(b"\0" * (600 << 10)), Reason.BODY_TOO_LARGE),
    "large JSON": (started({"options": {"metadata": {"a": "b" * 70_000}}}), Reason.BODY_TOO_LARGE),
    "no JSON": (origin(Type.STARTED, b"\xff{"), Reason.BAD_JSON),
    "a list": (origin(Type.STARTED, b"[]"), Reason.BAD_JSON),
    "JSON of depth 1,000": (origin(Type.STARTED, DEEP), Reason.BAD_JSON),
    "a misspelt option": (started({"options": {"langauge": "en"}}), Reason.INVALID_BODY),
    "no last sequence": (origin(Type.ENDED, b"{}"), Reason.INVALID_BODY),
    "vocabulary of 100 kB": (vocabulary(*["x" * 50] * 2000), Reason.BAD_VOCABULARY),
    "control characters": (vocabulary("a\x07b"), Reason.BAD_VOCABULARY),
    "a long value": (metadata({"a": "x" * 1025}), Reason.BAD_METADATA),
    "a long name": (metadata({"a" * 129: "x"}), Reason.BAD_METADATA),
    "much metadata": (metadata({f"{n}": "x" * 1000 for n in range(9)}), Reason.BAD_METADATA),
    "65 entries": (metadata({f"{n}": "x" for n in range(65)}), Reason.BAD_METADATA),
    "metadata that is no text": (metadata({"a": ["x"]}), Reason.INVALID_BODY),
    "a clock years off": (started({"wall_time_ms": 1}), Reason.CLOCK_SKEW),
    "a policy nobody can keep": (started({"options": {"redaction": ["SHOE_SIZE"]}}), Reason.UNKNOWN_ENTITY),
    "no format": (frame(content_type=""), Reason.MISSING_FORMAT),
    "no rate": (frame(content_type="audio/pcm"), Reason.MISSING_FORMAT),
    "an odd rate": (frame(content_type=pcm_type(12345, 1)), Reason.UNSUPPORTED_FORMAT),
    "nine channels": (frame(content_type=pcm_type(16000, 9)), Reason.UNSUPPORTED_FORMAT),
    "a picture": (frame(content_type="image/png"), Reason.UNSUPPORTED_FORMAT),
    "parameters that only half parse": (
        frame(content_type="audio/pcm;rate*=1;rate*0=2;encoding=s16le"),
        Reason.UNSUPPORTED_FORMAT,
    ),
    "a parameter twice": (frame(content_type=pcm_type(16000, 1) + ";rate=8000"), Reason.UNSUPPORTED_FORMAT),
    "started with an odd rate": (started({"format": {"rate": 12345}}), Reason.UNSUPPORTED_FORMAT),
    "odd bytes": (frame(PCM[:-1]), Reason.ODD_BYTES),
    "10 ms": (frame(PCM[:320]), Reason.FRAME_TOO_SHORT),
    "2 s": (frame(PCM * 20), Reason.FRAME_TOO_LONG),
}

#: The decoding child separates these, with real audio: tests/integration/test_frames.py.
ELSEWHERE = {Reason.UNDECODABLE, Reason.UNDECODABLE_BATCH, Reason.TOO_COSTLY, Reason.INTERNAL_ERROR}
_CODES = list(Reason)
STAGE = set(_CODES[: _CODES.index(Reason.NOT_A_CREATION)])


@pytest.mark.parametrize(("record", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(record: Origin, reason: Reason) -> None:
    result = accept(record, TOOLS)
    assert isinstance(result, Refusal)
    assert result.reason is reason


def test_every_code_of_the_stage_is_among_them() -> None:
    assert {reason for _, reason in REFUSED.values()} | ELSEWHERE == STAGE


def test_a_refused_frame_leaves_a_gap_and_a_dead_letter_that_shows_it_unchanged() -> None:
    record = frame(PCM[:-1])
    result = accept(record, TOOLS)
    assert isinstance(result, Refusal)
    assert result.mark is not None
    gap = result.mark.body
    assert isinstance(gap, Gap)
    assert (gap.first_sequence, gap.first_sample, gap.reason) == (3, 4800, Reason.ODD_BYTES)
    letter = encode_dead_letter(record, result.reason, result.stage, NOW)
    headers = letter.headers
    assert (letter.key, letter.value) == (record.key, record.value)
    assert tuple(headers[: len(record.headers)]) == record.headers
    added = dict(headers[len(record.headers) :])
    assert added["errors.reason"] == b"odd_bytes"
    assert added["errors.offset"] == b"7"


def test_a_good_frame_is_a_chunk_with_its_muted_samples_silenced() -> None:
    (event,) = one(accept(frame(mute="4800-4810,5000-9000"), TOOLS))
    assert isinstance(event.body, Sound)
    assert event.body.format == FrameFormat("s16le", 16_000, 1)
    samples = np.frombuffer(event.body.data, "<i2")
    assert event.kind is Type.CHUNK
    assert written(event).key == b"default/call"
    assert not samples[:10].any()
    assert not samples[200:].any()
    assert samples[10:200].tolist() == list(range(10, 200))
    assert dict(written(event).headers)["ce_received"] == str(NOW).encode()


def test_what_a_policy_names_is_removed_from_metadata_and_vocabulary() -> None:
    options = {"metadata": {"caller": "id 123456"}, "vocabulary": ["Kaption", "987654", "room 12"]}
    (event,) = one(accept(started({"options": options}), TOOLS))
    body = event.body
    assert isinstance(body, StreamStarted)
    assert body.options.metadata == {"caller": "id [NUMBER]"}
    assert body.options.vocabulary == ("Kaption", "room 12")
    assert body.options.redaction == ("NUMBER",)


def test_a_vocabulary_keeps_what_is_no_number_of_a_policy() -> None:
    tools = replace(TOOLS, redactor=PresidioRedactor(), entities=RECOGNISED)
    terms = ["Kaption", "John Smith", "room 4071", "4111 1111", "john@", "x@y.de"]
    options = {"vocabulary": terms, "redaction": ["CREDIT_CARD", "EMAIL_ADDRESS"]}
    (event,) = one(accept(started({"options": options}), tools))
    body = event.body
    assert isinstance(body, StreamStarted)
    assert body.options.vocabulary == ("Kaption", "John Smith", "room 4071")


def test_the_reason_of_an_end_is_no_way_around_a_policy() -> None:
    (event,) = one(accept(origin(Type.ENDED, b'{"last_sequence": 3, "reason": "card 123456"}'), TOOLS))
    assert event.body == StreamEnded(last_sequence=3)
    (event,) = one(accept(origin(Type.ENDED, b'{"last_sequence": 3, "reason": "hung up"}'), TOOLS))
    assert event.body == StreamEnded(last_sequence=3, reason="hung up")


@pytest.mark.parametrize(
    "content_type",
    ['audio/pcm; rate="16000"; channels=1; encoding=s16le', "AUDIO/PCM;RATE=16000;Encoding=s16le;", "audio/wav"],
)
def test_ways_to_write_a_format(content_type: str) -> None:
    assert parse_format(content_type).rate == 16000


def test_metadata_whose_names_mask_alike_stays_apart() -> None:
    (event,) = one(accept(started({"options": {"metadata": {"123456": "a", "654321": "b", "111111": "c"}}}), TOOLS))
    assert isinstance(event.body, StreamStarted)
    assert event.body.options.metadata == {"[NUMBER]": "a", "[NUMBER] (2)": "b", "[NUMBER] (3)": "c"}


def test_an_empty_policy_removes_nothing() -> None:
    options = {"metadata": {"caller": "123456"}, "redaction": []}
    (event,) = one(accept(started({"options": options}), TOOLS))
    assert isinstance(event.body, StreamStarted)
    assert event.body.options.metadata == {"caller": "123456"}


@pytest.mark.parametrize(
    ("encoding", "code", "linear"),
    [("mulaw", 0xFF, 0), ("mulaw", 0x00, -32124), ("mulaw", 0x80, 32124), ("alaw", 0xD5, 8), ("alaw", 0x2A, -32256)],
)
def test_g711(encoding: str, code: int, linear: int) -> None:
    assert np.frombuffer(to_s16(bytes([code]), encoding), "<i2").tolist() == [linear]


def written(event: Event) -> Message:
    return encode_event(event, LIVE)


def one(result: list[Event] | Refusal) -> list[Event]:
    assert not isinstance(result, Refusal), result
    return result


def test_trace_context_goes_along() -> None:
    parent: Headers = [("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01")]
    (event,) = one(accept(headers_of(frame(), [*parent]), TOOLS))
    assert ("traceparent", parent[0][1]) in written(event).headers


@pytest.mark.parametrize(
    "name", ["10,000 headers", "headers not UTF-8", "version 2", "no first sample", "another tenant"]
)
def test_a_frame_whose_run_and_sequence_can_be_read_leaves_a_gap_whatever_is_wrong(name: str) -> None:
    result = accept(REFUSED[name][0], TOOLS)
    assert isinstance(result, Refusal)
    assert result.mark is not None
    assert (result.mark.run, result.mark.sequence) == (RUN, 3)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (started({"options": {"redaction": ["PERSON"]}}), Reason.UNKNOWN_ENTITY),
        (started({"wall_time_ms": 1000}), Reason.CLOCK_SKEW),
        (started({"options": {"langauge": "en"}}), Reason.INVALID_BODY),
        (started({}, dataschema="urn:kaption:schema:kaption.stream.started:2"), Reason.UNSUPPORTED_VERSION),
        (started({}, drop="ce_id"), Reason.NOT_CLOUDEVENTS),
    ],
)
def test_a_refused_started_leaves_a_marker_that_closes_its_run(record: Origin, reason: Reason) -> None:
    result = accept(record, TOOLS)
    assert isinstance(result, Refusal)
    assert (result.reason, result.mark is not None) == (reason, True)
    assert result.mark is not None
    assert (result.mark.kind, result.mark.run, written(result.mark).key) == (Type.REFUSED, RUN, b"default/call")
    assert result.mark.body == StreamRefused(reason=reason)


@pytest.mark.parametrize("record", [replace(started(), key=b"a key"), started(drop="ce_run"), started(drop="ce_type")])
def test_a_refused_started_whose_run_or_stream_cannot_be_read_leaves_none(record: Origin) -> None:
    result = accept(record, TOOLS)
    assert isinstance(result, Refusal)
    assert result.mark is None


def test_only_a_trace_parent_goes_on() -> None:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    others = (("tracestate", b"a=4111 1111 1111 1111"), ("baggage", b"card=4111 1111 1111 1111"))
    for value, kept in ((parent, {"traceparent": parent.decode()}), (parent[:-1], {}), (b"4111 1111 1111 1111", {})):
        record = frame()
        record = replace(record, headers=(*record.headers, ("traceparent", value), *others))
        (event,) = one(accept(record, TOOLS))
        assert event.trace == kept
        assert not {"tracestate", "baggage"} & {name for name, _ in written(event).headers}


def test_brackets_within_strings_nest_nothing() -> None:
    """And looking for them takes one way through the body, however its quotes stand."""
    accepted = accept(metadata({"a": "[" * 500, "b": '\\"[{' * 100}), TOOLS)
    assert isinstance(accepted, list)
    deep = b'{"a":"[\\"",' + DEEP[1:]
    result = accept(replace(started(), value=deep), TOOLS)
    assert isinstance(result, Refusal)
    assert result.reason is Reason.BAD_JSON
    begin = time.perf_counter()
    for body in (b'\\"' * 32_000, b'"' * 64_000, b'"' + b"\\" * 64_000):
        assert isinstance(accept(replace(started(), value=body), TOOLS), Refusal)
    assert time.perf_counter() - begin < 2


def test_a_refused_policy_is_told_what_there_is() -> None:
    assert all(entity in Reason.UNKNOWN_ENTITY.meaning for entity in RECOGNISED)


@pytest.mark.parametrize("format", ["audio/l16;rate=16000", "audio/x-mulaw", "audio/pcm;rate=16000;encoding=linear16"])
def test_a_format_by_another_name_is_told_what_to_send(format: str) -> None:
    result = accept(frame(content_type=format), TOOLS)
    assert isinstance(result, Refusal)
    assert all(word in result.reason.meaning for word in ("audio/pcm", "s16le", "linear16", "mulaw"))
