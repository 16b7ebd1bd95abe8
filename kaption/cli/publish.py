"""``kaption publish``: a file, a folder or standard input as live streams, or as objects in the store."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, TaskID

from kaption.adapters.audio_files import SUFFIXES, AudioFile, AudioFileError
from kaption.adapters.settings import Settings
from kaption.adapters.upload import UploadError, upload
from kaption.cli.exits import Exit, Failed, load_settings
from kaption.cli.reach import broker
from kaption.cli.signals import run_until_signal
from kaption.publisher import FRAME_MS, Publisher, PublishError, RunFields
from kaption_schemas.audio import RATES
from kaption_schemas.topics import DEFAULT_TENANT, STREAM_PATTERN


@dataclass(frozen=True, slots=True)
class Job:
    """What to publish (``path`` None is standard input, ``size`` in bytes) and under which stream."""

    path: Path | None
    stream: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Stdin:
    """Format of standard input: s16le at ``rate``, ``channels`` interleaved."""

    rate: int
    channels: int


@click.command()
@click.argument("source", metavar="FILE|DIR|-")
@click.option("--stream", required=True, help="Name of the stream; files of a folder get STREAM.FILE.")
@click.option("--live", is_flag=True, help="Play it in real time, as a live stream; - is always live.")
@click.option("--as-object", is_flag=True, help="Upload it and have it transcribed as a whole (default for files).")
@click.option("--language", default="auto", show_default=True, help="Code such as en, or auto.")
@click.option("--redaction", help="What to mask, for example CREDIT_CARD,EMAIL_ADDRESS; none masks nothing.")
@click.option("--vocabulary", help="Names and terms to expect, comma-separated.")
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose stream it is.")
@click.option("--rate", type=click.Choice([str(rate) for rate in RATES]), default="16000", help="Of standard input.")
@click.option("--channels", type=click.IntRange(1, 2), default=1, help="Of standard input.")
@click.option("--kafka", metavar="HOST:PORT", help="Bootstrap servers [KAPTION_KAFKA].")
@click.option("--s3", metavar="URL", help="Object store [KAPTION_S3].")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a run on stdout.")
def command(
    *,
    source: str,
    stream: str,
    live: bool,
    as_object: bool,
    language: str,
    redaction: str | None,
    vocabulary: str | None,
    tenant: str,
    rate: str,
    channels: int,
    kafka: str | None,
    s3: str | None,
    as_json: bool,
) -> None:
    """Publish audio as a live stream or as an object.

    FILE is any audio or video; DIR all those in it; - is raw s16le on standard input, which is always live:

    \b
      kaption publish talk.mp3 --stream talk            upload it, and transcribe it as a whole
      kaption publish talk.mp3 --stream talk --live     play it in real time
      arecord -f S16_LE -r 16000 -t raw | kaption publish - --stream mic
    """  # noqa: D301 - click reads the character
    if live and as_object:
        raise click.UsageError("--live and --as-object exclude each other")
    if source == "-" and as_object:
        raise click.UsageError("standard input is live: give a file for --as-object")
    settings = load_settings(kafka=kafka, s3=s3)
    fields: RunFields = {"language": language, "vocabulary": _list(vocabulary)}
    if redaction is not None:
        fields["redaction"] = [] if redaction.lower() == "none" else _list(redaction)
    jobs = _jobs(source, stream)
    report = _Report(as_json)
    run_until_signal(
        _publish(settings, tenant, jobs, live or source == "-", fields, Stdin(int(rate), channels), report)
    )


def _list(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _jobs(source: str, stream: str) -> list[Job]:
    """What ``source`` stands for. Streams of a folder's files are named after them."""
    if not STREAM_PATTERN.fullmatch(stream):
        raise click.BadParameter("must be 1-128 of A-Z a-z 0-9 . _ -", param_hint="--stream")
    if source == "-":
        return [Job(None, stream)]
    path = Path(source)
    if path.is_file():
        return [Job(path, stream, path.stat().st_size)]
    if not path.is_dir():
        raise click.BadParameter(f"there is no {source}", param_hint="FILE")
    files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in SUFFIXES)
    if not files:
        raise click.BadParameter(f"there are no audio or video files in {source}", param_hint="DIR")
    names = [f"{stream}.{re.sub(r'[^A-Za-z0-9._-]', '-', file.name)}"[:128] for file in files]
    if len(set(names)) < len(names):
        raise click.BadParameter("two files would have one stream name: rename one", param_hint="DIR")
    return [Job(file, name, file.stat().st_size) for file, name in zip(files, names, strict=True)]


async def _publish(
    settings: Settings,
    tenant: str,
    jobs: list[Job],
    live: bool,
    fields: RunFields,
    stdin: Stdin,
    report: "_Report",
) -> None:
    try:
        async with broker(settings), Publisher(settings, tenant=tenant) as publisher:
            with report:
                for job in jobs:
                    if job.path is None:
                        await _play_stdin(publisher, job, stdin, fields, report)
                    elif live:
                        await _play_file(publisher, job, job.path, fields, report)
                    else:
                        await _put(settings, tenant, publisher, job, job.path, fields, report)
    except (AudioFileError, OSError) as error:
        raise Failed(Exit.FAILED, str(error)) from None
    except UploadError as error:
        raise Failed(Exit.REFUSED if error.refused else Exit.UNAVAILABLE, str(error)) from None
    except PublishError as error:
        raise Failed(Exit.UNAVAILABLE, f"{error}: see `kaption doctor`") from None
    except LookupError as error:
        raise Failed(Exit.CONFIG, str(error)) from None
    except ValueError as error:
        raise Failed(Exit.USAGE, _plain(error)) from None


def _plain(error: ValueError) -> str:
    """One line of what pydantic says in many."""
    errors: list[dict[str, Any]] = getattr(error, "errors", list)()
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in errors) or str(error)


async def _put(
    settings: Settings, tenant: str, publisher: Publisher, job: Job, path: Path, fields: RunFields, report: "_Report"
) -> None:
    task = report.begin(f"{job.stream}: upload", job.size)
    loop = asyncio.get_running_loop()

    def moved(size: int) -> None:
        loop.call_soon_threadsafe(report.advance, task, size)

    done = await asyncio.to_thread(upload, settings, tenant, path, f"{job.stream}/{path.name}", moved)
    run = await publisher.object(
        done.bucket,
        done.key,
        stream=job.stream,
        version=done.version,
        etag=done.etag,
        size=done.size,
        sha256=done.sha256,
        **fields,
    )
    report.finished(job, run, "object", bucket=done.bucket, key=done.key, bytes=done.size)


async def _play_file(publisher: Publisher, job: Job, path: Path, fields: RunFields, report: "_Report") -> None:
    with AudioFile(path) as audio:
        form = audio.format
        task = report.begin(f"{job.stream}: live", form.seconds)
        run = publisher.stream(job.stream, rate=form.rate, channels=form.channels, **fields)
        stride = form.channels * 2
        sent = 0
        async with run:
            async for piece in _paced(audio.frames(FRAME_MS), form.rate * stride):
                await run.send(piece)
                sent += len(piece)
                report.advance(task, len(piece) / stride / form.rate)
    report.finished(job, run.run, "live", seconds=round(sent / stride / form.rate, 3))


async def _paced(frames: Iterator[bytes], per_second: int) -> AsyncIterator[bytes]:
    """Each frame when its last sample would have been heard; ``per_second`` in bytes."""
    loop = asyncio.get_running_loop()
    start, sent = loop.time(), 0
    for frame in frames:
        sent += len(frame)
        await asyncio.sleep(max(0.0, start + sent / per_second - loop.time()))
        yield frame


async def _play_stdin(publisher: Publisher, job: Job, stdin: Stdin, fields: RunFields, report: "_Report") -> None:
    loop = asyncio.get_running_loop()
    per_second = stdin.rate * stdin.channels * 2
    task = report.begin(f"{job.stream}: live", None)
    run = publisher.stream(job.stream, rate=stdin.rate, channels=stdin.channels, **fields)
    start, sent = loop.time(), 0
    async with run:
        async for piece in _stdin(per_second * FRAME_MS // 1000):
            sent += len(piece)
            # A pipe that delivers faster than real time is held back; one that does not never waits here.
            await asyncio.sleep(max(0.0, start + sent / per_second - loop.time()))
            await run.send(piece)
            report.advance(task, len(piece) / per_second)
    report.finished(job, run.run, "live", seconds=round(sent / per_second, 3))


async def _stdin(size: int) -> AsyncIterator[bytes]:
    file = sys.stdin.buffer
    reader = asyncio.StreamReader()
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), file
        )
    except ValueError:  # a regular file: reading it does not block
        while piece := file.read(size):
            yield piece
        return
    try:
        while piece := await reader.read(size):
            yield piece
    finally:
        transport.close()


class _Report:
    """Progress bars on a terminal, and a line for each run: JSON on stdout, or words on stderr."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        console = Console(stderr=True)
        self._progress = Progress(console=console, disable=not console.is_terminal, transient=True)

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, what: str, total: float | None) -> TaskID:
        return self._progress.add_task(what, total=total)

    def advance(self, task: TaskID, by: float) -> None:
        self._progress.advance(task, by)

    def finished(self, job: Job, run: str, how: str, **facts: object) -> None:
        if self._as_json:
            click.echo(json.dumps({"stream": job.stream, "run": run, "as": how, **facts}))
        else:
            told = ", ".join(f"{name} {value}" for name, value in facts.items())
            self._progress.console.print(f"{job.stream}: run {run}, {how}, {told}", highlight=False)
