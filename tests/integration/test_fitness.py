"""Who is to blame for an object that failed: the store, this machine, or the object."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kaption.adapters.media.files import MediaDecoder
from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore
from kaption_schemas.errors import ProcessError, StoreError
from kaption_streams.fitness import Fitness, pause
from tests.support.fake_store import FakeStore


@pytest.fixture
def fake() -> Iterator[FakeStore]:
    with FakeStore() as made:
        yield made


class Made:
    """A fitness over a real decoder, and how often it was fit again."""

    def __init__(self, fake: FakeStore, data: Path) -> None:
        settings = Settings(**fake.fields, data=data)
        self.decoder = MediaDecoder(settings)
        self.again = asyncio.Event()
        self.fitness = Fitness(ObjectStore(settings), self.decoder, self.again.set)

    async def fit(self) -> None:
        async with asyncio.timeout(20):
            await self.again.wait()
        self.again.clear()
        assert self.fitness.fit


@pytest.fixture
async def made(fake: FakeStore, tmp_path: Path) -> AsyncIterator[Made]:
    made = Made(fake, tmp_path)
    made.fitness.start()
    yield made
    await made.fitness.stop()
    made.decoder.close()


async def test_an_object_is_to_blame_where_all_else_is_well(made: Made) -> None:
    assert not made.fitness.fit
    await made.fit()
    for error in (StoreError("answered 451"), ProcessError("lost"), OSError()):
        assert await made.fitness.blames(error)
    assert made.fitness.fit


async def test_a_store_that_takes_nothing_is_to_blame_until_it_does(made: Made, fake: FakeStore) -> None:
    await made.fit()
    fake.mood = lambda method, _path: 507 if method == "PUT" else None
    assert not await made.fitness.blames(StoreError("answered 507"))
    assert not made.fitness.fit
    assert not await made.fitness.blames(StoreError("another's")), "nor is any other meanwhile"
    fake.mood = lambda _method, _path: None
    await made.fit()


async def test_a_machine_that_can_start_no_child_is_to_blame(made: Made) -> None:
    await made.fit()
    made.decoder.close()
    assert not await made.fitness.blames(ProcessError("none can be started"))
    assert not made.fitness.fit


def test_pauses_grow_to_a_quarter_of_a_minute() -> None:
    pauses = [pause(tries) for tries in range(1, 12)]
    assert pauses[:6] == [0.5, 1, 2, 4, 8, 15]
    assert set(pauses[5:]) == {15}
    assert 90 < sum(pauses) < 150
