"""The store's port against a real SeaweedFS."""

import asyncio
import gzip
import hashlib
import io
import itertools
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from minio.commonconfig import ENABLED
from minio.sse import SseCustomerKey
from minio.versioningconfig import VersioningConfig

from kaption.adapters.settings import Settings
from kaption.adapters.store.embedded import answers, create_buckets, missing_buckets
from kaption.adapters.store.s3 import ObjectStore, normalised_key
from kaption.domain.records import RunKey
from kaption.testing.store import EmbeddedStore
from kaption_schemas.errors import RefusedError, StoreError, StoreRefusedError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef, MediaObject
from tests.support.uploads import client, upload

_NAMES = itertools.count()
RUN = RunKey("default", "film", "01HZZZZZZZZZZZZZZZZZZZZZZZ")


class Place:
    """A bucket for media and one for work, of the test's own, and the port to them."""

    def __init__(self, store: EmbeddedStore, **fields: Any) -> None:
        number = next(_NAMES)
        self.bucket = f"media-{number}"
        self.settings = Settings(
            **(store.fields | {"media_bucket": self.bucket, "work_bucket": f"work-{number}"} | fields)
        )
        self.port = ObjectStore(self.settings)
        self.client = client(self.settings)

    def put(self, body: bytes, key: str = "default/a") -> MediaObject:
        made = upload(self.settings, key, body)
        return MediaObject(bucket=self.bucket, key=key, version=made.version_id, etag=made.etag)

    def refusal(self, media: MediaObject) -> Reason:
        with pytest.raises(RefusedError) as caught:
            self.port.fetch(media, io.BytesIO())
        return caught.value.reason


@pytest.fixture
def place(store: EmbeddedStore) -> Iterator[Place]:
    made = Place(store, object_max_bytes=1 << 20)
    made.port.ensure_bucket(made.bucket)
    made.port.prepare_work()
    yield made
    made.port.close()


def test_an_object_is_fetched_as_it_was_named(place: Place) -> None:
    body = os.urandom(900_000)
    media = place.put(body, "default/a name+with%signs ü.mp3")
    into = io.BytesIO()
    pinned = media.model_copy(update={"size": len(body), "sha256": hashlib.sha256(body).hexdigest()})
    assert place.port.fetch(pinned, into).size == len(body)
    assert into.getvalue() == body


def test_what_is_not_as_named_has_changed(place: Place) -> None:
    media = place.put(b"first")
    place.put(b"other")
    assert place.refusal(media) is Reason.OBJECT_CHANGED
    bare = MediaObject(bucket=place.bucket, key="default/a")
    assert place.refusal(bare.model_copy(update={"size": 4})) is Reason.OBJECT_CHANGED
    assert place.refusal(bare.model_copy(update={"sha256": "0" * 64})) is Reason.OBJECT_CHANGED


def test_an_object_that_changes_while_it_is_read_is_not_mixed(place: Place) -> None:
    media = MediaObject(bucket=place.bucket, key="default/a")
    place.put(b"a" * 100)
    stat = place.port.stat(media)
    place.put(b"b" * 100)
    assert place.refusal(media.model_copy(update={"etag": stat.etag})) is Reason.OBJECT_CHANGED


def test_a_version_is_read_though_there_is_a_newer_one(place: Place) -> None:
    place.client.set_bucket_versioning(place.bucket, VersioningConfig(ENABLED))
    old, new = place.put(b"old"), place.put(b"newer")
    assert old.version
    assert old.version != new.version
    into = io.BytesIO()
    place.port.fetch(old, into)
    assert into.getvalue() == b"old"
    assert place.refusal(old.model_copy(update={"version": "0" * 32, "etag": None})) is Reason.OBJECT_MISSING
    assert place.refusal(old.model_copy(update={"version": "nonsense", "etag": None})) is Reason.OBJECT_MISSING
    place.client.remove_object(place.bucket, "default/a")
    assert place.refusal(MediaObject(bucket=place.bucket, key="default/a")) is Reason.OBJECT_MISSING


def test_what_is_not_there_is_missing(place: Place) -> None:
    assert place.refusal(MediaObject(bucket=place.bucket, key="default/none")) is Reason.OBJECT_MISSING
    assert place.refusal(MediaObject(bucket="no-such-bucket", key="default/a")) is Reason.OBJECT_MISSING


def test_too_large_is_refused_before_it_is_read(place: Place) -> None:
    media = place.put(bytes((1 << 20) + 1))
    into = io.BytesIO()
    with pytest.raises(RefusedError) as caught:
        place.port.fetch(media, into)
    assert caught.value.reason is Reason.OBJECT_TOO_LARGE
    assert into.getvalue() == b""


def test_anothers_key_is_encrypted(place: Place) -> None:
    sent: dict[str, Any] = SseCustomerKey(b"0" * 32).headers()
    place.client._put_object(place.bucket, "default/a", b"secret", sent)  # the client asks for TLS before it sends keys
    assert place.refusal(MediaObject(bucket=place.bucket, key="default/a")) is Reason.OBJECT_ENCRYPTED


def test_a_content_encoding_is_not_undone(place: Place) -> None:
    """An object says of itself that it is gzip: undone on the way it would be a bomb, and not what was named."""
    body = gzip.compress(bytes(5_000_000))
    data = io.BytesIO(body)
    place.client.put_object(place.bucket, "default/a", data, len(body), metadata={"Content-Encoding": "gzip"})
    into = io.BytesIO()
    place.port.fetch(MediaObject(bucket=place.bucket, key="default/a"), into)
    assert into.getvalue() == body


class Endless:
    """Gives a number of bytes, then the end or an error."""

    def __init__(self, size: int, error: Exception | None = None) -> None:
        self._left, self._error = size, error

    def read(self, size: int = -1, /) -> bytes:
        if self._left == 0 and self._error:
            raise self._error
        taken = min(self._left, size if size >= 0 else self._left)
        self._left -= taken
        return b"x" * taken


def test_a_stream_is_stored_and_read_in_ranges(place: Place) -> None:
    bucket, key = place.settings.work_bucket, normalised_key(RUN)
    size = (33 << 20) + 7
    place.port.put(bucket, key, Endless(size))
    ref = DataRef(bucket=bucket, key=key, offset=(16 << 20) - 2, length=10)
    assert place.port.read(ref) == b"x" * 10
    beyond = ref.model_copy(update={"offset": size - 5})
    with pytest.raises(RefusedError) as caught:
        place.port.read(beyond)
    assert caught.value.reason is Reason.AUDIO_UNAVAILABLE
    place.port.delete_normalised(RUN)
    place.port.delete_normalised(RUN)
    with pytest.raises(RefusedError) as caught:
        place.port.read(ref)
    assert caught.value.reason is Reason.AUDIO_UNAVAILABLE


@pytest.mark.parametrize("size", [1000, 20 << 20])
def test_a_stream_that_fails_leaves_nothing(place: Place, size: int) -> None:
    key = normalised_key(RUN)
    with pytest.raises(RefusedError):
        place.port.put(place.settings.work_bucket, key, Endless(size, RefusedError(Reason.TRUNCATED)))
    assert list(place.client.list_objects(place.settings.work_bucket, recursive=True)) == []


def test_orphans_go_when_they_are_old(place: Place) -> None:
    bucket = place.settings.work_bucket
    place.port.put(bucket, normalised_key(RUN), Endless(10))
    place.port.put(bucket, "other/of-somebody", Endless(10))
    now = datetime.now(UTC)
    assert place.port.sweep(now) == 0
    assert place.port.sweep(now + timedelta(days=place.settings.work_expiry_days, minutes=1)) == 1
    assert [found.object_name for found in place.client.list_objects(bucket, recursive=True)] == ["other/of-somebody"]
    rule = place.client.get_bucket_lifecycle(bucket)
    assert rule is not None
    assert [found.rule_filter and found.rule_filter.prefix for found in rule.rules] == ["normalised/"]


async def test_buckets_are_made_once_and_missed(store: EmbeddedStore) -> None:
    place = Place(store)
    assert await missing_buckets(place.settings) == (place.bucket, place.settings.work_bucket)
    await create_buckets(place.settings)
    await create_buckets(place.settings)
    assert await missing_buckets(place.settings) == ()
    place.port.close()


def test_wrong_credentials_are_the_stores_fault_and_not_the_objects(place: Place, store: EmbeddedStore) -> None:
    media = place.put(b"here")
    wrong = Place(store, s3_secret_key="wrong")
    for _ in range(2):
        with pytest.raises(StoreRefusedError) as caught:
            wrong.port.fetch(media, io.BytesIO())
        assert "wrong" not in str(caught.value)
    wrong.port.close()


async def test_a_store_that_is_away_is_an_error_worth_another_try(port: int) -> None:
    settings = Settings(s3=f"http://127.0.0.1:{port}")
    assert not await answers(settings)
    away = ObjectStore(settings)
    with pytest.raises(StoreError):
        await asyncio.to_thread(away.has_bucket, "media")
    away.close()


async def test_a_killed_store_comes_back_with_what_it_had(tmp_path_factory: pytest.TempPathFactory) -> None:
    own = EmbeddedStore(tmp_path_factory.mktemp("own"))
    try:
        await own.start()
        place = Place(own)
        place.port.ensure_bucket(place.bucket)
        media = place.put(b"kept" * 1000)
        own.child.kill()
        await own.start()
        # Its volumes report to the master some seconds behind its first answer; agents try again in that time too.
        for _ in range(20):
            into = io.BytesIO()
            try:
                place.port.fetch(media, into)
                break
            except StoreError:
                await asyncio.sleep(1)
        assert into.getvalue() == b"kept" * 1000
        place.port.close()
    finally:
        own.stop()
    assert not [path for path in own._command.sockets if path.exists()]
