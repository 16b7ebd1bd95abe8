"""Normalises one object: the stored audio of a dead process is used again, and a full disk is not taken for a store's fault."""

import errno
import resource
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaption.adapters.media.files import MediaDecoder
from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore
from kaption.domain.intake.bucket_events import ObjectRun
from kaption_schemas.errors import LocalError, RefusedError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import MediaObject, RunOptions
from kaption_streams.normalise import Normaliser
from tests.support.fake_store import FakeStore
from tests.support.media import encode, tone

RUN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
PATH = "/media/default/a.wav"


def wanted(**fields: object) -> ObjectRun:
    return ObjectRun(
        "default", "film", RUN, MediaObject(bucket="media", key="default/a.wav").model_copy(update=fields), 0
    )


@pytest.fixture
def fake() -> Iterator[FakeStore]:
    with FakeStore() as made:
        made.objects[PATH] = encode(tone(2, 16_000, 2), 16_000)
        yield made


@pytest.fixture
def normalise(fake: FakeStore, tmp_path: Path) -> Iterator[Normaliser]:
    settings = Settings(**fake.fields, data=tmp_path)
    store, decoder = ObjectStore(settings), MediaDecoder(settings)
    yield Normaliser(settings, store, decoder, threading.Event())
    decoder.close()
    store.close()


def test_what_was_stored_of_this_very_object_is_used_again(fake: FakeStore, normalise: Normaliser) -> None:
    first = normalise(wanted())
    fetched = fake.asked.count(("GET", PATH))
    assert normalise(wanted()) == first
    assert (first.rate, first.channels, first.samples) == (16_000, 1, 32_000)
    assert fake.asked.count(("GET", PATH)) == fetched == 1
    split = normalise(wanted(options=RunOptions(channels="split")))
    assert (split.channels, split.samples) == (2, 32_000)
    normalise(wanted(muted=((0, 50),)))
    fake.objects[PATH] = encode(tone(3), 16_000)
    assert normalise(wanted()).samples == 48_000
    assert fake.asked.count(("GET", PATH)) == 4


def test_an_object_that_the_scratch_disk_can_never_hold_is_refused(fake: FakeStore, normalise: Normaliser) -> None:
    """A limit on this process's files stands for a disk that is too small."""
    fake.objects[PATH] = bytes(3 << 20)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(RefusedError) as caught:
            normalise(wanted())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.reason is Reason.OBJECT_EXCEEDS_SCRATCH


def test_a_scratch_disk_that_is_full_for_now_is_waited_for(normalise: Normaliser) -> None:
    disk = shutil.disk_usage(normalise.settings.data)
    with pytest.raises(LocalError, match="does not fit"), normalise._scratch((disk.free + disk.total) // 2):
        pass
    with pytest.raises(RefusedError), normalise._scratch(disk.total + 1):
        pass
    for number in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(LocalError), normalise._scratch(1):
            raise LocalError(OSError(number, "no"))
    with pytest.raises(LocalError), normalise._scratch(1):
        raise LocalError(OSError(errno.EIO, "no"))
