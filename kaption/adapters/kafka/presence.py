"""Whether topics are there for this user, asked before a client waits for them or a broker makes them up."""

from aiokafka import AIOKafkaConsumer

from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings


async def require_topics(settings: Settings, *names: str) -> None:
    """Return when all of ``names`` are on the broker.

    A client of a missing topic tries for 40 s and then says nothing useful, or has the broker create it wrongly.

    Raises:
        LookupError: One is not there, or not for this user; the message says what to do.
        aiokafka.errors.KafkaError: The brokers can't be reached, or refuse.
    """
    consumer = AIOKafkaConsumer(**security(settings))
    try:
        await consumer.start()  # within the block: a refused start leaves its connection open
        missing = sorted(set(names) - await consumer.topics())
    finally:
        await consumer.stop()
    if missing:
        raise LookupError(
            f"there is no topic {', '.join(missing)} for this user: run `kaption topics create`, or see the tenant"
        )
