"""What the partials' writer says of itself: written, and shed only where one really was."""

import asyncio
from collections.abc import Callable

from kaption.adapters.settings import Settings
from kaption.testing.brokers import Broker
from kaption.testing.topics import create_topics
from kaption_gpu.lanes.transactions import PARTIALS_QUEUE, PartialsStats, PartialsWriter
from kaption_schemas.codec import Message
from kaption_schemas.topics import MIB, PARTIAL, Type


def message(size: int = 10, *, partial: bool = True) -> Message:
    return Message(PARTIAL.name, b"s", b"x" * size, [], Type.PARTIAL if partial else Type.PROGRESS)


async def test_partials_under_way_are_not_shed_and_those_that_the_producer_refuses_are(
    fresh_kafka: Broker, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(fresh_kafka)
    await create_topics(settings)
    writer = PartialsWriter(settings)
    writing = asyncio.create_task(writer.run())
    seen: set[int] = set()

    async def written(count: int) -> None:
        async with asyncio.timeout(30):
            while writer.stats.written < count:
                seen.add(writer.stats.shed)
                await asyncio.sleep(0)

    try:
        for _ in range(100):
            writer.offer(message(), 0)
        await written(100)
        assert seen == {0}
        writer.offer(message(2 * MIB), 0)
        writer.offer(message(2 * MIB, partial=False), 0)
        async with asyncio.timeout(30):
            while not writer.stats.shed:
                await asyncio.sleep(0.05)
        writer.offer(message(), 0)
        await written(101)
        assert writer.stats == PartialsStats(written=101, shed=1, waiting=0)
    finally:
        writing.cancel()
        await asyncio.wait([writing])


def test_a_full_queue_sheds_its_oldest_partials(make_settings: Callable[..., Settings]) -> None:
    writer = PartialsWriter(make_settings())
    writer.offer(message(partial=False), 0)
    for _ in range(PARTIALS_QUEUE + 1):
        writer.offer(message(), 0)
    assert writer.stats == PartialsStats(written=0, shed=1, waiting=PARTIALS_QUEUE)
