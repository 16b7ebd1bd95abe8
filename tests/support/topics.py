"""Topics of the tests: created from the map, and removed so that the next test on a shared broker starts from nothing."""

import asyncio

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from kaption.adapters.kafka import security
from kaption.adapters.settings import Settings
from kaption_schemas.topics import topics_for

SECONDS = 30


async def create_topics(settings: Settings) -> None:
    """Create every topic of a deployment with ``settings``; those that exist stay. Returns when all have leaders."""
    wanted = topics_for(settings.tenants, staged=settings.stages == "staged")
    new = [
        NewTopic(name, settings.partitions, settings.replication, topic_configs=topic.config())
        for name, topic in wanted.items()
    ]
    admin = AIOKafkaAdminClient(**security(settings))
    await admin.start()
    try:
        await _create(admin, new)
        async with asyncio.timeout(SECONDS):
            while not await _have_leaders(admin, set(wanted), settings.partitions):
                await asyncio.sleep(0.1)
    finally:
        await admin.close()


async def _create(admin: AIOKafkaAdminClient, new: list[NewTopic]) -> None:
    # Apache Kafka deletes in the background, so a name may be taken for a moment after `wipe_topics`.
    response = await admin.create_topics(new)
    for name, code, *_ in response.topic_errors:
        error = for_code(code)
        if code and error.__name__ != "TopicAlreadyExistsError":
            raise error(f"creating {name}")


async def _have_leaders(admin: AIOKafkaAdminClient, names: set[str], partitions: int) -> bool:
    described = await admin.describe_topics(sorted(names))
    return all(
        topic["error_code"] == 0
        and len(topic["partitions"]) >= partitions
        and all(part["leader"] >= 0 for part in topic["partitions"])
        for topic in described
    )


async def wipe_topics(bootstrap: str) -> None:
    """Delete every topic that is not Kafka's own, and wait until they are gone."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(SECONDS):
            while names := [name for name in await admin.list_topics() if not name.startswith("__")]:
                try:
                    await admin.delete_topics(names)
                except KafkaError:  # gone since the list was made
                    continue
                finally:
                    await asyncio.sleep(0.2)
    finally:
        await admin.close()
