"""Checks that topics exist for this user, before a client waits for them or a broker creates them by itself."""

from aiokafka import AIOKafkaConsumer

from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings


async def require_topics(settings: Settings, *names: str) -> None:
    """Return if the broker has all of ``names``.

    The client of a missing topic tries for 40 s and gives a useless error, or makes the broker create the topic wrongly.

    Raises:
        LookupError: A topic is missing, or not visible to this user; the message says what to do.
                    aiokafka.errors.KafkaError: The brokers don't answer, or refuse.
    """
    consumer = AIOKafkaConsumer(**security(settings))
    try:
        await consumer.start()  # within the block, since a refused start leaves its connection open
        missing = sorted(set(names) - await consumer.topics())
    finally:
        await consumer.stop()
    if missing:
        raise LookupError(
            f"there is no topic {', '.join(missing)} for this user: run `kaption topics create`, or see the tenant"
        )
