"""The pool's reader on a real broker: no lane waits until a busier one has read all that there is."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiokafka import AIOKafkaProducer, TopicPartition

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.domain.records import Latency
from kaption.testing.brokers import Broker
from kaption.testing.topics import create_topics
from kaption_gpu.lanes.data import Source
from kaption_gpu.lanes.polling import Reader
from kaption_gpu.lanes.transactions import NO_TRACING
from kaption_schemas.topics import LIVE, MIB

BUSY, CALM = (TopicPartition(LIVE.name, number) for number in (0, 1))
MANY = 20_000


class NotingLane:
    """Counts what it is offered."""

    paused = False

    def __init__(self, tp: TopicPartition) -> None:
        self.source = Source(Latency.LIVE, tp.partition)
        self.taken = 0

    def offer(self, batch: list[Any]) -> None:
        self.taken += len(batch)

    def pump(self) -> None:
        """Nothing to hand on."""


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_lane_with_little_to_read_does_not_wait_for_one_with_much(
    fresh_kafka: Broker, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(fresh_kafka)
    await create_topics(settings)
    lanes = {tp: NotingLane(tp) for tp in (BUSY, CALM)}
    async with (
        AIOKafkaProducer(**security(settings), linger_ms=50) as producer,
        Consumer(
            **security(settings),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=8 * MIB,
        ) as consumer,
    ):
        for _ in range(MANY):
            await producer.send(BUSY.topic, b"x", partition=BUSY.partition)
        await producer.flush()
        consumer.assign([BUSY, CALM])
        reader = Reader(consumer, cast(Any, lanes), NO_TRACING, lambda: None, lambda: False)
        reading = asyncio.create_task(reader.run())
        await until(lambda: lanes[BUSY].taken > 0)
        await producer.send_and_wait(CALM.topic, b"x", partition=CALM.partition)
        await until(lambda: lanes[CALM].taken > 0)
        assert lanes[BUSY].taken < MANY
        reader.stop()
        await reading
