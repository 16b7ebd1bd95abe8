"""``kaption follow``: captions as they come, for people, for scripts, and as subtitle files."""

import json
from typing import Protocol

import click
from rich.console import Console

from kaption.adapters.settings import Settings
from kaption.cli import screen
from kaption.cli.exits import Exit, Failed, load_settings
from kaption.cli.reach import broker
from kaption.cli.signals import run_until_signal
from kaption.domain import captions
from kaption.domain.reader import Transcript
from kaption.transcripts import Transcripts
from kaption_schemas.records import FinalTranscript, Gap, PartialTranscript, StreamCompleted, StreamProgress
from kaption_schemas.topics import DEFAULT_TENANT, STREAM_PATTERN, TENANT_PATTERN

_KINDS = {
    PartialTranscript: "partial",
    FinalTranscript: "final",
    Gap: "gap",
    StreamCompleted: "completed",
    StreamProgress: "progress",
}


class Sink(Protocol):
    """Where records go. A context manager around the whole reading."""

    def __enter__(self) -> object:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End."""

    def show(self, record: Transcript) -> None:
        """Take one."""


class _Lines:
    """A line a record that has something to say."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, record: Transcript) -> None:
        if text := screen.line(record):
            click.echo(text)


class _Json(_Lines):
    def show(self, record: Transcript) -> None:
        click.echo(json.dumps({"type": _KINDS[type(record)], **record.model_dump(mode="json")}, ensure_ascii=False))


class _Txt(_Lines):
    def show(self, record: Transcript) -> None:
        if isinstance(record, FinalTranscript):
            click.echo(captions.txt(record), nl=False)


class _Vtt(_Lines):
    def __enter__(self) -> None:
        click.echo(captions.VTT_HEADER, nl=False)

    def show(self, record: Transcript) -> None:
        if isinstance(record, FinalTranscript):
            for cue in captions.cues(record):
                click.echo(captions.vtt(cue), nl=False)


class _Srt(_Lines):
    def __init__(self) -> None:
        self._number = 0

    def show(self, record: Transcript) -> None:
        if isinstance(record, FinalTranscript):
            for cue in captions.cues(record):
                self._number += 1
                click.echo(captions.srt(cue, self._number), nl=False)


_FILES: dict[str, type[_Lines]] = {"json": _Json, "srt": _Srt, "vtt": _Vtt, "txt": _Txt}


@click.command()
@click.argument("streams", nargs=-1, metavar="[STREAM ...]")
@click.option("--finals", is_flag=True, help="Only what is final.")
@click.option("--json", "form", flag_value="json", help="Each record as a JSON object, one a line.")
@click.option("--srt", "form", flag_value="srt", help="SubRip subtitles, of finals.")
@click.option("--vtt", "form", flag_value="vtt", help="WebVTT subtitles, of finals.")
@click.option("--txt", "form", flag_value="txt", help="Plain text, of finals.")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest that is kept, not with what comes next.")
@click.option("--until-completed", is_flag=True, help="End when a run of each stream named is completed.")
@click.option("--group", help="Consumer group that remembers the place: the next time goes on behind it.")
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose streams.")
@click.option("--kafka", metavar="HOST:PORT", help="Bootstrap servers [KAPTION_KAFKA].")
def command(
    *,
    streams: tuple[str, ...],
    finals: bool,
    form: str | None,
    from_beginning: bool,
    until_completed: bool,
    group: str | None,
    tenant: str,
    kafka: str | None,
) -> None:
    r"""Read captions as they come, of the streams named or of all, until Ctrl-C.

    On a terminal the sentence that is being said grows; its unsettled end is dim, and how far files are stands below.
    Elsewhere each record is a line, and partials are marked with ~.
    """
    if until_completed and not streams:
        raise click.UsageError("--until-completed needs the streams' names")
    for name in streams:
        if not STREAM_PATTERN.fullmatch(name):
            raise click.BadParameter(f"{name!r} must be 1-128 of A-Z a-z 0-9 . _ -", param_hint="STREAM")
    if not TENANT_PATTERN.fullmatch(tenant):
        raise click.BadParameter(f"must match {TENANT_PATTERN.pattern}", param_hint="--tenant")
    settings = load_settings(kafka=kafka)
    transcripts = Transcripts(
        streams or None,
        tenant=tenant,
        from_beginning=from_beginning,
        group=group,
        partials=not finals and form in (None, "json"),
        settings=settings,
    )
    ends = Ends(streams) if until_completed else None
    console = Console()
    sink: Sink = _FILES[form]() if form else screen.Screen(console) if console.is_terminal else _Lines()
    run_until_signal(_follow(settings, transcripts, sink, ends, finals))


class Ends:
    """Knows when a run of each stream is completed, with every channel that was heard of."""

    def __init__(self, streams: tuple[str, ...]) -> None:
        self._waiting = set(streams)
        self._open: dict[str, set[tuple[str, int]]] = {}

    def after(self, record: Transcript) -> bool:
        """Whether ``record`` is the last that was waited for."""
        if isinstance(record, StreamProgress):
            return False  # it is of a run, not of a channel
        channels = self._open.setdefault(record.stream, set())
        if isinstance(record, StreamCompleted):
            channels.discard((record.run, record.channel))
            if not any(run == record.run for run, _ in channels):
                self._waiting.discard(record.stream)
        else:
            channels.add((record.run, record.channel))
        return not self._waiting


async def _follow(settings: Settings, transcripts: Transcripts, sink: Sink, ends: Ends | None, finals: bool) -> None:
    try:
        async with broker(settings), transcripts:
            with sink:
                async for record in transcripts:
                    if not (finals and isinstance(record, Gap | StreamCompleted)):
                        sink.show(record)
                    if ends and ends.after(record):
                        return
    except LookupError as error:
        raise Failed(Exit.CONFIG, str(error)) from None
    except BrokenPipeError:
        raise Failed(Exit.FAILED, "the reader of the output is gone") from None
