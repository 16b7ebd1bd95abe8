"""Connects a command to the broker and turns each error into one line with a remedy."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from kaption.adapters.kafka.embedded import answers
from kaption.adapters.settings import Settings
from kaption.cli.exits import Exit, Failed
from kaption_schemas.errors import TopicsError

_FORBIDDEN = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)


def quiet() -> None:
    """Silence libraries' logs: the command reports these errors better itself."""
    logging.getLogger().addHandler(logging.NullHandler())
    for name in ("aiokafka", "kafka", "urllib3", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def away(settings: Settings) -> Failed:
    """Make the error for a broker that does not answer."""
    return Failed(
        Exit.UNAVAILABLE,
        f"no Kafka broker answers at {settings.kafka}: start it (`kaption up` starts one), or set KAPTION_KAFKA",
    )


def refused(settings: Settings, error: KafkaError) -> Failed:
    """Make the error for a broker that refuses the user, or what the user asked for."""
    if isinstance(error, _FORBIDDEN):
        what = f"the broker at {settings.kafka} does not allow this to user {settings.kafka_username!r}"
        return Failed(Exit.REFUSED, f"{what} ({type(error).__name__}): grant it the ACLs of docs/security.md")
    what = f"the broker at {settings.kafka} refuses the credentials ({type(error).__name__})"
    return Failed(
        Exit.REFUSED,
        f"{what}: check KAPTION_KAFKA_USERNAME, KAPTION_KAFKA_PASSWORD, KAPTION_KAFKA_MECHANISM and "
        f"KAPTION_KAFKA_SECURITY (now {settings.kafka_security})",
    )


@asynccontextmanager
async def broker(settings: Settings) -> AsyncIterator[None]:
    """Check that the broker answers, then run the body; turn Kafka's errors into ``Failed``."""
    quiet()
    try:
        if not await answers(settings):
            raise away(settings)
        yield
    except TopicsError as error:
        raise Failed(Exit.CONFIG, "\n".join(str(problem) for problem in error.problems)) from None
    except KafkaError as error:
        raise refused(settings, error) if _is_refusal(error) else away(settings) from None


def _is_refusal(error: KafkaError) -> bool:
    return "Auth" in type(error).__name__ or "Sasl" in type(error).__name__
