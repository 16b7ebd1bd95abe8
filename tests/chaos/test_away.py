"""Broker or object store are away under four streams and files: `kaption up` is ready again without help within 30 s of their
return, and nothing is lost (promise 1). ``KAPTION_AWAY_SECONDS`` says for how long.
"""

import asyncio
import contextlib
import io
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from ulid import ULID

from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore
from kaption.client.publisher import Publisher
from kaption.service.aggregate import answers_ready
from kaption.testing.brokers import ApacheNode
from kaption.testing.pipeline import Record, committed, frames, reasons
from kaption.testing.store import EmbeddedStore
from kaption.testing.up import Up, running_up
from kaption_schemas.records import RunOptions
from kaption_schemas.topics import EVENTS
from tests.chaos.test_pipeline_kill import SECONDS, STREAMS, finals, wav
from tests.support.away import AWAY, LONGEST
from tests.support.pool import speech

pytestmark = [pytest.mark.timeout(290 + LONGEST), pytest.mark.apache, pytest.mark.long]

READY_SECONDS = 30
FILMS = ("before", "while")
log = logging.getLogger(__name__)


@pytest.fixture
async def own_store(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    """One that the test may take away."""
    running = EmbeddedStore(tmp_path / "store")
    await running.start()
    yield running
    running.stop()


async def speak(settings: Settings, records: list[Record], there: asyncio.Event) -> None:
    """Send at twice the pace of the speech; what the broker did not take is sent again once it is ``there``."""
    async with AIOKafkaProducer(**security(settings), acks="all") as producer:
        for key, value, headers in records:
            while True:
                await there.wait()
                with contextlib.suppress(KafkaError):
                    await producer.send_and_wait(EVENTS.name, value, key=key, headers=headers)
                    break
            await asyncio.sleep(0.05)


async def film(settings: Settings, stream: str) -> None:
    async with Publisher(settings) as publisher:
        options = RunOptions(redaction=())
        await publisher.object(settings.media_bucket, "default/film.wav", stream=stream, options=options)


async def play(up: Up, prefix: str, there: asyncio.Event, disturb: Callable[[], Awaitable[None]]) -> float:
    """Four live streams and a file each side of ``disturb``, which is in mid-sentence; returns when it was over."""
    settings = up.settings(partitions=4)
    runs = [frames(f"{prefix}-{name}", str(ULID()), *speech(piece, SECONDS)) for name, piece in STREAMS.items()]
    playing = [asyncio.create_task(speak(settings, run, there)) for run in runs]
    await asyncio.sleep(2)
    await film(settings, f"{prefix}-{FILMS[0]}")
    await disturb()
    over = time.monotonic()
    await film(settings, f"{prefix}-{FILMS[1]}")
    await asyncio.gather(*playing)
    return over


async def until_ready(up: Up) -> float:
    """Seconds until all of its processes are ready."""
    begin = time.monotonic()
    async with asyncio.timeout(READY_SECONDS):
        while not await answers_ready(up.http):
            await asyncio.sleep(0.2)
    return time.monotonic() - begin


async def check(up: Up, there: asyncio.Event, away: Callable[[], Awaitable[None]]) -> None:
    """Play twice, the second time with ``away``, and compare."""
    settings = up.settings(partitions=4)
    store = ObjectStore(settings)
    store.put(settings.media_bucket, "default/film.wav", io.BytesIO(wav("harbour-3-joe")))
    store.close()

    async def nothing() -> None:
        pass

    there.set()
    begin = await play(up, "calm", there, nothing)
    await committed(settings, 6)
    usual = time.monotonic() - begin
    begin = await play(up, "storm", there, away)
    records = await committed(settings, 12, usual + READY_SECONDS)
    took = time.monotonic() - begin
    log.warning(
        "all is there after %.1f s, %.1f s without a fault; %s", took, usual, up.child.output().splitlines()[1:]
    )
    calm, storm = finals(records, "calm"), finals(records, "storm")
    assert reasons(records) == []
    assert set(calm) == {*STREAMS, *FILMS}
    assert storm == calm


def environment(seconds: int) -> dict[str, str]:
    """An outage of ``seconds`` ends no segment, so that boundaries can be compared: the time without a record counts."""
    idle = str(60 + seconds)
    return {
        "KAPTION_REDACTION": "", "KAPTION_PARTITIONS": "4", "OMP_NUM_THREADS": "1", "KAPTION_IDLE_FINAL_SECONDS": idle,
    }  # fmt: skip


@pytest.mark.parametrize("seconds", AWAY)
async def test_the_broker(seconds: int, apache_kafka: ApacheNode, own_store: EmbeddedStore, tmp_path: Path) -> None:
    arguments, there = ("--kafka", apache_kafka.bootstrap, "--s3", own_store.fields["s3"]), asyncio.Event()
    async with running_up(tmp_path, arguments, environment(seconds)) as up:

        async def away() -> None:
            apache_kafka.kill()
            there.clear()
            await asyncio.sleep(seconds)
            await apache_kafka.start()
            log.warning("ready again after %.1f s", await until_ready(up))
            there.set()

        await check(up, there, away)


@pytest.mark.parametrize("seconds", AWAY)
async def test_the_object_store(
    seconds: int, apache_kafka: ApacheNode, own_store: EmbeddedStore, tmp_path: Path
) -> None:
    arguments, there = ("--kafka", apache_kafka.bootstrap, "--s3", own_store.fields["s3"]), asyncio.Event()
    async with running_up(tmp_path, arguments, environment(seconds)) as up:

        async def away() -> None:
            own_store.stop()
            async with asyncio.timeout(30):
                while await answers_ready(up.http):
                    await asyncio.sleep(0.1)
            await asyncio.sleep(seconds)
            await own_store.start()
            log.warning("ready again after %.1f s", await until_ready(up))

        await check(up, there, away)
