"""A lane's transaction is whole or nothing, also where aiokafka would commit it with a hole (promise 2; HAZARDS, aiokafka 1)."""

import asyncio
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from kaption.adapters.kafka import security
from kaption.adapters.settings import Settings
from kaption.domain.outputs import Latency
from kaption_gpu.lane_data import Draft, DraftStats, Source
from kaption_gpu.records import Message
from kaption_gpu.transactions import LaneWriter, TransactionFailedError
from kaption_schemas.topics import FINAL
from tests.support.brokers import ApacheNode
from tests.support.topics import create_topics

pytestmark = pytest.mark.apache


async def test_a_send_that_fails_fails_the_transaction(
    apache_kafka: ApacheNode, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(apache_kafka)
    await create_topics(settings)
    admin = AIOKafkaAdminClient(**security(settings))
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, FINAL.name, {"max.message.bytes": "2000"})])
    finally:
        await admin.close()
    await until_refused(settings)
    writer = LaneWriter(settings, Source(Latency.LIVE, 0))
    await writer.start()
    small, large = (Message(FINAL.name, b"call", b"x" * size, []) for size in (10, 5000))
    with pytest.raises(TransactionFailedError):
        await writer.commit(Draft((small, large, small), 0, (), DraftStats()))
    await writer.stop()
    successor = LaneWriter(settings, Source(Latency.LIVE, 0))
    await successor.start()
    await successor.commit(Draft((Message(FINAL.name, b"call", b"after", []),), 0, (), DraftStats()))
    await successor.stop()
    consumer = AIOKafkaConsumer(
        **security(settings), isolation_level="read_committed", auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(FINAL.name, 0)])
        seen = [record.value async for record in _until(consumer, b"after")]
    finally:
        await consumer.stop()
    assert seen == [b"after"], "a reader of committed records sees none of the failed transaction"


async def until_refused(settings: Settings) -> None:
    """Wait until the topic's new limit is in force: the broker applies it some time after it has said yes."""
    producer = AIOKafkaProducer(**security(settings), enable_idempotence=False)
    await producer.start()
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    await producer.send_and_wait(FINAL.name, b"x" * 5000, partition=1)
                except MessageSizeTooLargeError:
                    return
                await asyncio.sleep(0.1)
    finally:
        await producer.stop()


async def _until(consumer: AIOKafkaConsumer, last: bytes):  # type: ignore[no-untyped-def]  # aiokafka ships no types
    async for record in consumer:
        yield record
        if record.value == last:
            return
