"""Kaption: live transcripts on Kafka. ``Publisher`` sends audio, ``Transcripts`` reads transcripts."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaption.client.publisher import Publisher
    from kaption.client.transcripts import Transcripts

__all__ = ["Publisher", "RunFailedError", "Transcripts"]


def __getattr__(name: str) -> object:
    # Import on first use: the Kafka client takes a third of a second, which `kaption --help` does not need.
    if name in __all__:
        from kaption import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
