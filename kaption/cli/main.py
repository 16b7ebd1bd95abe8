"""Runs ``kaption``, the command line. It imports a command only when it is called, so that help appears at once."""

import importlib
import platform
import sys
import traceback

import click
from click.shell_completion import CompletionItem

from kaption.cli.exits import Exit

#: Name -> module (which has the click command as ``command``) and the line that help shows.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("kaption.cli.up", "Run the whole pipeline on this machine."),
    "demo": ("kaption.cli.demo.command", "Play speech through the pipeline and watch the captions grow."),
    "publish": ("kaption.cli.publish", "Publish audio as a live stream or as an object."),
    "follow": ("kaption.cli.follow", "Read captions as they come."),
    "topics": ("kaption.cli.topics", "Create or check the topics on the broker."),
    "dlq": ("kaption.cli.dlq", "See what was refused, and why."),
    "doctor": ("kaption.cli.doctor", "Check what Kaption needs here, and name remedies."),
    "version": ("kaption.cli.version", "Show versions of Kaption and what it runs on."),
}

EPILOG = """
\b
First steps:
  kaption up                          start everything here, for trying out
  kaption publish talk.wav --live --stream talk
  kaption follow talk                 captions, in another terminal
  kaption doctor                      when something is not right

\b
Settings come from KAPTION_* variables; docs/operations.md lists them.

\b
Completion of commands and options (bash; zsh and fish alike):
  eval "$(_KAPTION_COMPLETE=bash_source kaption)"

\b
Exit status:
""" + "".join(f"  {status.value:<2} {status.meaning}\n" for status in Exit)


class LazyGroup(click.Group):
    """A group that imports a command on use; its help imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature, here and below
        """Return the names in the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names from the table, and options by click."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=line) for name, (_, line) in COMMANDS.items() if name.startswith(incomplete)]


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Kaption: live transcripts on Kafka. Media events in, partial and final captions out."""


def unsupported(system: str, machine: str, version: tuple[int, int]) -> str | None:
    """Say why this platform is not supported, or None if it is."""
    if system == "Linux" and machine == "x86_64" and (3, 11) <= version <= (3, 13):
        return None
    found = f"{system} {machine}, Python {version[0]}.{version[1]}"
    return f"kaption runs on Linux x86-64 with Python 3.11 to 3.13; this is {found}"


def main() -> None:
    """Refuse unsupported platforms, run the command, and exit with its status."""
    refusal = unsupported(platform.system(), platform.machine(), sys.version_info[:2])
    if refusal:
        click.echo(f"Error: {refusal}", err=True)
        sys.exit(Exit.UNSUPPORTED)
    try:
        cli(prog_name="kaption")
    except Exception as error:  # noqa: BLE001  # the process's one broad except; a message may quote a record, so not shown
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename}:{where.lineno}"
        click.echo(f"Error: {type(error).__name__} at {place}; that is a fault of Kaption, please report it", err=True)
        sys.exit(Exit.FAILED)


if __name__ == "__main__":
    main()
