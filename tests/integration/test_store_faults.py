"""What the store's port makes of a store that answers wrongly, and of a machine whose disk is full."""

import errno
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore
from kaption.adapters.store.upload import upload
from kaption_schemas.errors import LocalError, RefusedError, StoreError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef, MediaObject
from tests.support.fake_store import FakeStore

MEDIA = MediaObject(bucket="media", key="default/a.wav")
REF = DataRef(bucket="kaption", key="normalised/a", offset=0, length=2)


@pytest.fixture
def fake() -> Iterator[FakeStore]:
    with FakeStore() as made:
        made.objects["/media/default/a.wav"] = b"sound"
        yield made


@pytest.fixture
def port(fake: FakeStore) -> Iterator[ObjectStore]:
    made = ObjectStore(Settings(**fake.fields))
    yield made
    made.close()


@pytest.mark.parametrize("status", [307, 401, 409, 410, 411, 414, 416, 429, 431, 451, 500, 501, 503])
def test_any_answer_is_an_error_that_says_what_the_store_said(fake: FakeStore, port: ObjectStore, status: int) -> None:
    fake.mood = lambda _method, path: status if "a.wav" in path else None
    for _ in range(2):
        with pytest.raises((StoreError, RefusedError)) as caught:
            port.stat(MEDIA)
        if status == 501:  # which minio takes for a marker of what was deleted
            assert caught.value.args == RefusedError(Reason.OBJECT_MISSING).args
        else:
            assert "answered" in str(caught.value)
    port.probe()


@pytest.mark.parametrize("body", [b"", b"<Error", b"<html>\xff</html>", b"<Error/>"])
def test_an_error_that_can_not_be_read_is_the_stores(fake: FakeStore, port: ObjectStore, body: bytes) -> None:
    """What minio's parser of XML raises is no error of its own, and would refuse the object."""
    fake.mood, fake.error = lambda method, _path: None if method == "HEAD" else 500, body
    for work in (lambda: port.fetch(MEDIA, BytesIO()), lambda: port.read(REF), port.probe):
        with pytest.raises(StoreError, match="answered"):
            work()


@pytest.mark.parametrize("code", ["ExpiredToken", "AuthorizationHeaderMalformed"])
def test_credentials_that_expired_are_no_fault_of_an_object(fake: FakeStore, port: ObjectStore, code: str) -> None:
    """AWS says so with the status 400, as it does of an object that is encrypted by another's key."""
    fake.mood, fake.error = lambda _method, _path: 400, f"<Error><Code>{code}</Code></Error>".encode()
    for media in (MEDIA, MEDIA.model_copy(update={"version": "v1"})):
        with pytest.raises(StoreError, match="answered"):
            port.stat(media)
    fake.error = b"<Error><Code>InvalidRequest</Code><Message>stored by Server Side Encryption</Message></Error>"
    with pytest.raises(RefusedError) as caught:
        port.stat(MEDIA)
    assert caught.value.reason is Reason.OBJECT_ENCRYPTED


def test_an_object_that_a_loaded_store_does_not_find_at_once_is_not_missing(fake: FakeStore, port: ObjectStore) -> None:
    """An embedded store on a machine with five times the work that it has cores for said so once of an object that it held."""
    answers = iter([404])
    fake.mood = lambda method, _path: next(answers, None) if method == "HEAD" else None
    assert port.stat(MEDIA).size == len(b"sound")
    fake.mood = lambda _method, _path: 404
    with pytest.raises(RefusedError) as caught:
        port.stat(MEDIA)
    assert caught.value.reason is Reason.OBJECT_MISSING


def test_a_store_that_answers_is_not_one_that_is_away(fake: FakeStore, port: ObjectStore) -> None:
    fake.mood = lambda _method, _path: 503
    with pytest.raises(StoreError, match="answered 503"):
        port.stat(MEDIA)
    with pytest.raises(StoreError, match="answered Moody"):
        port.probe()
    fake.stop()
    with pytest.raises(StoreError, match=r"no object store answers at .*NewConnectionError"):
        port.probe()


def test_a_full_disk_is_not_the_stores_fault(port: ObjectStore) -> None:
    with Path("/dev/full").open("wb", 0) as full, pytest.raises(LocalError) as caught:
        port.fetch(MEDIA, full)
    assert caught.value.number == errno.ENOSPC


def test_what_can_not_be_read_here_is_not_the_stores_fault(port: ObjectStore) -> None:
    class Broken:
        def read(self, _size: int = -1, /) -> bytes:
            raise OSError(errno.EIO, "no")

    with pytest.raises(LocalError):
        port.put("kaption", "normalised/x", Broken())


def test_a_version_is_the_one_that_was_named(port: ObjectStore) -> None:
    """A store without versions reads the current object, whatever version it is asked for."""
    assert port.stat(MEDIA.model_copy(update={"version": "null"})).size == 5
    with pytest.raises(RefusedError) as caught:
        port.stat(MEDIA.model_copy(update={"version": "nope"}))
    assert caught.value.reason is Reason.OBJECT_CHANGED


def test_the_clock_is_the_stores(fake: FakeStore, port: ObjectStore) -> None:
    fake.ahead = 7 * 86_400
    assert abs(port.probe() - (datetime.now(UTC) + timedelta(days=7))) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("status", "remedy"), [(503, "try again later"), (403, "check KAPTION_S3_ACCESS_KEY"), (None, "start it")]
)
def test_an_upload_says_what_to_do(fake: FakeStore, tmp_path: Path, status: int | None, remedy: str) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    fake.mood = lambda _method, _path: status
    if status is None:
        fake.stop()
    with pytest.raises(StoreError, match=remedy) as caught:
        upload(Settings(**fake.fields), "acme", tmp_path / "a.wav", "a.wav", lambda _: None)
    assert caught.value.retry == (status is None)


def test_an_upload_that_can_not_be_read_back_says_so(fake: FakeStore, tmp_path: Path) -> None:
    """Credentials may write and not read: the store says 403 of the object, and not of its bucket."""
    (tmp_path / "a.wav").write_bytes(b"sound")
    fake.mood = lambda method, path: 403 if method in ("HEAD", "GET") and path.endswith("a.wav") else None
    with pytest.raises(StoreError, match="can't be read back") as caught:
        upload(Settings(**fake.fields), "acme", tmp_path / "a.wav", "a.wav", lambda _: None)
    assert not caught.value.retry


def test_an_upload_goes_where_the_agent_looks(fake: FakeStore, tmp_path: Path) -> None:
    """Whatever else of braces the prefix has."""
    (tmp_path / "a.wav").write_bytes(b"sound")
    prefix: dict[str, Any] = {"media_prefix": "in/{tenant}/{0}/"}
    made = upload(Settings(**fake.fields, **prefix), "acme", tmp_path / "a.wav", "a.wav", lambda _: None)
    assert made.key == "in/acme/{0}/a.wav"
    assert "/media/in/acme/{0}/a.wav" in fake.objects
