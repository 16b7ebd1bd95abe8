"""A lane waits for a file's audio while the store is away, and abandons it if the store works for all else (promise 1)."""

import asyncio
import logging

import pytest

from kaption.testing.objects import MemoryObjects
from kaption_gpu.lanes.chunk_reading import MOST_TRIES, ChunkReader, Read
from kaption_schemas.errors import RefusedError, StoreError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef

QUICK = (0.0001, 0.001)


class Store(MemoryObjects):
    """Answers 500 for one object; ``well`` says whether it works for others."""

    def __init__(self, *, well: bool) -> None:
        super().__init__()
        self.well = well
        self.tries = 0

    def read(self, ref: DataRef) -> bytes:
        self.tries += 1
        if ref.key == "gone":
            raise RefusedError(Reason.AUDIO_UNAVAILABLE)
        if ref.key == "bad" or not self.well:
            raise StoreError("the object store at http://store answered InternalError")
        return bytes(ref.length)

    def works(self) -> bool:
        return self.well


def ref(key: str) -> DataRef:
    return DataRef(bucket="kaption", key=key, offset=0, length=10)


async def test_one_object_that_the_store_cannot_give_is_given_up_and_its_further_pieces_soon(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, done = Store(well=True), list[int]()
    reader = ChunkReader(store, QUICK)
    with caplog.at_level(logging.WARNING, "kaption_gpu"):
        assert await reader.read(ref("bad"), "lane", lambda: done.append(1)) == Read(None, MOST_TRIES + 1)
    assert done == [1]
    assert vars(caplog.records[0])["cause"] == "the object store at http://store answered InternalError"
    assert await reader.read(ref("bad"), "lane", lambda: None) == Read(None, 2)
    assert await reader.read(ref("good"), "lane", lambda: None) == Read(bytes(10), 1)
    assert await reader.read(ref("gone"), "lane", lambda: None) == Read(None, 1)


async def test_a_store_that_is_away_is_waited_for_however_long_it_takes() -> None:
    store = Store(well=False)
    reading = asyncio.create_task(ChunkReader(store, QUICK).read(ref("good"), "lane", lambda: None))
    async with asyncio.timeout(20):
        while store.tries < 3 * MOST_TRIES:
            await asyncio.sleep(0.01)
    assert not reading.done()
    store.well = True
    found = await reading
    assert (found.body, found.tries > 3 * MOST_TRIES) == (bytes(10), True)


class Returning(Store):
    """A store that is away for a number of reads, and back before the check whether it works."""

    def read(self, ref: DataRef) -> bytes:
        self.well = self.tries >= MOST_TRIES
        return super().read(ref)

    def works(self) -> bool:
        return True


async def test_a_store_that_comes_back_between_a_read_and_the_probe_loses_nothing() -> None:
    found = await ChunkReader(Returning(well=False), QUICK).read(ref("good"), "lane", lambda: None)
    assert found == Read(bytes(10), MOST_TRIES + 1)
