"""A tenant who says the same again and again, in real time, and what its reader has of it: finals, and how late each was."""

import asyncio
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings
from kaption.testing.pipeline import frames, kind
from kaption_schemas.topics import DLQ, EVENTS, FINAL, PARTIAL, Type, topic_name
from tests.support.pool import speech

FRAME_MS = 100
#: Speech that is said, and how much of it, seconds.
SAID, SECONDS = "harbour-4-slt", 13.0
#: Between two times, seconds.
_PAUSE = 0.3


@dataclass
class Times:
    """When something was heard by the broker and by the reader, ms since 1970."""

    published: float
    shown: float

    @property
    def late(self) -> float:
        """Seconds between the two."""
        return (self.shown - self.published) / 1000


@dataclass
class Once:
    """One time: ``published`` are the broker's times of its frames, ``shown`` when a caption first covered each, by its number."""

    published: list[float] = field(default_factory=list)
    shown: dict[int, float] = field(default_factory=dict)
    finals: list[dict[str, Any]] = field(default_factory=list)
    final_at: list[float] = field(default_factory=list)
    completed: asyncio.Event = field(default_factory=asyncio.Event)
    partials: int = 0

    def take(self, what: str, body: dict[str, Any], now: float) -> None:
        """A record of this run that was read at ``now``."""
        if what == Type.COMPLETED:
            self.completed.set()
            return
        if what == Type.FINAL:
            self.finals.append(body)
            self.final_at.append(now)
        self.partials += what == Type.PARTIAL
        for number in range(body["start_ms"] // FRAME_MS, min(len(self.published), body["end_ms"] // FRAME_MS)):
            self.shown.setdefault(number, now)

    def said(self) -> list[Any]:
        """What its finals say and when, without what names the run."""
        times = ("segment", "start_sample", "end_sample", "speech_start_sample", "speech_end_sample", "text", "words")
        return [[body[name] for name in times] for body in sorted(self.finals, key=lambda body: body["segment"])]

    def captions(self) -> Iterator[Times]:
        """Of each tenth of a second with speech: until the first caption that reaches to its end."""
        for body in self.finals:
            if body["text"]:
                for number in range(
                    *(body[f"speech_{end}_sample"] * 1000 // body["rate"] // FRAME_MS for end in ("start", "end"))
                ):
                    yield Times(self.published[number], self.shown[number])

    def ends(self) -> Iterator[Times]:
        """Of each final with speech: from the end of the speech to the final."""
        for body, now in zip(self.finals, self.final_at, strict=True):
            if body["text"]:
                frame = math.ceil(body["speech_end_sample"] * 1000 / body["rate"] / FRAME_MS) - 1
                yield Times(self.published[frame], now)


class QuietTenant:
    """Speaks and reads until it is told to stop. ``runs`` has every time, ``letters`` its dead letters (there should be none)."""

    def __init__(self, settings: Settings, tenant: str) -> None:
        self.runs: dict[str, Once] = {}
        self.letters: list[ConsumerRecord] = []
        self._settings, self._tenant = settings, tenant
        self._pcm, self._rate = speech(SAID, SECONDS)
        self._stopping = False

    def stop(self) -> None:
        """Say it no more after this time."""
        self._stopping = True

    async def first(self) -> Once:
        """The first time, once it is complete."""
        while not self.runs:
            await asyncio.sleep(0.1)
        run = next(iter(self.runs.values()))
        await run.completed.wait()
        return run

    def differing(self) -> list[int]:
        """Which of the times that are complete came out otherwise than the first."""
        first, *others = [run.said() if run.completed.is_set() else None for run in self.runs.values()]
        return [number for number, said in enumerate(others, 1) if said not in (None, first)]

    async def speak(self) -> None:
        """Say it again and again, on two streams in turn."""
        async with AIOKafkaProducer(**security(self._settings), acks="all") as producer:
            while not self._stopping:
                number = len(self.runs)
                run = f"01K{number:023d}"
                self.runs[run] = once = Once()
                begin = time.monotonic()
                for at, (key, value, headers) in enumerate(frames(f"quiet-{number % 2}", run, self._pcm, self._rate)):
                    await asyncio.sleep(begin + (at + 1) * FRAME_MS / 1000 - time.monotonic())
                    name = topic_name(EVENTS, self._tenant)
                    taken = await producer.send_and_wait(name, value, key=key, headers=headers)
                    once.published.append(taken.timestamp)
                await asyncio.sleep(_PAUSE)

    async def listen(self) -> None:
        """Read captions, finals and dead letters until cancelled."""
        names = [topic_name(topic, self._tenant) for topic in (PARTIAL, FINAL, DLQ)]
        async with AIOKafkaConsumer(
            **security(self._settings), isolation_level="read_committed", auto_offset_reset="earliest"
        ) as consumer:
            consumer.assign([TopicPartition(name, n) for name in names for n in range(self._settings.partitions)])
            while True:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    now = time.time() * 1000
                    for record in records:
                        self._take(record, now)

    def _take(self, record: ConsumerRecord, now: float) -> None:
        if record.topic == topic_name(DLQ, self._tenant):
            self.letters.append(record)
        elif (what := kind(record)) in (Type.PARTIAL, Type.FINAL, Type.COMPLETED):
            body = json.loads(record.value)
            self.runs[body["run"]].take(what, body, now)
