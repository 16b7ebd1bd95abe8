"""An agent reads on when its queue has room, and does not stand still beside records that are at hand."""

import asyncio
import itertools
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from kaption.adapters.kafka.clients import security
from kaption.testing.brokers import ApacheNode
from kaption.testing.topics import create_topics
from kaption_schemas.topics import EVENTS
from kaption_streams.app import input_topic, make_app
from tests.conftest import MakeSettings

#: Five answers of the broker, each more than a stream's queue holds.
MANY, BYTES = 2000, 2500


@pytest.mark.apache
@pytest.mark.parametrize("partitions", [1, 2], ids=["all that it has is held", "a silent partition beside it"])
async def test_a_busy_partition_is_read_without_pauses(
    apache_kafka: ApacheNode, make_settings: MakeSettings, partitions: int
) -> None:
    settings = make_settings(apache_kafka, partitions=partitions)
    await create_topics(settings)
    async with AIOKafkaProducer(**security(settings), linger_ms=20) as producer:
        sends = [await producer.send(EVENTS.name, bytes(BYTES), partition=0) for _ in range(MANY)]
        await asyncio.gather(*sends)
    app = make_app(settings, "reading")
    times: list[float] = []
    finished = asyncio.Event()

    async def agent(stream: Any) -> None:  # Faust ships no types
        async for _ in stream.events():
            times.append(time.monotonic())
            if len(times) == MANY:
                finished.set()
            await asyncio.sleep(0.0005)  # as work takes time, so that the queue fills

    app.agent(input_topic(app, settings, EVENTS), name="reading", concurrency=1)(agent)
    await app.start()
    try:
        await asyncio.wait_for(finished.wait(), 60)
    finally:
        await app.stop()
    # Faust alone stands still for most of a second after nearly every answer; one pause a loaded machine may make.
    assert sum(after - before > 0.5 for before, after in itertools.pairwise(times)) <= 1
