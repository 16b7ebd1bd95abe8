"""A consumer without work leaves the embedded broker, and so the machine, alone; records still come at once."""

import asyncio
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from kaption.adapters import topics
from kaption.adapters.kafka import security
from kaption_schemas.topics import EVENTS
from tests.conftest import MakeSettings
from tests.support.brokers import Broker


async def test_an_idle_consumer_is_idle_and_a_record_comes_at_once(kafka: Broker, make_settings: MakeSettings) -> None:
    settings = make_settings(kafka)
    await topics.create(settings)
    async with (
        AIOKafkaConsumer(EVENTS.name, **security(settings)) as consumer,
        AIOKafkaProducer(**security(settings)) as producer,
    ):
        await consumer.getmany(timeout_ms=1000)
        before = time.process_time()
        assert not await consumer.getmany(timeout_ms=3000)
        assert time.process_time() - before < 0.6  # 2.3 s where nothing pauses
        took = []
        for _ in range(10):
            asked = asyncio.create_task(consumer.getone())
            await asyncio.sleep(0.1)
            start = time.monotonic()
            await producer.send_and_wait(EVENTS.name, b"x")
            await asked
            took.append(time.monotonic() - start)
        assert sorted(took)[5] < 0.1
