"""Kafka clients, made one way: security, compression and limits from the settings. See HAZARDS on aiokafka."""

import ssl
from typing import Any

from aiokafka.helpers import create_ssl_context

from kaption.adapters.kafka.fetching import CLIENT, pause_between_fetches
from kaption.adapters.kafka.record_batches import read_any_batch
from kaption.adapters.settings import Settings

pause_between_fetches()
read_any_batch()


def security(settings: Settings) -> dict[str, Any]:
    """The keyword arguments that every aiokafka client takes to reach the brokers."""
    out: dict[str, Any] = {
        "bootstrap_servers": settings.kafka,
        "security_protocol": settings.kafka_security,
        "client_id": CLIENT,
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
