import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaption.domain.intake.bucket_events import (
    ObjectRun,
    Place,
    RefusedObject,
    derived_run,
    derived_stream,
    mark_of,
    place_of,
    read_objects,
    within,
)
from kaption.domain.intake.file_chunks import Normalised, batch_records, muted_samples
from kaption_schemas.codec import Origin, encode_event
from kaption_schemas.errors import RefusedError
from kaption_schemas.headers import Headers, event_headers, text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef, MediaObject, RunOptions, StreamEnded, StreamRefused, StreamStarted
from kaption_schemas.topics import BATCH, RUN_PATTERN, STREAM_PATTERN, Type

RUN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
PLACE = Place("media", "default/")


def origin(value: Any, key: bytes | None = b"film", headers: Headers | None = None) -> Origin:
    body = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Origin("default", "media.objects.v1", 0, 7, 1234, key, body, tuple(headers or ()))


def event(body: Any, key: bytes | None = b"film", run: str = RUN) -> Origin:
    return origin(body, key, event_headers(Type.OBJECT, id="1", source="/test", run=run))


def minio(key: str = "default/my+film%281%29.mp3", name: str = "s3:ObjectCreated:Put", **what: Any) -> dict[str, Any]:
    thing = {"key": key, "size": 10, "eTag": "abc", "versionId": "v1", "sequencer": "16"} | what
    entry = {"eventName": name, "s3": {"bucket": {"name": "media"}, "object": thing}}
    return {"EventName": name, "Key": f"media/{key}", "Records": [entry]}


def aws(key: str, **what: Any) -> dict[str, Any]:
    thing = {"key": key, "size": 10, "eTag": "abc", "sequencer": "0055"} | what
    s3 = {"s3SchemaVersion": "1.0", "bucket": {"name": "media", "arn": "arn"}, "object": thing}
    return {"Records": [{"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": s3}]}


def one(record: Origin) -> ObjectRun:
    (found,) = read_objects(record, PLACE)
    assert isinstance(found, ObjectRun), found
    return found


def refusal(record: Origin) -> Reason:
    try:
        (found,) = read_objects(record, PLACE)
    except RefusedError as error:
        return error.reason
    assert isinstance(found, RefusedObject)
    return found.reason


def test_an_event_names_its_stream_run_and_object() -> None:
    run = one(event({"bucket": "media", "key": "default/a.mp3", "options": {"language": "en"}, "muted": [[0, 50]]}))
    assert (run.tenant, run.stream, run.run, run.received_ms) == ("default", "film", RUN, 1234)
    assert run.media.options.language == "en"
    assert run.media.muted == ((0, 50),)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (event({"bucket": "media", "key": "other/a.mp3"}), Reason.OUTSIDE_PREFIX),
        (event({"bucket": "elsewhere", "key": "default/a.mp3"}), Reason.OUTSIDE_PREFIX),
        (event({"bucket": "media", "key": "default/a", "muted": [[5, 5]]}), Reason.INVALID_BODY),
        (event({"bucket": "media", "key": "default/a", "muted": [[-5, 5]]}), Reason.INVALID_BODY),
        (event({"bucket": "media", "key": "default/a", "sha256": "no"}), Reason.INVALID_BODY),
        (event({"bucket": "media", "key": "default/a", "colour": "red"}), Reason.INVALID_BODY),
        (event({"bucket": "media", "key": "default/a", "options": {"vocabulary": ["\7"]}}), Reason.BAD_VOCABULARY),
        (event({"bucket": "media", "key": "default/a", "version": "v" * 1025}), Reason.INVALID_BODY),
        (event({"bucket": "media", "key": "default/a", "etag": "e" * 257}), Reason.INVALID_BODY),
        (origin(minio(versionId="v" * 1025)), Reason.INVALID_BODY),
        (event(b"nonsense"), Reason.BAD_JSON),
        (event(None), Reason.EMPTY_BODY),
        (event({"bucket": "media", "key": "default/a"}, key=None), Reason.BAD_KEY),
        (event({"bucket": "media", "key": "default/a"}, run="x"), Reason.BAD_RUN),
        (origin(None), Reason.EMPTY_BODY),
        (origin(b"x" * ((1 << 20) + 1)), Reason.BODY_TOO_LARGE),
        (origin(b"[" * 100_000), Reason.NOT_CLOUDEVENTS),
        (origin({"bucket": "media"}), Reason.NOT_CLOUDEVENTS),
        (origin({"Records": []}), Reason.INVALID_BODY),
        (origin({"Records": [{}]}), Reason.INVALID_BODY),
        (origin({"Records": ["text"]}), Reason.INVALID_BODY),
        (origin(minio(key="default/%ff")), Reason.INVALID_BODY),
        (origin(minio(size="many")), Reason.INVALID_BODY),
        (origin(minio(name="s3:ObjectRemoved:Delete")), Reason.NOT_A_CREATION),
        (origin(minio(name="s3:ObjectAccessed:Get")), Reason.NOT_A_CREATION),
        (origin({"Service": "Amazon S3", "Event": "s3:TestEvent"}), Reason.NOT_A_CREATION),
        (origin(minio(key="acme/a.mp3")), Reason.OUTSIDE_PREFIX),
        (origin(minio(key="default/..%2Facme/a.mp3")), Reason.OUTSIDE_PREFIX),
    ],
)
def test_what_can_not_be_taken_has_its_reason(record: Origin, reason: Reason) -> None:
    assert refusal(record) is reason


def test_notifications_of_both_kinds_are_read() -> None:
    run = one(origin(minio(), key=b"media/default/my film(1).mp3"))
    assert (run.media.key, run.media.version, run.media.etag, run.media.size) == (
        "default/my film(1).mp3", "v1", "abc", 10,
    )  # fmt: skip
    assert run.media.options == RunOptions()
    run = one(origin(aws("default/a%2Bb.mp3"), key=None))
    assert (run.media.key, run.media.version) == ("default/a+b.mp3", None)


def test_a_notification_that_comes_twice_is_the_same_run_and_another_version_is_not() -> None:
    first, again = one(origin(minio())), one(origin(minio()))
    assert first == again
    assert RUN_PATTERN.fullmatch(first.run)
    assert one(origin(minio(versionId="v2"))).run != first.run
    assert one(origin(aws("default/a", eTag="x"))).run != one(origin(aws("default/a", eTag="y"))).run


def test_one_refused_entry_leaves_the_others() -> None:
    both = minio()
    both["Records"] += minio(name="s3:ObjectRemoved:Delete")["Records"]
    good, bad = read_objects(origin(both), PLACE)
    assert isinstance(good, ObjectRun)
    assert bad == RefusedObject(Reason.NOT_A_CREATION)


@given(st.text(min_size=1, max_size=300))
def test_a_derived_name_is_a_stream_and_its_own(key: str) -> None:
    media = MediaObject.model_construct(bucket="media", key=key)
    name = derived_stream(media)
    assert STREAM_PATTERN.fullmatch(name)
    assert name != derived_stream(MediaObject.model_construct(bucket="media", key=f"{key}x"))
    assert RUN_PATTERN.fullmatch(
        derived_run(MediaObject.model_construct(bucket="media", key="k"), key.replace("\ud800", ""))
    )


@pytest.mark.parametrize("field", ["sequencer", "eTag", "versionId", "key", "size"])
def test_a_lone_surrogate_is_refused_wherever_it_stands(field: str) -> None:
    """Valid JSON, and in no UTF-8."""
    what: dict[str, Any] = {"versionId": None, "eTag": None, "sequencer": "1"} | {field: "default/\ud800"}
    entry = minio(**what)
    assert refusal(origin(entry)) is Reason.INVALID_BODY


@pytest.mark.parametrize("sequencer", [None, 7, ["x"], {"a": 1}])
def test_a_sequencer_that_is_no_text_is_none(sequencer: Any) -> None:
    bare: dict[str, Any] = {"versionId": None, "eTag": None}
    assert one(origin(minio(**bare, sequencer=sequencer))).run == one(origin(minio(**bare, sequencer=""))).run


@pytest.mark.parametrize("name", [".", ".."])
def test_a_stream_is_not_called_like_a_way_in_a_path(name: str) -> None:
    assert refusal(event({"bucket": "media", "key": "default/a"}, key=name.encode())) is Reason.BAD_KEY
    assert one(origin(minio(), key=name.encode())).stream.startswith("my-film")
    for fine in (f"{name}a", f"a{name}", "...", f"{name}-", "a"):
        assert STREAM_PATTERN.fullmatch(fine)


def test_a_name_that_holds_what_is_redacted_is_a_hash() -> None:
    """Call recorders name files by number; a stream's name is in every record."""
    secret = ("202 555 0143", "4111 1111 1111 1111")

    def holds(name: str) -> bool:
        return any(number in name for number in secret)

    for key in ("default/2026-11-28_+1-202-555-0143.wav", "default/a+4111.1111.1111.1111.wav"):
        (run,) = read_objects(origin(minio(key=key), key=b"media/x"), PLACE, holds)
        assert isinstance(run, ObjectRun)
        assert len(run.stream) == 10
        (named,) = read_objects(origin(minio(key="default/a.wav"), key=b"call-202-555-0143"), PLACE, holds)
        assert isinstance(named, ObjectRun)
        assert named.stream.startswith("a.wav-")


def test_a_refused_object_leaves_a_mark_where_its_run_is_known() -> None:
    run = one(event({"bucket": "media", "key": "default/a"}))
    mark = mark_of(event(b"{}"), Reason.NOT_MEDIA, run)
    assert mark is not None
    assert (mark.kind, mark.tenant, mark.stream, mark.run) == (Type.REFUSED, "default", "film", RUN)
    assert mark.body == StreamRefused(reason=Reason.NOT_MEDIA)
    named = mark_of(event(b"nonsense"), Reason.BAD_JSON)
    assert named is not None
    assert (named.tenant, named.stream, named.run) == ("default", "film", RUN)
    for unknown in (event(b"", run="x"), event(b"", key=b".."), origin(minio()), origin(b"nonsense")):
        assert mark_of(unknown, Reason.BAD_JSON) is None


def test_a_key_that_is_a_stream_is_kept_and_minios_is_not() -> None:
    assert one(origin(minio(), key=b"my-stream")).stream == "my-stream"
    stream = one(origin(minio(), key=b"media/default/x")).stream
    assert stream.startswith("my-film-1-.mp3-")
    digest = hashlib.sha256(b"media\0default/my film(1).mp3").hexdigest()
    assert stream.endswith(digest[:10])


@pytest.mark.parametrize(
    "key",
    [
        "default/../acme/a", "default/./a", "default//a", "default/", "default", "/default/a", "default/a/",
        "default/%2e%2e/acme/a", "default/..%2facme/a", "default\\..\\acme", "default/a\0b", "default/a\nb", "acme/default/a",
    ],
)  # fmt: skip
def test_tricks_with_paths_stay_outside(key: str) -> None:
    assert not within(MediaObject(bucket="media", key=key), place_of("default", "media", "{tenant}/"))


def test_plain_keys_are_inside() -> None:
    for key in ("acme/a", "acme/b/c d.mp3", "acme/100%.mp3", "acme/ümlaut..wav"):
        assert within(MediaObject(bucket="media", key=key), place_of("acme", "media", "{tenant}/"))
    assert within(MediaObject(bucket="media", key="anything"), place_of("acme", "media", ""))


def test_batch_records_cover_the_audio_in_order() -> None:
    run = one(event({"bucket": "media", "key": "default/a"}))
    audio = Normalised("work", "normalised/x.pcm", 8000, 2, 8000 * 70 + 3)
    records = batch_records(run, RunOptions(redaction=()), audio)
    made = [encode_event(record, BATCH) for record in records]
    heads = [text_headers(message.headers) for message in made]
    assert [head["ce_type"] for head in heads] == [Type.STARTED, *[Type.CHUNK] * 3, Type.ENDED]
    assert StreamStarted.model_validate_json(made[0].value or b"").options.redaction == ()
    assert records[-1].body == StreamEnded(last_sequence=2)
    refs = [DataRef.model_validate_json(message.value or b"") for message in made[1:-1]]
    assert [(ref.offset, ref.length) for ref in refs] == [(0, 960_000), (960_000, 960_000), (1_920_000, 320_012)]
    assert [int(head["ce_firstsample"]) for head in heads[1:-1]] == [0, 240_000, 480_000]
    assert [int(head["ce_samples"]) for head in heads[1:-1]] == [240_000, 240_000, 80_003]
    assert heads[2]["ce_format"] == "audio/pcm;rate=8000;channels=2;encoding=s16le"
    assert heads[2]["ce_id"] == f"{RUN}/kaption.audio.chunk/1"
    assert all(head["ce_run"] == RUN and head["ce_received"] == "1234" for head in heads)


def test_muted_ranges_are_rounded_outwards() -> None:
    assert muted_samples(((1, 2), (10, 20)), 11_025) == ((11, 23), (110, 221))
