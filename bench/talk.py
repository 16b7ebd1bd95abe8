"""Runs streams that talk in real time on a running pipeline until they are stopped, for the long benchmarks."""

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer
from ulid import ULID

from bench.live import FRAME, OPTIONS, RATE, Watched, watch
from bench.processes import usages
from bench.speech import Spoken
from kaption.adapters.kafka.clients import security
from kaption.testing.pipeline import Record
from kaption.testing.up import Up
from kaption_schemas.headers import event_headers, pcm_type, sequence
from kaption_schemas.reasons import Reason
from kaption_schemas.records import StreamStarted
from kaption_schemas.topics import EVENTS, Type

Pcm = npt.NDArray[np.int16]


def endless(name: str, run: str, pcm: Pcm) -> Iterator[Record]:
    """Yield frames of a run that repeats ``pcm``, of shape (n, 1) at 16 kHz, without end."""
    size = round(FRAME * RATE)
    whole = len(pcm) // size
    number = 0
    while True:
        at = number % whole * size
        place = {"sequence": sequence(number), "firstsample": str(number * size)}
        headers = event_headers(
            Type.FRAME,
            id=f"{run}-{number}",
            source="/bench",
            run=run,
            extra=place,
            content_type=pcm_type(RATE, pcm.shape[1]),
        )
        yield name.encode(), pcm[at : at + size].astype("<i2").tobytes(), headers
        number += 1


@dataclass(slots=True)
class Talk:
    """One stream that talks until it is stopped."""

    name: str
    spoken: Spoken
    watched: Watched
    frames: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, producer: AIOKafkaProducer) -> None:
        """Start a run, talk in real time, end the run."""
        key, run = self.name.encode(), str(ULID())

        async def say(kind: Type, body: bytes) -> None:
            headers = event_headers(kind, id=f"{run}-{kind}", source="/bench", run=run)
            await producer.send_and_wait(EVENTS.name, body, key=key, headers=headers)

        await say(Type.STARTED, StreamStarted(options=OPTIONS).model_dump_json().encode())
        begin = time.monotonic()
        self.watched.began = time.time() * 1000
        for _, value, headers in endless(self.name, run, self.spoken.pcm):
            await asyncio.sleep(max(0.0, begin + (self.frames + 1) * FRAME - time.monotonic()))
            if self.stop.is_set():
                break
            await producer.send(EVENTS.name, value, key=key, headers=headers)
            self.frames += 1
        await say(Type.ENDED, json.dumps({"last_sequence": self.frames - 1}).encode())

    def lost(self) -> str | None:
        """Return what an ended run lost, or None: every accepted sample needs a final."""
        done, at, finals = self.watched.completed, 0, sorted(self.watched.finals, key=lambda item: item[1].segment)
        if done is None:
            return f"{self.name} was not completed"
        for number, (_, final) in enumerate(finals):
            if (final.segment, final.start_sample) != (number, at):
                return f"{self.name}: segment {final.segment} begins at {final.start_sample}, not {number} at {at}"
            at = final.end_sample
        if at != self.frames * round(FRAME * RATE) or done.gaps or done.reason is not Reason.ENDED:
            return f"{self.name}: {at} samples are final, {done.gaps} gaps, {done.reason}"
        return None


class Crowd:
    """Talking streams and their reader."""

    def __init__(self, producer: AIOKafkaProducer, streams: dict[str, Watched], stretches: list[Spoken]) -> None:
        self._producer = producer
        self._streams = streams
        self._stretches = stretches
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def add(self, count: int) -> list[Talk]:
        """Add ``count`` talking streams; they start within two seconds."""
        talks: list[Talk] = []
        for _ in range(count):
            number = len(self._streams)
            watched = self._streams.setdefault(f"talk-{number}", Watched())
            talk = Talk(f"talk-{number}", self._stretches[number % len(self._stretches)], watched)
            self._tasks[talk.name] = asyncio.create_task(talk.run(self._producer))
            talks.append(talk)
            await asyncio.sleep(min(0.2, 2 / count))
        return talks

    async def end(self, talks: list[Talk], seconds: float) -> list[str]:
        """End these streams, wait up to ``seconds`` until all are completed, and return what they lost."""
        for talk in talks:
            talk.stop.set()
        await asyncio.gather(*(self._tasks.pop(talk.name) for talk in talks))
        waiting = [asyncio.create_task(talk.watched.done.wait()) for talk in talks]
        _, late = await asyncio.wait(waiting, timeout=seconds)
        for task in late:
            task.cancel()
        return [wrong for talk in talks if (wrong := talk.lost()) is not None]

    def stop(self) -> None:
        """Stop all streams."""
        for task in self._tasks.values():
            task.cancel()


@asynccontextmanager
async def crowd(up: Up, stretches: list[Spoken]) -> AsyncIterator[Crowd]:
    """Run a crowd without streams, but with a reader."""
    settings = up.settings()
    streams: dict[str, Watched] = {}
    watching = asyncio.create_task(watch(settings, streams))
    try:
        async with AIOKafkaProducer(**security(settings), linger_ms=10) as producer:
            people = Crowd(producer, streams, stretches)
            try:
                yield people
            finally:
                people.stop()
    finally:
        watching.cancel()


def pool(up: Up) -> int:
    """Return the process id of the pipeline's one pool worker."""
    found = [pid for pid, usage in usages(up.child.pid).items() if usage.name.split()[-1] == "kaption_gpu"]
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} pool workers run")
    return found[0]


async def gauge(up: Up, name: str) -> float | None:
    """Return the highest value of a metric over all processes; None if none has it."""

    def read() -> str:
        with urllib.request.urlopen(f"{up.http}/metrics", timeout=5) as response:  # noqa: S310  # http on loopback
            return bytes(response.read()).decode()

    try:
        lines = (await asyncio.to_thread(read)).splitlines()
    except OSError:  # the process is restarting
        return None
    values = [float(line.rsplit(maxsplit=1)[1]) for line in lines if line.partition("{")[0].partition(" ")[0] == name]
    return max(values, default=None)
