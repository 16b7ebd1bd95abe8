"""A lane's transaction is whole or nothing, also where aiokafka would commit it with a hole (promise 2; HAZARDS, aiokafka 1)."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.processes.tcp_ports import free_port
from kaption.adapters.settings import Settings
from kaption.domain.records import Latency
from kaption.testing.brokers import ApacheNode
from kaption.testing.topics import create_topics
from kaption_gpu.lanes.data import Draft, DraftStats, Source
from kaption_gpu.lanes.reach import GRACE_SECONDS, Reach
from kaption_gpu.lanes.transactions import LaneWriter
from kaption_schemas.codec import Message
from kaption_schemas.errors import LaneError
from kaption_schemas.topics import FINAL, topic_name
from tests.support.proxy import END_TXN, PRODUCE, HoldingProxy

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
    with pytest.raises(LaneError):
        await writer.commit(Draft((small, large, small), 0, (), DraftStats()))
    await writer.stop()
    successor = LaneWriter(settings, Source(Latency.LIVE, 0))
    await successor.start()
    await successor.commit(Draft((Message(FINAL.name, b"call", b"after", []),), 0, (), DraftStats()))
    await successor.stop()
    consumer = Consumer(
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


async def test_a_late_end_commits_nothing_of_the_next_transaction(
    apache_home: Path, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    """KAFKA-17754: the network holds the request back, and its connection breaks; then the next transaction is under way."""
    port = free_port()
    node = ApacheNode(apache_home, tmp_path / "kafka", [f"advertised.listeners=CLIENT://127.0.0.1:{port}"])
    async with HoldingProxy(port, node.port) as proxy:
        await node.start()
        try:
            settings = make_settings(node, kafka=f"127.0.0.1:{port}", partitions=1)
            await create_topics(settings)
            source = Source(Latency.LIVE, 0)

            def final(name: str, size: int = 100) -> Message:
                return Message(FINAL.name, b"call", name.encode().ljust(size, b"."), [("ce_id", name.encode())])

            first = LaneWriter(settings, source)
            await first.start()
            await first.claim()
            proxy.hold = END_TXN
            with pytest.raises(LaneError):
                await first.commit(Draft((final("A"),), 1, (), DraftStats()))
            assert proxy.holding
            await first.stop()
            second = LaneWriter(settings, source)
            await second.start()
            await second.claim()
            # Batches of their own, so that the transaction has a middle.
            proxy.let_go_at = PRODUCE
            await second.commit(Draft(tuple(final(f"B{number}", 15_000) for number in range(3)), 2, (), DraftStats()))
            await second.stop()
            assert proxy.answers
            assert proxy.answers[0] != 0, "the producer's new epoch refuses it"
            consumer = Consumer(
                **security(settings),
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                enable_auto_commit=False,
            )
            await consumer.start()
            try:
                consumer.assign([TopicPartition(FINAL.name, 0)])
                seen = [
                    record.value.rstrip(b".") async for record in _until(consumer, final("B2", 15_000).value or b"")
                ]
            finally:
                await consumer.stop()
            assert seen == [b"B0", b"B1", b"B2"]
        finally:
            node.kill()


async def test_a_tenant_whose_topics_are_gone_holds_nobody_up_for_long(
    apache_kafka: ApacheNode, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(apache_kafka, tenants=("default", "acme"), partitions=1, transaction_timeout_ms=3000)
    await create_topics(settings)
    admin = AIOKafkaAdminClient(**security(settings))
    await admin.start()
    try:
        await admin.delete_topics([topic_name(FINAL, "acme")])
    finally:
        await admin.close()
    now = [0.0]
    reach = Reach(lambda: now[0])
    source, theirs = Source(Latency.LIVE, 0), topic_name(FINAL, "acme")
    draft = Draft((Message(theirs, b"a", b"lost", []), Message(FINAL.name, b"b", b"kept", [])), 1, (), DraftStats())
    writer = LaneWriter(settings, source, reach=reach)
    await writer.start()
    with pytest.raises(LaneError):
        await writer.commit(draft)
    await writer.stop()
    assert reach.shed(theirs)
    assert not reach.shed(FINAL.name)
    now[0] = GRACE_SECONDS
    writer = LaneWriter(settings, source, reach=reach)
    await writer.start()
    assert await writer.commit(draft) == 1
    await create_topics(settings)
    now[0] += GRACE_SECONDS
    assert await writer.commit(draft) == 0, "it is there again"
    await writer.stop()
    assert not reach.shed(theirs)
