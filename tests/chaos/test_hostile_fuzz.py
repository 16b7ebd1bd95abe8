"""Sends random records to a running agent for minutes: they do not affect another tenant's run.

``KAPTION_FUZZ_SECONDS`` makes it longer (default 60), ``KAPTION_FUZZ_SEED`` makes it another.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.testing.brokers import Broker
from kaption.testing.pipeline import agent, frames, ready
from kaption.testing.topics import create_topics
from kaption_schemas.headers import event_headers, pcm_type, sequence
from kaption_schemas.topics import EVENTS, LIVE, MIB, Type, topic_name
from tests.support.batches import write
from tests.support.fuzzing import RUN, Hostile
from tests.support.pool import speech

SECONDS = float(os.environ.get("KAPTION_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("KAPTION_FUZZ_SEED", "1"))
HOSTILE, QUIET = "acme", "globex"

pytestmark = [pytest.mark.long, pytest.mark.timeout(SECONDS + 240)]


async def test_no_record_ends_an_agent_or_keeps_another_tenant_waiting(
    kafka: Broker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(kafka, partitions=2, tenants=f"default,{HOSTILE},{QUIET}")
    await create_topics(settings)
    child = agent(settings, tmp_path / "agent.log")
    child.spawn()
    hostile, took = Hostile(SEED, broken=kafka.durable), list[float]()
    taken = 0
    pcm, rate = speech("harbour-2-slt", 1)
    (key, value, _), *_ = frames("call", RUN, pcm, rate)
    try:
        await ready(child)
        pid = child.pid
        end = time.monotonic() + SECONDS
        consumer = Consumer(**security(settings), auto_offset_reset="latest")
        async with consumer, AIOKafkaProducer(**security(settings)) as producer:
            places = [TopicPartition(LIVE.name, n) for n in range(settings.partitions)]
            consumer.assign(places)
            await asyncio.gather(*map(consumer.position, places))
            number = 0
            while time.monotonic() < end:
                for _ in range(3):
                    data = hostile.batch()
                    if len(data) < MIB:
                        error = await write(settings.kafka, topic_name(EVENTS, HOSTILE), data, number % 2)
                        taken += error.errno == 0
                place = {"sequence": sequence(number), "firstsample": str(number * 1600)}
                head = event_headers(
                    Type.FRAME, id=str(number), source="/t", run=RUN, extra=place, content_type=pcm_type(rate, 1)
                )
                begin = time.monotonic()
                await producer.send_and_wait(topic_name(EVENTS, QUIET), value, key=key, headers=head)
                async with asyncio.timeout(30):
                    while not any(
                        record.key == f"{QUIET}/call".encode()
                        for records in (await consumer.getmany(timeout_ms=100)).values()
                        for record in records
                    ):
                        pass
                took.append(time.monotonic() - begin)
                number += 1
            assert (child.running, child.pid) == (True, pid), child.output()
    finally:
        child.stop()
    took.sort()
    logging.getLogger(__name__).warning(
        "%d batches taken, frames %d, p95 %.2f s", taken, len(took), took[-len(took) // 20]
    )
    assert "stage_failed" not in child.log.read_text(), "it is a dead letter, and a fault of ours all the same"
    assert took[len(took) // 2] < 2
