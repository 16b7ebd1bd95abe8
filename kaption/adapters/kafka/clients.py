"""Makes Kafka clients with the security, compression and limits of the settings. See HAZARDS on aiokafka.

Importing this does not patch aiokafka. Only the objects that Kaption makes are changed.
"""

import ssl
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.helpers import create_ssl_context

from kaption.adapters.kafka.fetching import patient
from kaption.adapters.settings import Settings


def security(settings: Settings) -> dict[str, Any]:
    """The keyword arguments that every aiokafka client takes to reach the brokers."""
    out: dict[str, Any] = {
        "bootstrap_servers": settings.kafka,
        "security_protocol": settings.kafka_security,
        "client_id": "kaption",
    }
    if settings.kafka_security.startswith("SASL"):
        password = settings.kafka_password
        out |= {
            "sasl_mechanism": settings.kafka_mechanism,
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": password.get_secret_value() if password else None,
        }
    if settings.kafka_security.endswith("SSL"):
        context: ssl.SSLContext = create_ssl_context(
            cafile=str(settings.kafka_ca_file) if settings.kafka_ca_file else None
        )
        out["ssl_context"] = context
    return out


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """A consumer that reads any batch (``record_batches``) and backs off between fetch requests (``fetching``)."""

    @property
    def _fetcher(self) -> Any:
        return self.__dict__["_fetcher"]

    @_fetcher.setter
    def _fetcher(self, made: Any) -> None:
        # `start` makes the fetcher and its task. That task first runs at the next await, after this code.
        self.__dict__["_fetcher"] = made and patient(made)


def adopt(made: AIOKafkaConsumer) -> None:
    """Change a library's consumer, before it starts, to read and fetch as Kaption's do."""
    made.__class__ = Consumer
