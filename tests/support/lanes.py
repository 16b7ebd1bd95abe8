"""What the tests of lanes share: records as the agents write them, a worker that counts, and what came of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import Backend
from kaption.domain.pool.ports import Sessions
from kaption.testing.backends import CountingBackend
from kaption.testing.objects import MemoryObjects
from kaption.testing.sessions import CountingSessions
from kaption_gpu.worker import Sinks, Worker, WorkerParts
from kaption_schemas.headers import event_headers, pcm_type, sequence, text_headers
from kaption_schemas.records import StreamEnded, StreamStarted
from kaption_schemas.topics import LIVE, Type

RUNS = [f"01J{'0' * 22}{digit}" for digit in "123456789"]
TENTH = 1600  # samples


@dataclass
class Publisher:
    """Writes the records that the agents would."""

    producer: AIOKafkaProducer
    tenant: str = "default"
    sent: int = 0

    async def send(self, topic: str, stream: str, run: str, kind: Type, body: bytes, **extra: str) -> None:
        content = extra.pop("content_type", "application/json")
        headers = event_headers(
            kind, id=f"{run}/{kind}", source="/kaption/streams", run=run, content_type=content, extra=extra
        )
        await self.producer.send_and_wait(topic, body, key=f"{self.tenant}/{stream}".encode(), headers=headers)
        self.sent += 1

    async def start(self, stream: str, run: str, topic: str = LIVE.name) -> None:
        await self.send(topic, stream, run, Type.STARTED, StreamStarted().model_dump_json().encode(), received="1")

    async def chunk(self, stream: str, run: str, number: int, value: int, samples: int = TENTH) -> None:
        await self.send(
            LIVE.name, stream, run, Type.CHUNK, np.full(samples, value, "<i2").tobytes(),
            content_type=pcm_type(16000, 1), sequence=sequence(number), firstsample=str(number * samples), received="1",
        )  # fmt: skip

    async def end(self, stream: str, run: str, last: int, topic: str = LIVE.name) -> None:
        body = StreamEnded(last_sequence=last).model_dump_json().encode()
        await self.send(topic, stream, run, Type.ENDED, body, received="1")


@asynccontextmanager
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    producer = AIOKafkaProducer(**security(settings))
    await producer.start()
    try:
        yield Publisher(producer)
    finally:
        await producer.stop()


@asynccontextmanager
async def working(
    settings: Settings,
    backend: Backend | None = None,
    objects: MemoryObjects | None = None,
    sinks: Sinks = Sinks(),  # noqa: B008  # frozen
    sessions: Sessions | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    """A worker that drains at the end."""
    stop = asyncio.Event()
    parts = WorkerParts(
        settings, backend or CountingBackend(), sessions or CountingSessions(), objects or MemoryObjects(), sinks
    )
    worker = Worker(parts)
    task = asyncio.create_task(worker.run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait([task])
    await task


async def crash(task: asyncio.Task[None]) -> None:
    """End a worker without a drain."""
    task.cancel()
    await asyncio.wait([task])


async def read(
    settings: Settings,
    topic: str,
    enough: Callable[[list[ConsumerRecord]], bool],
    isolation: str = "read_committed",
) -> list[ConsumerRecord]:
    """Everything committed on ``topic``, until it is ``enough``, and for half a second more."""
    consumer = Consumer(
        **security(settings), isolation_level=isolation, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    records: list[ConsumerRecord] = []
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(settings.partitions)])
        try:
            async with asyncio.timeout(40):
                while not enough(records):
                    for batch in (await consumer.getmany(timeout_ms=100)).values():
                        records += batch
        except TimeoutError:
            pytest.fail(f"{topic}: not enough in {[text_headers(r.headers)['ce_id'] for r in records]}")
        for batch in (await consumer.getmany(timeout_ms=500)).values():
            records += batch
    finally:
        await consumer.stop()
    return records


async def read_anew(
    settings: Settings, topic: str, enough: Callable[[list[ConsumerRecord]], bool]
) -> list[ConsumerRecord]:
    """As ``read``, where a writer may have died in a transaction.

    The embedded broker tells a reader of an aborted transaction again behind its end, so that it skips what the producer
    commits later; one that begins at the start, once all is there, reads it as it should be (docs/hazards.md).
    """
    await read(settings, topic, enough, isolation="read_uncommitted")
    return await read(settings, topic, enough)


def completed(*runs: str) -> Callable[[list[ConsumerRecord]], bool]:
    """Whether these runs have ended."""

    def enough(records: list[ConsumerRecord]) -> bool:
        done = {json.loads(r.value)["run"] for r in records if text_headers(r.headers).get("ce_type") == Type.COMPLETED}
        return done >= set(runs)

    return enough


def ids(records: list[ConsumerRecord]) -> list[str]:
    return [text_headers(record.headers)["ce_id"] for record in records]


def finals(records: list[ConsumerRecord], run: str) -> list[tuple[int, str]]:
    """(segment, text) of a run, in the order of the log."""
    bodies = [json.loads(r.value) for r in records if text_headers(r.headers)["ce_type"] == str(Type.FINAL)]
    return [(body["segment"], body["text"]) for body in bodies if body["run"] == run]


def expected(values: list[int]) -> list[tuple[int, str]]:
    """What ``CountingSession`` says of tenths of a second with these values."""
    seconds = [values[at : at + 10] for at in range(0, len(values), 10)]
    return [(n, f"{len(part) * TENTH}:{sum(part) * TENTH}") for n, part in enumerate(seconds)]
