"""A process that must end does, within ten seconds, whatever it waits for; and one that waits comes back by itself."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.processes.supervisor import Backoff, Supervisor
from kaption.adapters.processes.tcp_ports import free_port
from kaption.adapters.settings import Settings
from kaption.cli.pipeline import instances
from kaption.testing.brokers import ApacheNode, EmbeddedBroker
from kaption.testing.pipeline import agent, frames, publish, ready, worker
from kaption.testing.processes import Child
from kaption.testing.store import EmbeddedStore
from kaption.testing.topics import create_topics
from kaption_schemas.topics import EVENTS, LIVE
from tests.support.away import AWAY, LONGEST
from tests.support.pool import speech

pytestmark = pytest.mark.timeout(180)
RUN = f"01K{'0' * 22}8"
#: What is promised, and a second for a loaded machine.
SECONDS = 11.0
MakeSettings = Callable[..., Settings]


def files(settings: Settings, log: Path) -> Child:
    return agent(settings, log, "files")


async def ended(child: Child) -> float:
    """Seconds from SIGTERM to the end."""
    begin = time.monotonic()
    child.signal(signal.SIGTERM)
    try:
        await asyncio.to_thread(child.wait, SECONDS)
    finally:
        child.kill()
    return time.monotonic() - begin


async def test_all_end_on_sigterm_while_the_broker_is_silent(
    fresh_kafka: EmbeddedBroker, store: EmbeddedStore, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(fresh_kafka, **store.fields)
    await create_topics(settings)
    children = [agent(settings, tmp_path / "live.log"), files(settings, tmp_path / "files.log")]
    children.append(worker(settings, tmp_path / "pool.log"))
    for child in children:
        child.spawn()
    try:
        for child in children:
            await ready(child)
        pcm, rate = speech("harbour-2-slt", 2)
        await publish(settings, frames("call", RUN, pcm, rate)[:-1], per_second=100)
        fresh_kafka.child.pause()
        await asyncio.gather(*map(ended, children))
    finally:
        fresh_kafka.child.resume()
        for child in children:
            child.kill()


async def test_a_file_agent_ends_while_the_store_is_away(
    fresh_kafka: EmbeddedBroker, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(fresh_kafka, s3=f"http://127.0.0.1:{free_port()}")
    await create_topics(settings)
    with files(settings, tmp_path / "files.log").during() as child:
        await asyncio.sleep(3)  # it tries
        assert child.running, child.output()
        await ended(child)


async def replaced(settings: Settings, name: str, size: int) -> None:
    """Create a topic again, with records of at most ``size`` bytes."""
    admin = AIOKafkaAdminClient(**security(settings))
    await admin.start()
    try:
        await admin.delete_topics([name])
        async with asyncio.timeout(20):
            while name in await admin.list_topics():
                await asyncio.sleep(0.1)
        config = LIVE.config() | {"max.message.bytes": str(size)}
        await admin.create_topics([NewTopic(name, settings.partitions, 1, topic_configs=config)])
    finally:
        await admin.close()


@pytest.mark.apache
async def test_an_agent_whose_delivery_fails_is_another_process_soon(
    apache_kafka: ApacheNode, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Faust would wait without end for the event that is not acknowledged."""
    settings = make_settings(apache_kafka)
    await create_topics(settings)
    said: list[str] = []
    supervisor = Supervisor(said.append, backoff=Backoff(first=0.1, most=1))
    supervisor.start(next(one.spec for one in instances(settings) if one.spec.name == "live"))
    (kept,) = supervisor.children
    try:
        await supervisor.wait_ready()
        first = kept.pid
        await replaced(settings, LIVE.name, 1000)
        pcm, rate = speech("harbour-2-slt", 1)
        await publish(settings, frames("call", RUN, pcm, rate), per_second=100)
        async with asyncio.timeout(SECONDS + 10):
            while kept.pid in (None, first):
                await asyncio.sleep(0.1)
        assert said[0].startswith("live ended with status 1; starting it again")
    finally:
        await supervisor.stop()


async def audio(settings: Settings, number: int, seconds: float = 60) -> None:
    """Wait until ``number`` records are on the audio topic."""
    async with Consumer(**security(settings), auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(LIVE.name, n) for n in range(settings.partitions)])
        found = 0
        async with asyncio.timeout(seconds):
            while found < number:
                found += sum(map(len, (await consumer.getmany(timeout_ms=200)).values()))


@pytest.mark.timeout(180 + LONGEST)
@pytest.mark.parametrize("away", [3, *(pytest.param(seconds, marks=pytest.mark.long) for seconds in AWAY)])
async def test_an_agent_goes_on_when_the_broker_is_back(
    fresh_kafka: EmbeddedBroker, make_settings: MakeSettings, tmp_path: Path, away: int
) -> None:
    settings = make_settings(fresh_kafka)
    await create_topics(settings)
    pcm, rate = speech("harbour-2-slt", 2)
    whole = frames("call", RUN, pcm, rate)
    with agent(settings, tmp_path / "agent.log").during() as child:
        await ready(child)
        await publish(settings, whole[:10], per_second=100)
        await audio(settings, 10)
        fresh_kafka.stop()
        await asyncio.sleep(away)
        await fresh_kafka.start()
        await publish(settings, whole[10:], per_second=100)
        await audio(settings, len(whole), 40)
        await ready(child, 30)


async def test_an_agent_waits_for_a_broker_and_refuses_topics_that_do_not_fit(
    fresh_kafka: EmbeddedBroker, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(fresh_kafka, partitions=1)
    fresh_kafka.stop()
    with agent(settings, tmp_path / "waits.log").during() as waits:
        async with asyncio.timeout(30):
            while "broker_awaited" not in waits.output():
                await asyncio.sleep(0.1)
        await fresh_kafka.start()
        await create_topics(settings)
        await ready(waits)
        # With one member more than partitions each is ready all the same.
        with agent(settings, tmp_path / "second.log").during() as second:
            await ready(second)
            another = make_settings(fresh_kafka, tenants="default,acme")
            with agent(another, tmp_path / "third.log").during() as third:
                assert await asyncio.to_thread(third.wait, 30) == 1
            assert f"acme.{EVENTS.name}: the topic does not exist. Run `kaption topics create`." in third.output()
