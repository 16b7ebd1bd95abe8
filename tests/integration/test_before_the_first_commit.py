"""What an agent has read before its first commit is read again after a rebalance, as it is after a commit (HAZARDS, faust 15)."""

import asyncio
from collections.abc import Callable
from typing import Any

from kaption.adapters.settings import Settings
from kaption.testing.brokers import Broker
from kaption.testing.pipeline import frames, publish
from kaption.testing.topics import create_topics
from kaption_schemas.topics import EVENTS
from kaption_streams.app import input_topic, make_app
from tests.support.pool import speech

RUN = f"01K{'0' * 22}4"


async def test_a_partition_without_a_commit_is_read_from_its_beginning(
    kafka: Broker, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(kafka)
    await create_topics(settings)
    app = make_app(settings, "seeking")
    app.conf.stream_wait_empty = False  # nothing is acknowledged
    read: list[int] = []

    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            read.append(event.message.offset)  # noqa: PERF401  # they are looked at meanwhile

    app.agent(input_topic(app, settings, EVENTS), concurrency=1)(agent)
    count = len(frames("call", RUN, *speech("harbour-2-slt", 1)))

    async def have(expected: list[int]) -> None:
        async with asyncio.timeout(40):
            while len(read) < len(expected):
                await asyncio.sleep(0.05)
        assert read == expected

    await app.start()
    try:
        await publish(settings, frames("call", RUN, *speech("harbour-2-slt", 1)), per_second=200)
        await have([*range(count)])
        # What Faust does once partitions are assigned; what it had fetched until then it has dropped.
        await app.consumer.perform_seek()
        await have([*range(count), *range(count)])
    finally:
        await app.stop()
