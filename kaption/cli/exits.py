"""Defines the exit statuses of the command line and ``Failed``, which ends a command with one line: the fault and the remedy."""

from enum import IntEnum
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kaption.adapters.settings import Settings


class Exit(IntEnum):
    """Exit statuses, each with its ``meaning`` as `kaption --help` shows it; 2 is click's own for a wrong command line."""

    meaning: str

    def __new__(cls, status: int, meaning: str) -> "Exit":
        """Make the member: its value is the status."""
        self = int.__new__(cls, status)
        self._value_ = status
        self.meaning = meaning
        return self

    OK = 0, "done, or stopped by a signal"
    FAILED = 1, "something is missing or wrong, or a run was refused or abandoned"
    USAGE = 2, "wrong command line"
    UNAVAILABLE = 69, "broker or object store does not answer"
    GAVE_UP = 70, "a process keeps ending at its start"
    UNSUPPORTED = 71, "not Linux x86-64 with Python 3.11 to 3.13"
    DISK = 73, "no room, or the folder can't be written"
    IN_USE = 75, "a port or the data folder is in use"
    REFUSED = 77, "broker or object store refuses the credentials"
    CONFIG = 78, "a setting or the broker's topics are not right"


class Failed(click.ClickException):
    """End a command with a status and one line on stderr."""

    def __init__(self, status: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = int(status)


def load_settings(**overrides: object) -> "Settings":
    """Read the settings from the environment; options override them, and None leaves a field as it is.

    Raises ``Failed``: the message names a wrong setting and never shows its value, which may be a secret.
    """
    from pydantic import ValidationError  # noqa: PLC0415  # `kaption --help` needs this module, and no settings

    from kaption.adapters.settings import Settings, explain  # noqa: PLC0415

    try:
        return Settings.model_validate(
            Settings().model_dump() | {name: value for name, value in overrides.items() if value is not None}
        )
    except ValidationError as error:
        raise Failed(Exit.CONFIG, explain(error)) from None
