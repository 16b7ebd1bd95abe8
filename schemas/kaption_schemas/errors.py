"""Defines the error that carries a reason code."""

from kaption_schemas.reasons import Reason


class RefusedError(Exception):
    """A record, or an object that it names, is refused for ``reason``; another try would change nothing.

    The message is the reason's meaning and never a value of the record. ``detail`` says more in words.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason.meaning)
        self.reason = reason
        self.detail = detail
