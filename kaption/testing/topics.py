"""Creates the tests' topics from the map, and deletes them, so that the next test on a shared broker starts with none."""

import asyncio

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from kaption.adapters.kafka import topics
from kaption.adapters.settings import Settings

SECONDS = 30


async def create_topics(settings: Settings) -> None:
    """Create every missing topic of a deployment with ``settings``. Return when all have leaders."""
    await topics.create(settings)


async def wipe_topics(bootstrap: str) -> None:
    """Delete every topic except Kafka's own, and wait until they are gone."""
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
