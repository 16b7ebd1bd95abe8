"""Exit statuses of the command line and the one way in which a command fails: a line that says what and what to do."""

from enum import IntEnum

import click
from pydantic import ValidationError

from kaption.adapters.settings import CONFIG_STATUS, Settings, explain


class Exit(IntEnum):
    """Exit statuses, documented in `kaption --help`; 2 is click's own for a wrong command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 69
    GAVE_UP = 70
    UNSUPPORTED = 71
    DISK = 73
    IN_USE = 75
    REFUSED = 77
    CONFIG = CONFIG_STATUS


MEANINGS = {
    Exit.OK: "done, or stopped by a signal",
    Exit.FAILED: "something asked for is missing or wrong",
    Exit.USAGE: "wrong command line",
    Exit.UNAVAILABLE: "broker or object store does not answer",
    Exit.GAVE_UP: "a process keeps ending at its start",
    Exit.UNSUPPORTED: "not Linux x86-64 with Python 3.11 to 3.13",
    Exit.DISK: "no room, or the folder can't be written",
    Exit.IN_USE: "a port or the data folder is in use",
    Exit.REFUSED: "broker or object store refuses the credentials",
    Exit.CONFIG: "a setting or the broker's topics are not right",
}


class Failed(click.ClickException):
    """Ends a command with a status and one line on stderr."""

    def __init__(self, status: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = int(status)


def load_settings(**overrides: object) -> Settings:
    """The settings from the environment with options put over them; None leaves a field as it is.

    Raises ``Failed``: a setting that is wrong is named, its value never shown, since it may be a secret.
    """
    try:
        return Settings.model_validate(
            Settings().model_dump() | {name: value for name, value in overrides.items() if value is not None}
        )
    except ValidationError as error:
        raise Failed(Exit.CONFIG, explain(error)) from None
