"""Publishes one piece of audio for ``kaption publish``: plays it in real time, or uploads it as an object."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final as Const

import click
from rich.console import Console
from rich.progress import Progress, TaskID

from kaption.adapters.media.local import AudioFile, Format, Piece
from kaption.adapters.settings import Settings
from kaption.adapters.store.upload import upload
from kaption.cli.outcome import Outcomes
from kaption.cli.screen import clock, segments
from kaption.cli.stdin import Stdin
from kaption.client.publisher import Publisher
from kaption_schemas.records import RunOptions, StreamCompleted

#: Seconds of a step while waiting for a hole's end; after each, a refusal of the run is noticed.
_STEP_SECONDS: Const = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of audio and its stream. ``path`` None is standard input; ``size`` is in bytes."""

    path: Path | None
    stream: str
    size: int = 0


class Report:
    """Shows progress bars on a terminal and prints a line for each run: JSON on stdout, or words on stderr."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(stderr=True)
        self._progress = Progress(console=self._console, disable=not self._console.is_terminal, transient=True)

    def __enter__(self) -> None:
        """Begin to draw."""
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self._progress.stop()

    def begin(self, what: str, total: float | None) -> TaskID:
        """Show a bar; ``total`` is None if unknown."""
        return self._progress.add_task(what, total=total)

    def advance(self, task: TaskID, by: float) -> None:
        """Advance a bar."""
        self._progress.advance(task, by)

    def say(self, line: str) -> None:
        """Print a line on stderr, also where results are JSON."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def published(self, job: Job, run: str, how: str, **facts: object) -> None:
        """Print that a run is published."""
        if self._as_json:
            click.echo(json.dumps({"stream": job.stream, "run": run, "as": how, **facts}))
        else:
            told = ", ".join(f"{name} {value}" for name, value in facts.items())
            self.say(f"{job.stream}: run {run}, {how}, {told}")

    def completed(self, end: StreamCompleted) -> None:
        """Print that an awaited run is transcribed."""
        if self._as_json:
            facts = {"completed": end.reason, "segments": end.segments, "seconds": end.duration_ms / 1000}
            click.echo(json.dumps({"stream": end.stream, "run": end.run, **facts}))
        else:
            self.say(f"{end.stream}: {end.reason}, {segments(end.segments)}, {clock(end.duration_ms)}")


def object_name(path: Path) -> str:
    """Make an object's name of the file's: UTF-8 only, and nothing that the file agent takes for another path."""
    return "".join(char if char.isprintable() and char not in "\\%" else "-" for char in path.name)


@dataclass(frozen=True, slots=True)
class Publication:
    """Publishes jobs. ``ends`` is None if nothing listens for the runs' ends."""

    settings: Settings
    tenant: str
    publisher: Publisher
    options: RunOptions
    report: Report
    track: int | None
    ends: Outcomes | None = field(default=None)

    async def put(self, job: Job, path: Path) -> str:
        """Upload a file and publish it as an object; returns its run."""
        task = self.report.begin(f"{job.stream}: upload", job.size)
        loop = asyncio.get_running_loop()

        def moved(size: int) -> None:
            loop.call_soon_threadsafe(self.report.advance, task, size)

        name = f"{job.stream}/{object_name(path)}"
        done = await asyncio.to_thread(upload, self.settings, self.tenant, path, name, moved)
        run = await self.publisher.object(
            done.bucket, done.key, stream=job.stream, version=done.version, etag=done.etag, size=done.size,
            sha256=done.sha256, options=self.options, track=self.track,
        )  # fmt: skip
        self.report.published(job, run, "object", bucket=done.bucket, key=done.key, bytes=done.size)
        return run

    async def play_file(self, job: Job, path: Path) -> str:
        """Play a file in real time as a live stream; returns its run. If stopped early, the run ends as ``aborted``."""
        with AudioFile(path, self.track) as audio:
            return await self._play(job, audio.format, _threaded(audio.pieces()))

    async def play_stdin(self, job: Job, stdin: Stdin) -> str:
        """Play standard input as a live stream; returns its run. A signal is the normal end of a microphone."""
        return await self._play(job, stdin.format, stdin.pieces(), endless=True)

    async def _play(self, job: Job, form: Format, pieces: AsyncIterator[Piece], *, endless: bool = False) -> str:
        loop, stride = asyncio.get_running_loop(), form.channels * 2
        task = self.report.begin(f"{job.stream}: live", form.seconds)
        run = self.publisher.stream(job.stream, rate=form.rate, channels=form.channels, options=self.options)
        start, at = loop.time(), 0.0
        stopped = None
        async with run:
            try:
                async for piece in pieces:
                    samples = piece.hole + len(piece.pcm) / stride  # a pipe may split a sample
                    at += samples
                    # A pipe that delivers faster than real time is held back; one that does not never waits here.
                    await self._until(start + at / form.rate, run.run)
                    if piece.hole:
                        await run.skip(piece.hole)
                    await run.send(piece.pcm)
                    self.report.advance(task, samples / form.rate)
            except asyncio.CancelledError as error:
                if not endless:
                    raise
                stopped = error
        self.report.published(job, run.run, "live", seconds=round(at / form.rate, 3))
        if stopped:
            raise stopped
        return run.run

    async def _until(self, time: float, run: str) -> None:
        """Wait for ``time``, on the loop's clock. Raises ``RunFailedError``: the run has ended and takes no more audio."""
        loop = asyncio.get_running_loop()
        while True:
            if self.ends:
                self.ends.check(run)
            wait = time - loop.time()
            await asyncio.sleep(max(0.0, min(wait, _STEP_SECONDS)))
            if wait <= _STEP_SECONDS:
                return


async def _threaded(pieces: Iterator[Piece]) -> AsyncIterator[Piece]:
    """Decode pieces in a thread, off the event loop."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
