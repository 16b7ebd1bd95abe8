"""A consumer without work leaves the embedded broker, and so the machine, alone; records still come at once."""

import asyncio
import time

from aiokafka import AIOKafkaProducer, TopicPartition

from kaption.adapters.kafka import topics
from kaption.adapters.kafka.clients import Consumer, security
from kaption.testing.brokers import Broker
from kaption_schemas.topics import EVENTS
from tests.conftest import MakeSettings


async def test_an_idle_consumer_is_idle_and_a_record_comes_at_once(kafka: Broker, make_settings: MakeSettings) -> None:
    settings = make_settings(kafka)
    await topics.create(settings)
    async with (
        Consumer(EVENTS.name, **security(settings)) as consumer,
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


async def test_a_partition_that_is_resumed_is_read_soon(kafka: Broker, make_settings: MakeSettings) -> None:
    """A question that left it out is with the broker then, which Faust lets it hold for 1.5 s."""
    settings = make_settings(kafka)
    await topics.create(settings)
    paused, other = (TopicPartition(EVENTS.name, n) for n in range(2))
    async with (
        Consumer(**security(settings), auto_offset_reset="earliest", fetch_max_wait_ms=1500) as consumer,
        AIOKafkaProducer(**security(settings)) as producer,
    ):
        consumer.assign([paused, other])
        await producer.send_and_wait(EVENTS.name, b"x", partition=other.partition)
        assert await consumer.getmany(timeout_ms=10_000)
        took = []
        for _ in range(5):
            consumer.pause(paused)
            await producer.send_and_wait(EVENTS.name, b"x", partition=paused.partition)
            # What was asked before the pause comes back with the record, and is left; then the question is without it.
            await consumer.getmany(other, timeout_ms=300)
            consumer.resume(paused)
            start = time.monotonic()
            assert await consumer.getmany(paused, timeout_ms=10_000)
            took.append(time.monotonic() - start)
        assert sorted(took)[2] < 0.5
