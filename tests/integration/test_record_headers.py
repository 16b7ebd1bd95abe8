"""A record whose header names are no UTF-8 is refused like any other, and stops nothing behind it."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from bench.debian import kcat
from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.testing.brokers import Broker
from kaption.testing.pipeline import agent, frames, publish, ready
from kaption.testing.topics import create_topics
from kaption_schemas.headers import text_headers
from kaption_schemas.topics import DLQ, EVENTS, LIVE, Type
from tests.support.pool import speech

pytestmark = pytest.mark.timeout(120)


def write_odd(settings: Settings) -> None:
    """Two records that only a client which does not look at header names writes."""
    found = kcat()
    if found is None:
        pytest.skip("kcat comes from Debian's packages, and there is no apt here")
    folder, environment = found
    command = [str(folder / "kcat"), "-b", settings.kafka, "-P", "-t", EVENTS.name, "-p", "0", "-k", "odd"]
    for _ in range(2):
        subprocess.run(
            [*command, "-H", b"\xff\xfe=1", "-H", "fine=2"], input=b"x", env=os.environ | environment, check=True
        )


async def test_an_odd_header_name_stops_nothing(
    kafka: Broker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(kafka, partitions=1)
    await create_topics(settings)
    pcm, rate = speech("harbour-2-slt", 1)
    good = frames("call", f"01K{'0' * 22}6", pcm, rate)
    await publish(settings, good[:5], per_second=500)
    await asyncio.to_thread(write_odd, settings)
    await publish(settings, good[5:], per_second=500)
    seen: list[ConsumerRecord] = []
    with agent(settings, tmp_path / "agent.log").during() as child:
        async with Consumer(**security(settings), auto_offset_reset="earliest") as consumer:
            await ready(child)
            consumer.assign([TopicPartition(name, 0) for name in (EVENTS.name, LIVE.name, DLQ.name)])
            async with asyncio.timeout(40):
                while len(seen) < 2 * (len(good) + 2):
                    for batch in (await consumer.getmany(timeout_ms=200)).values():
                        seen += batch
    letters = [r for r in seen if r.topic == DLQ.name]
    assert [text_headers(r.headers)["errors.reason"] for r in letters] == ["bad_headers"] * 2
    assert [r.headers[:2] for r in letters] == [(("\ufffd\ufffd", b"1"), ("fine", b"2"))] * 2
    kinds = [text_headers(r.headers)["ce_type"] for r in seen if r.topic == LIVE.name]
    assert kinds == [Type.CHUNK] * (len(good) - 1) + [Type.ENDED]
    assert [r.offset for r in seen if r.topic == EVENTS.name] == list(range(len(good) + 2))
