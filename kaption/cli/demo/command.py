"""``kaption demo`` plays speech through its own pipeline and shows captions, latency and word error rate."""

import asyncio
import re
import shutil
import sys
import tempfile
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from aiokafka.errors import KafkaError
from rich.console import Console

from kaption.adapters.settings import Settings
from kaption.adapters.store.upload import upload
from kaption.cli import screen
from kaption.cli.demo.scoring import RATE, SPEECH, Score, Talk, load_talks, percentiles, together
from kaption.cli.exits import Exit, Failed, load_settings
from kaption.cli.reach import broker
from kaption.cli.signals import run_until_signal
from kaption.client.publisher import FRAME_MS, Publisher
from kaption.client.transcripts import Transcripts
from kaption_schemas.errors import AudioFileError, PublishError, StoreError

_READY = re.compile(rb"ready kafka=(\S+) s3=(\S+) http=(\S+)")
_START_SECONDS = 180
_STOP_SECONDS = 60
#: Seconds after the last word within which every caption must arrive.
_PATIENCE_SECONDS = 90
_MOST_WER = 0.10


@click.command()
@click.option("--exit", "leave", is_flag=True, help="End by itself: 0 when every caption came, with few errors.")
@click.option("--streams", type=click.IntRange(1, 16), default=2, show_default=True, help="Live streams at once.")
@click.option("--speech", type=click.Path(file_okay=False, path_type=Path), default=SPEECH, help="Folder of talks.")
def command(*, leave: bool, streams: int, speech: Path) -> None:
    """Play speech through the pipeline and watch the captions grow.

    Starts broker, object store and pipeline in a folder of its own, plays the shipped speech as live streams and as a
    file, and shows what comes back, with the time from a word's end to its caption. Stays until Ctrl-C.
    """
    try:
        talks = load_talks(speech)
    except AudioFileError as error:
        raise Failed(Exit.FAILED, str(error)) from None
    run_until_signal(_demo(talks, streams, leave))


async def _demo(talks: list[Talk], streams: int, leave: bool) -> None:
    data = Path(tempfile.mkdtemp(prefix="kaption-demo-"))
    try:
        async with _pipeline(data) as settings:
            show = _Show.of(talks, streams)
            await show.play(settings, data)
            passed = show.summarise()
            if not leave:
                await _stay(settings)
    finally:
        await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
    if leave and not passed:
        raise Failed(Exit.FAILED, "a caption is missing or wrong: see the summary")


@asynccontextmanager
async def _pipeline(data: Path) -> AsyncIterator[Settings]:
    """Run ``kaption up`` as a child, yield the settings that reach it, and stop it at the end."""
    click.echo("starting the pipeline ...", err=True)
    argv = ("-m", "kaption.cli.main", "up", "--data", str(data), "--kafka-port", "0", "--http-port", "0")
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *argv,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # this process passes a Ctrl-C on, once
    )
    try:
        yield await _ready(child)
    finally:
        if child.returncode is None:
            child.terminate()
            try:
                await asyncio.wait_for(child.wait(), _STOP_SECONDS)
            except TimeoutError:
                child.kill()
                await child.wait()


async def _ready(child: asyncio.subprocess.Process) -> Settings:
    assert child.stdout is not None  # noqa: S101 - asked for above
    try:
        async with asyncio.timeout(_START_SECONDS):
            async for line in child.stdout:
                if found := _READY.search(line):
                    return load_settings(kafka=found[1].decode(), s3=found[2].decode())
            raise Failed(Exit.GAVE_UP, f"the pipeline ended at its start (status {await child.wait()}): see above")
    except TimeoutError:
        raise Failed(Exit.GAVE_UP, f"the pipeline is not ready after {_START_SECONDS} s: try `kaption up`") from None


async def _stay(settings: Settings) -> None:
    how = f"--kafka {settings.kafka}"
    click.echo(
        f"\nThe pipeline stays until Ctrl-C. In another terminal:\n"
        f"  kaption publish FILE --stream mine --live {how}\n"
        f"  kaption follow {how}\n"
    )
    await asyncio.Event().wait()


@dataclass(slots=True)
class _Show:
    """Play talks and collect their captions. ``started`` is when sample 0 of each run was spoken."""

    scores: dict[str, Score]
    started: dict[str, float] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, talks: list[Talk], streams: int) -> "_Show":
        """Assign the talks in turn to ``streams`` live streams, and join all of them into one file."""
        scores = {}
        for number in range(streams):
            talk = talks[number % len(talks)]
            name = talk.name if number < len(talks) else f"{talk.name}-{number // len(talks) + 1}"
            scores[name] = Score(talk, live=True)
        scores["recording"] = Score(together("recording", talks), live=False)
        return cls(scores)

    async def play(self, settings: Settings, data: Path) -> None:
        """Publish everything and show the captions; return when all have arrived or the time limit has passed.

        Raises ``Failed`` where the broker or the store does not answer.
        """
        longest = max(score.talk.seconds for score in self.scores.values() if score.live)
        try:
            async with (
                broker(settings),
                Transcripts(set(self.scores), settings=settings) as transcripts,
                Publisher(settings) as publisher,
            ):
                reading = asyncio.create_task(self._read(transcripts))
                try:
                    async with asyncio.TaskGroup() as group:
                        for name, score in self.scores.items():
                            group.create_task(self._publish(publisher, settings, data, name, score))
                        group.create_task(self._wait(reading, longest + _PATIENCE_SECONDS))
                finally:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
        except* (StoreError, PublishError, KafkaError) as errors:
            raise Failed(Exit.UNAVAILABLE, str(errors.exceptions[0])) from None

    async def _wait(self, reading: "asyncio.Task[None]", seconds: float) -> None:
        await asyncio.wait((reading,), timeout=seconds)
        if reading.done():
            await reading

    async def _publish(self, publisher: Publisher, settings: Settings, data: Path, name: str, score: Score) -> None:
        if score.live:
            await self._speak(publisher, name, score.talk)
            return
        path = data / "recording.wav"
        await asyncio.to_thread(_save, path, score.talk)
        done = await asyncio.to_thread(upload, settings, "default", path, f"{name}/{path.name}", lambda _: None)
        self.started[name] = time.monotonic()
        await publisher.object(done.bucket, done.key, stream=name, etag=done.etag, size=done.size, language="en")

    async def _speak(self, publisher: Publisher, name: str, talk: Talk) -> None:
        """Publish in real time: send a frame once its last sample has been spoken."""
        size = RATE * FRAME_MS // 1000 * 2
        async with publisher.stream(name, rate=RATE, language="en", metadata={"from": "kaption demo"}) as run:
            start = self.started[name] = time.monotonic()
            for at in range(0, len(talk.pcm), size):
                frame = talk.pcm[at : at + size]
                await asyncio.sleep(max(0.0, start + (at + len(frame)) / 2 / RATE - time.monotonic()))
                await run.send(frame)

    async def _read(self, transcripts: Transcripts) -> None:
        console = Console()
        view = screen.Screen(console) if console.is_terminal else None
        if view:
            view.__enter__()
        try:
            async for record in transcripts:
                score = self.scores[record.stream]
                latency = score.take(record, time.monotonic() - self.started.get(record.stream, time.monotonic()))
                note = f"+{latency:.1f} s" if latency is not None and score.live else ""
                if view:
                    view.show(record, note)
                elif text := screen.line(record):
                    click.echo(f"{text}  {note}".rstrip())
                if all(one.completed for one in self.scores.values()):
                    return
        finally:
            if view:
                view.__exit__()

    def summarise(self) -> bool:
        """Print a line for each run; return whether every caption arrived and is right."""
        passed = True
        click.echo()
        for name, score in self.scores.items():
            wer = score.wer()
            good = score.completed and bool(score.finals) and wer <= _MOST_WER
            passed = passed and good
            words = len(score.talk.text.split())
            state = "ok" if good else "WRONG" if score.completed else "MISSING"
            click.echo(
                f"{name:12} {state:8} WER {wer:6.1%} of {words} words, {len(score.finals)} finals{_times(score)}"
            )
        live = [score for score in self.scores.values() if score.live]
        for what, values in (
            ("partials", [value for score in live for value in score.partial_latencies]),
            ("finals", [value for score in live for value in score.final_latencies]),
        ):
            median, most = percentiles(values)
            click.echo(f"latency of {what:9} p50 {median:.2f} s, p95 {most:.2f} s ({len(values)})")
        return passed


def _times(score: Score) -> str:
    if score.live:
        return f", {len(score.partial_latencies)} partials"
    return ", as a file"


def _save(path: Path, talk: Talk) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(talk.pcm)
