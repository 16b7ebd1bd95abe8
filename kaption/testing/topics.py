"""Topics of the tests: created from the map, and removed so that the next test on a shared broker starts from nothing."""

import asyncio

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from kaption.adapters.kafka import topics
from kaption.adapters.settings import Settings

SECONDS = 30


async def create_topics(settings: Settings) -> None:
    """Create every topic of a deployment with ``settings``; those that exist stay. Returns when all have leaders."""
    await topics.create(settings)


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
