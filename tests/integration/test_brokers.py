"""The fixtures themselves: each broker answers, takes the topic map, and comes back after a stop."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from kaption.testing.brokers import ApacheNode, Broker
from kaption.testing.topics import create_topics, wipe_topics
from kaption_schemas.topics import EVENTS
from tests.conftest import MakeSettings


async def send(bootstrap: str, topic: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, b"value", key=b"key", partition=0)


async def read(bootstrap: str, topic: str) -> bytes:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        record = await asyncio.wait_for(consumer.getone(), 20)
        return bytes(record.value)


async def end_offset(bootstrap: str, topic: str) -> int:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        where = TopicPartition(topic, 0)
        return int((await consumer.end_offsets([where]))[where])


async def test_a_broker_takes_the_topic_map_and_keeps_a_record_over_a_clean_stop(
    every_kafka: Broker, make_settings: MakeSettings
) -> None:
    settings = make_settings(every_kafka, tenants="default,acme")
    await create_topics(settings)
    await create_topics(settings)  # a second time is no error
    await send(settings.kafka, f"acme.{EVENTS.name}")
    every_kafka.stop()
    await every_kafka.start()
    assert await read(settings.kafka, f"acme.{EVENTS.name}") == b"value"


async def test_a_wiped_broker_starts_from_nothing(kafka: Broker, make_settings: MakeSettings) -> None:
    settings = make_settings(kafka)
    await create_topics(settings)
    await send(settings.kafka, EVENTS.name)
    await wipe_topics(settings.kafka)
    await create_topics(settings)
    assert await end_offset(settings.kafka, EVENTS.name) == 0


async def test_apache_kafka_keeps_an_acknowledged_record_over_a_kill(
    apache_kafka: ApacheNode, make_settings: MakeSettings
) -> None:
    settings = make_settings(apache_kafka)
    await create_topics(settings)
    await send(settings.kafka, EVENTS.name)
    apache_kafka.kill()
    await apache_kafka.start()
    assert await read(settings.kafka, EVENTS.name) == b"value"
