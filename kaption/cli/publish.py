"""``kaption publish`` publishes a file, a folder or standard input as live streams or as objects in the store."""

import re
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import click
from pydantic import ValidationError

from kaption.adapters.media.local import Format, is_media
from kaption.adapters.settings import Settings
from kaption.cli.exits import Exit, Failed, load_settings
from kaption.cli.outcome import Outcomes
from kaption.cli.playing import Job, Publication, Report
from kaption.cli.reach import broker
from kaption.cli.signals import run_until_signal
from kaption.cli.stdin import Stdin
from kaption.client.publisher import Publisher
from kaption.domain.redaction.open_suffix import RECOGNISED
from kaption_schemas.audio import RATES
from kaption_schemas.errors import AudioFileError, PublishError, RunFailedError, StoreError
from kaption_schemas.languages import language as code_of_language
from kaption_schemas.records import RunOptions
from kaption_schemas.topics import DEFAULT_TENANT, STREAM_PATTERN, TENANT_PATTERN


@dataclass(frozen=True, slots=True)
class Order:
    """The parsed command line. ``left_out``: files of a folder that can't be published; ``raw``: the format of raw samples."""

    settings: Settings
    tenant: str
    jobs: list[Job]
    left_out: list[str]
    options: RunOptions
    raw: Format
    track: int | None
    live: bool
    wait: bool


@click.command()
@click.argument("source", metavar="FILE|DIR|-")
@click.option("--stream", required=True, help="Name of the stream; a folder's files get STREAM.FILE.")
@click.option("--live", is_flag=True, help="Play it in real time, as a live stream; - is always live.")
@click.option("--as-object", is_flag=True, help="Upload it, to be transcribed as a whole (default for files).")
@click.option("--wait", is_flag=True, help="Wait until it is transcribed; status 1 when it is refused.")
@click.option("--language", default="auto", show_default=True, help="English, en or en-US for example, or auto.")
@click.option("--redaction", help="What to mask, for example CREDIT_CARD,EMAIL_ADDRESS; none masks nothing.")
@click.option("--vocabulary", help="Names and terms to expect, comma-separated.")
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Tenant of the stream.")
@click.option(
    "--channels",
    type=click.Choice(["mix", "split", "1", "2"]),
    help="mix: one transcript of all channels (default); split: one for each. For raw samples also 1 or 2, their number (split: 2).",
)
@click.option(
    "--track",
    type=click.IntRange(0),
    help="Sound track of a file, counted from 0 [the default track, else the first that is not silent].",
)
@click.option(
    "--rate",
    type=click.Choice([str(rate) for rate in RATES]),
    help="Sample rate of raw samples on standard input [16000].",
)
@click.option("--kafka", metavar="HOST:PORT", help="Bootstrap servers [KAPTION_KAFKA].")
@click.option("--s3", metavar="URL", help="Object store [KAPTION_S3].")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object for each run, and with --wait another at its end."
)
def command(
    *,
    source: str,
    stream: str,
    live: bool,
    as_object: bool,
    wait: bool,
    language: str,
    redaction: str | None,
    vocabulary: str | None,
    tenant: str,
    channels: str | None,
    track: int | None,
    rate: str | None,
    kafka: str | None,
    s3: str | None,
    as_json: bool,
) -> None:
    """Publish audio as a live stream or as an object.

    FILE is any audio or video. DIR is all such files in it, not in folders below. - is standard input, always live: a WAV, or
    raw s16le.

    \b
      kaption publish talk.mp3 --stream talk            upload it, and transcribe it as a whole
      kaption publish talk.mp3 --stream talk --wait     ... and report the result
      kaption publish talk.mp3 --stream talk --live     play it in real time
      arecord -f S16_LE -r 16000 -t raw | kaption publish - --stream mic

    The first bytes of a file decide its type, not its name. If the command leaves
    out a file of a folder, it names the file and ends with status 1. When a live run is refused, the command ends with the reason.
    """  # noqa: D301 - click reads the character
    if live and as_object:
        raise click.UsageError("--live and --as-object exclude each other")
    if source == "-" and as_object:
        raise click.UsageError("standard input is live: give a file for --as-object")
    if source == "-" and track is not None:
        raise click.UsageError("--track is for files: standard input has one")
    if source != "-" and (rate or channels in ("1", "2")):
        what = "--rate" if rate else f"--channels {channels}"
        raise click.UsageError(f"{what} is for raw samples on standard input: a file says what it holds")
    if not TENANT_PATTERN.fullmatch(tenant):
        raise click.BadParameter(f"must match {TENANT_PATTERN.pattern}", param_hint="--tenant")
    options = _options(language, redaction, vocabulary, channels)
    settings = load_settings(kafka=kafka, s3=s3)
    jobs, left_out = _jobs(source, stream)
    raw = Format(int(rate or 16000), 2 if channels in ("2", "split") else 1, None)
    order = Order(settings, tenant, jobs, left_out, options, raw, track, live=live or source == "-", wait=wait)
    run_until_signal(_publish(order, Report(as_json)))


def _list(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _options(language: str, redaction: str | None, vocabulary: str | None, channels: str | None) -> RunOptions:
    """Make the run's options. Refuse here what the service would refuse, and say what is allowed."""
    code = code_of_language(language)
    if code is None:
        known = "a code such as en, a tag such as en-US, an English name, or auto"
        raise click.BadParameter(
            f"{language!r} is no language that Whisper knows: give {known}", param_hint="--language"
        )
    fields: dict[str, Any] = {"language": code, "vocabulary": _list(vocabulary)}
    if channels == "split":
        fields["channels"] = "split"
    if redaction is not None:
        entities = [] if redaction.lower() == "none" else [name.upper() for name in _list(redaction)]
        if unknown := sorted(set(entities) - RECOGNISED):
            what = f"{', '.join(unknown)} can't be found: give some of {', '.join(sorted(RECOGNISED))}, or none"
            raise click.BadParameter(what, param_hint="--redaction")
        fields["redaction"] = entities
    try:
        return RunOptions.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        raise click.UsageError("; ".join(f"--{one['loc'][0]}: {one['msg']}" for one in found)) from None


def _jobs(source: str, stream: str) -> tuple[list[Job], list[str]]:
    """List the jobs of ``source``, and the files left out with the reasons. A folder's files name their streams."""
    if not STREAM_PATTERN.fullmatch(stream):
        raise click.BadParameter("must be 1-128 of A-Z a-z 0-9 . _ -", param_hint="--stream")
    if source == "-":
        return [Job(None, stream)], []
    path = Path(source)
    if not path.is_dir():
        if not path.is_file():
            raise click.BadParameter(f"there is no {source}", param_hint="FILE")
        if problem := _problem(path):
            raise Failed(Exit.FAILED, problem)
        return [Job(path, stream, path.stat().st_size)], []
    found = {file: _problem(file) for file in sorted(path.iterdir()) if not file.name.startswith(".")}
    files = [file for file, problem in found.items() if problem is None]
    if not files:
        raise click.BadParameter(f"there are no audio or video files in {source}", param_hint="DIR")
    names = [f"{stream}.{re.sub(r'[^A-Za-z0-9._-]', '-', file.name)}"[:128] for file in files]
    if len(set(names)) < len(names):
        raise click.BadParameter("two files would have one stream name: rename one", param_hint="DIR")
    jobs = [Job(file, name, file.stat().st_size) for file, name in zip(files, names, strict=True)]
    return jobs, [problem for problem in found.values() if problem is not None]


def _problem(path: Path) -> str | None:
    """Say why a file can't be published; None if it can."""
    try:
        if path.is_dir():
            return f"{path} is left out: a folder"
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
            return f"{path} is left out: no file"
        return None if is_media(path) else f"{path} is no audio or video of a container that is read here"
    except OSError as error:
        return f"{path} can't be read: {error.strerror}"


async def _publish(order: Order, report: Report) -> None:
    problems = _Problems(len(order.jobs) + len(order.left_out), report)
    listener = Outcomes(order.settings, order.tenant, (job.stream for job in order.jobs), needed=order.wait)
    try:
        async with (
            broker(order.settings),
            listener if order.live or order.wait else nullcontext() as ends,
            Publisher(order.settings, tenant=order.tenant) as publisher,
        ):
            with report:
                for problem in order.left_out:
                    problems.add(problem)
                to = Publication(order.settings, order.tenant, publisher, order.options, report, order.track, ends)
                runs = []
                for job in order.jobs:
                    with problems:
                        runs.append(await _one(order, to, job))
                for run in runs if order.wait else ():
                    with problems:
                        report.completed(await listener.of(run))
    except StoreError as error:
        raise Failed(Exit.UNAVAILABLE if error.retry else Exit.REFUSED, str(error)) from None
    except PublishError as error:
        raise Failed(Exit.UNAVAILABLE, f"{error}: see `kaption doctor`") from None
    except LookupError as error:
        raise Failed(Exit.CONFIG, str(error)) from None
    problems.check()


async def _one(order: Order, to: Publication, job: Job) -> str:
    """Publish one job; returns its run."""
    if job.path is None:
        stdin = Stdin(order.raw)
        await stdin.open()
        return await to.play_stdin(job, stdin)
    return await (to.play_file(job, job.path) if order.live else to.put(job, job.path))


class _Problems:
    """Collects the errors of single files and runs. As a context manager it catches one, so that the next job runs."""

    def __init__(self, jobs: int, report: Report) -> None:
        self._jobs = jobs
        self._report = report
        self._found: list[str] = []

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        taken = isinstance(error, AudioFileError | RunFailedError | OSError)
        if taken:
            self.add(str(error))
        return taken

    def add(self, problem: str) -> None:
        """Add a problem, and print it at once if more files follow."""
        self._found.append(problem)
        if self._jobs > 1:
            self._report.say(problem)

    def check(self) -> None:
        """Raise ``Failed`` if there were any problems."""
        if self._found:
            what = f"{len(self._found)} of {self._jobs} went wrong" if self._jobs > 1 else self._found[0]
            raise Failed(Exit.FAILED, what)
