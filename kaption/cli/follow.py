"""``kaption follow`` shows captions as they arrive: on a terminal, as JSON, or as a subtitle file."""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Generic, Protocol, TypeVar

import click
from rich.console import Console

from kaption.adapters.settings import Settings
from kaption.cli import screen
from kaption.cli.exits import Exit, Failed, load_settings
from kaption.cli.reach import broker
from kaption.cli.signals import run_until_signal
from kaption.client.transcripts import Transcripts
from kaption.domain.reading import captions
from kaption.domain.reading.captions import Cue
from kaption.domain.reading.voices import TimeOrder
from kaption_schemas.codec import TRANSCRIPTS
from kaption_schemas.errors import RunFailedError
from kaption_schemas.records import FinalTranscript, Gap, StreamCompleted, Transcript
from kaption_schemas.topics import DEFAULT_TENANT, RUN_PATTERN, STREAM_PATTERN, TENANT_PATTERN

#: The last part of a record's type: ``partial``, ``final``, ``gap``, ``completed``, ``progress``.
_KINDS = {model: kind.rpartition(".")[2] for kind, model in TRANSCRIPTS.items()}

Item = TypeVar("Item")


class Sink(Protocol):
    """Receives records. It is a context manager around the whole reading."""

    def __enter__(self) -> object:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End."""

    def show(self, record: Transcript) -> None:
        """Show one record."""


class _Lines:
    """Prints a line for each record that has text."""

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


class _File(_Lines, ABC, Generic[Item]):
    """Prints the text of finals, each run in the order of time, since its channels are decoded separately."""

    def __init__(self) -> None:
        self._runs: dict[str, TimeOrder[Item]] = {}

    def __exit__(self, *_: object) -> None:
        for run in self._runs.values():
            self._write(run.flush())

    def show(self, record: Transcript) -> None:
        if isinstance(record, FinalTranscript):
            self._write(self._runs.setdefault(record.run, TimeOrder()).push(record, self.pieces(record)))
        elif isinstance(record, StreamCompleted) and record.run in self._runs:
            # All finals of a run come before the first of its channels is completed.
            self._write(self._runs.pop(record.run).flush())

    def _write(self, pieces: list[Item]) -> None:
        for piece in pieces:
            click.echo(self.text(piece), nl=False)

    @abstractmethod
    def pieces(self, final: FinalTranscript) -> list[tuple[int, Item]]:
        """Return the file's pieces for a final, each with its start in ms."""

    @abstractmethod
    def text(self, piece: Item) -> str:
        """Return a piece as the file contains it."""


class _Txt(_File[str]):
    def pieces(self, final: FinalTranscript) -> list[tuple[int, str]]:
        return [(final.start_ms, captions.txt(final))]

    def text(self, piece: str) -> str:
        return piece


class _Vtt(_File[Cue]):
    def __enter__(self) -> None:
        click.echo(captions.VTT_HEADER, nl=False)

    def pieces(self, final: FinalTranscript) -> list[tuple[int, Cue]]:
        return [(cue.start_ms, cue) for cue in captions.cues(final)]

    def text(self, piece: Cue) -> str:
        return captions.vtt(piece)


class _Srt(_File[Cue]):
    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    def pieces(self, final: FinalTranscript) -> list[tuple[int, Cue]]:
        layout = captions.DEFAULT_LAYOUT if captions.voice(final) is None else captions.VOICES_LAYOUT
        return [(cue.start_ms, cue) for cue in captions.cues(final, layout)]

    def text(self, piece: Cue) -> str:
        self._number += 1
        return captions.srt(piece, self._number)


_FILES: dict[str, type[_Lines]] = {"json": _Json, "srt": _Srt, "vtt": _Vtt, "txt": _Txt}


@click.command()
@click.argument("streams", nargs=-1, metavar="[STREAM ...]")
@click.option("--finals", is_flag=True, help="Only finals.")
@click.option("--json", "form", flag_value="json", help="Each record as a JSON object, one a line.")
@click.option("--srt", "form", flag_value="srt", help="SubRip subtitles of one run.")
@click.option("--vtt", "form", flag_value="vtt", help="WebVTT subtitles of one run.")
@click.option("--txt", "form", flag_value="txt", help="Plain text of finals.")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest kept record, not with the next one.")
@click.option("--until-completed", is_flag=True, help="Read one run of each stream named, and end with it.")
@click.option("--run", metavar="ULID", help="Read this run of the stream, from its beginning, and end with it.")
@click.option("--group", help="Consumer group that keeps the offset; the next call continues after it.")
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Tenant of the streams.")
@click.option("--kafka", metavar="HOST:PORT", help="Bootstrap servers [KAPTION_KAFKA].")
def command(
    *,
    streams: tuple[str, ...],
    finals: bool,
    form: str | None,
    from_beginning: bool,
    until_completed: bool,
    run: str | None,
    group: str | None,
    tenant: str,
    kafka: str | None,
) -> None:
    r"""Show captions of the given streams, or of all, as they come, until Ctrl-C.

    On a terminal the current sentence grows; its unsettled end is dim, and the progress of files is below it.
    Otherwise each record is a line, and ~ marks partials.

    With --from-beginning, --until-completed reads the newest kept run; without it, the first one seen. When that run was
    refused or abandoned, the command reports the reason on stderr and ends with status 1.

    A subtitle file has one clock, so --srt and --vtt hold one run of one stream, and end with it as --until-completed does.
    Where each channel has a transcript of its own, cues are in the order of their times and name the channel.
    """
    one_clock = form in ("srt", "vtt")
    if until_completed and not streams:
        raise click.UsageError("--until-completed needs the streams' names")
    if (one_clock or run) and len(streams) != 1:
        raise click.UsageError(f"{f'--{form}' if one_clock else '--run'} needs the name of one stream")
    for name in streams:
        if not STREAM_PATTERN.fullmatch(name):
            raise click.BadParameter(f"{name!r} must be 1-128 of A-Z a-z 0-9 . _ -", param_hint="STREAM")
    if run and not RUN_PATTERN.fullmatch(run):
        raise click.BadParameter("must be a ULID, as `kaption publish` says it", param_hint="--run")
    if not TENANT_PATTERN.fullmatch(tenant):
        raise click.BadParameter(f"must match {TENANT_PATTERN.pattern}", param_hint="--tenant")
    settings = load_settings(kafka=kafka)
    transcripts = Transcripts(
        streams or None,
        tenant=tenant,
        from_beginning=from_beginning or run is not None,
        group=group,
        partials=not finals and form in (None, "json"),
        settings=settings,
    )
    records = transcripts.until_completed(run) if until_completed or one_clock or run else transcripts
    console = Console()
    sink: Sink = _FILES[form]() if form else screen.Screen(console) if console.is_terminal else _Lines()
    run_until_signal(_follow(settings, transcripts, records, sink, finals))


def shows(sink: Sink, record: Transcript, *, finals: bool) -> bool:
    """Whether ``record`` goes to ``sink``. With ``finals`` only finals do, but a file also needs a run's completion."""
    return not finals or isinstance(sink, _File) or not isinstance(record, Gap | StreamCompleted)


async def _follow(
    settings: Settings, transcripts: Transcripts, records: AsyncIterator[Transcript], sink: Sink, finals: bool
) -> None:
    try:
        async with broker(settings), transcripts:
            with sink:
                async for record in records:
                    if shows(sink, record, finals=finals):
                        sink.show(record)
    except RunFailedError as error:
        raise Failed(Exit.FAILED, str(error)) from None
    except LookupError as error:
        raise Failed(Exit.CONFIG, str(error)) from None
    except BrokenPipeError:
        raise Failed(Exit.FAILED, "the reader of the output is gone") from None
