"""Every record knows whose it is: its dead letter goes to that tenant's topic, whichever stage refuses it."""

from types import SimpleNamespace
from typing import Any

import pytest

from kaption_schemas.codec import encode_dead_letter
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import EVENTS, REDACTED, Topic
from kaption_streams.app import origin_of


def read(topic: Topic, name: str, key: bytes | None) -> Any:
    """An event as Faust hands it over."""
    message = SimpleNamespace(topic=name, partition=0, offset=7, timestamp=1.0, key=key, value=b"{}", headers=[])
    return origin_of(SimpleNamespace(message=message), topic)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("topic", "name", "key", "letters"),
    [
        (EVENTS, "media.events.v1", b"globex/call", "media.dlq.v1"),
        (EVENTS, "acme.media.events.v1", b"call", "acme.media.dlq.v1"),
        (REDACTED, "media.redacted.v1", b"acme/call", "acme.media.dlq.v1"),
        (REDACTED, "media.redacted.v1", b"default/call", "media.dlq.v1"),
        (REDACTED, "media.redacted.v1", b"call", "media.dlq.v1"),
        (REDACTED, "media.redacted.v1", b"../x/call", "media.dlq.v1"),
        (REDACTED, "media.redacted.v1", None, "media.dlq.v1"),
    ],
)
def test_a_dead_letter_is_its_tenants(topic: Topic, name: str, key: bytes | None, letters: str) -> None:
    origin = read(topic, name, key)
    assert encode_dead_letter(origin, Reason.INTERNAL_ERROR, "chunk", 0).topic == letters
