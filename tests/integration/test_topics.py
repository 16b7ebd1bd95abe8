"""Topics are made from the map on a real broker, and each difference from it is reported with its remedy."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from kaption.adapters.kafka import topics
from kaption.adapters.kafka.embedded import answers
from kaption.adapters.settings import Settings
from kaption.testing.brokers import ApacheCluster, Broker, EmbeddedBroker
from kaption_schemas.errors import TopicsError
from kaption_schemas.topics import BATCH, DLQ, EVENTS, LIVE, MIB, STATE, TOPICS
from tests.conftest import MakeSettings


async def make(settings: Settings, name: str, partitions: int, config: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
    finally:
        await admin.close()


async def test_the_map_is_created_once_and_fits(every_kafka: Broker, make_settings: MakeSettings) -> None:
    settings = make_settings(every_kafka, tenants="default,acme", stages="staged")
    assert len(await topics.check(settings)) == len(topics.wanted(settings))
    assert set(await topics.create(settings)) == set(topics.wanted(settings))
    assert await topics.create(settings) == ()
    await topics.ensure(settings, *TOPICS)


async def test_each_difference_names_its_remedy(kafka: Broker, make_settings: MakeSettings) -> None:
    settings = make_settings(kafka)
    await make(settings, EVENTS.name, 3, {})
    await make(settings, DLQ.name, 3, {"max.message.bytes": str(MIB)})
    await make(settings, STATE.name, 2, STATE.config())
    await make(settings, "transcripts.final.v1", 2, {})
    with pytest.raises(TopicsError) as caught:
        await topics.create(settings)
    said = {problem.topic: problem for problem in caught.value.problems}
    assert set(said) == {EVENTS.name, DLQ.name, STATE.name, "transcripts.final.v1"}
    assert "LogAppendTime" in said[EVENTS.name].remedy
    assert f"max.message.bytes={2 * MIB}" in said[DLQ.name].remedy
    assert LIVE.name in said[STATE.name].what
    assert BATCH.name in said[STATE.name].remedy
    assert "do not divide" in said["transcripts.final.v1"].what


async def test_checking_creates_nothing(fresh_kafka: EmbeddedBroker, make_settings: MakeSettings) -> None:
    settings = make_settings(fresh_kafka)
    problems = await topics.check(settings)
    assert {problem.remedy for problem in problems} == {"Run `kaption topics create`."}
    assert await topics.check(settings) == problems


async def test_a_broker_that_is_away_does_not_answer(port: int) -> None:
    assert not await answers(Settings(kafka=f"127.0.0.1:{port}"))


@pytest.mark.long
async def test_copies_that_acknowledge_nothing_are_told(
    apache_cluster: ApacheCluster, make_settings: MakeSettings
) -> None:
    settings = make_settings(apache_cluster)
    await make(settings, EVENTS.name, 3, EVENTS.config() | {"min.insync.replicas": "1"})
    with pytest.raises(TopicsError) as caught:
        await topics.create(settings)
    (problem,) = caught.value.problems
    assert problem.topic == EVENTS.name
    assert "min.insync.replicas=2" in problem.remedy
    await topics.ensure(settings, EVENTS, DLQ, LIVE)
