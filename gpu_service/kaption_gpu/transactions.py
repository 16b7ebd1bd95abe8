"""Writing: a lane's transactional producer, and the partials' plain one. See HAZARDS, aiokafka 1-4.

A producer that failed is never used again. Finals go by transactions that either happen whole or not at all; partials go
by a bounded queue that sheds its oldest and never holds finals up.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final as Const
from typing import Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka import security
from kaption.adapters.settings import Settings
from kaption_gpu.lane_data import Draft, Source, lane_value
from kaption_gpu.records import Message, claim_message, lane_message
from kaption_schemas.headers import Headers
from kaption_schemas.topics import MIB

#: A dead letter is up to 2 MiB (topics.DLQ), with its envelope.
MAX_REQUEST: Const = 2 * MIB + 64 * 1024
#: Partials that wait at most; more shed the oldest.
PARTIALS_QUEUE: Const = 1000
_STOP_SECONDS: Const = 5.0
#: Partials whose delivery is awaited together.
_PARTIALS_WINDOW: Const = 64


class TransactionFailedError(Exception):
    """A transaction failed or its end is unclear: the lane's memory and producer must be discarded."""


class Tracing(Protocol):
    """Spans of what a lane reads and writes."""

    def poll(self, source: Source, records: Sequence[ConsumerRecord]) -> None:
        """Note that ``records`` were read together."""

    def commit(self, source: Source, count: int) -> AbstractContextManager[object]:
        """A span around a transaction of ``count`` records."""

    def send(self, message: Message) -> Headers:
        """The headers to write: those of ``message``, its trace carried on by a span of its own."""


class NoTracing:
    """Leaves every record's trace as it came."""

    def poll(self, source: Source, records: Sequence[ConsumerRecord]) -> None:
        """No span."""

    def commit(self, source: Source, count: int) -> AbstractContextManager[object]:  # noqa: ARG002  # the port's signature
        """No span."""
        return contextlib.nullcontext()

    def send(self, message: Message) -> Headers:
        """The headers as they are."""
        return message.headers


NO_TRACING: Const = NoTracing()


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stop within bounds: a producer in a fatal state may wait for ever (HAZARDS, aiokafka 7)."""
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await producer.stop()
    except (TimeoutError, KafkaError, AssertionError, AttributeError):
        with contextlib.suppress(KafkaError):
            await producer.client.close()


async def _partition_for(producer: AIOKafkaProducer, topic: str, partition: int) -> int:
    """The lane's partition number, mod the topic's."""
    return partition % len(await producer.partitions_for(topic))


class LaneWriter:
    """The transactional producer of one lane. Starting it fences the lane's previous owner."""

    def __init__(self, settings: Settings, source: Source, tracing: Tracing = NO_TRACING) -> None:
        self._source = source
        self._tracing = tracing
        self._group = f"{settings.group}.pool"
        self._timeout = settings.transaction_timeout_ms / 1000
        self._producer = AIOKafkaProducer(
            **security(settings),
            transactional_id=settings.transactional_id(source.topic, source.partition),
            transaction_timeout_ms=settings.transaction_timeout_ms,
            max_request_size=MAX_REQUEST,
            request_timeout_ms=settings.transaction_timeout_ms,
        )

    async def start(self) -> None:
        """Connect, abort what the previous owner left open, and fence it. Raises ``KafkaError``."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close the producer, within bounds; an open transaction is left to the next owner's start."""
        await stop_producer(self._producer)

    async def claim(self, *, afresh: bool = False) -> int:
        """Write the owner's claim; its offset is the owner's epoch. Raises ``TransactionFailedError``.

        ``afresh`` forgets what was dead-lettered: those offsets are other records' now.
        """
        lane = str(self._source)
        forget = (lane_message(lane, lane_value({})),) if afresh else ()
        return (await self._commit((claim_message(lane), *forget), None))[0]

    async def commit(self, draft: Draft) -> None:
        """Write ``draft`` and its input offset as one transaction. Raises ``TransactionFailedError``."""
        with self._tracing.commit(self._source, len(draft.messages)):
            await self._commit(draft.messages, draft.offset)

    async def _commit(self, messages: tuple[Message, ...], offset: int | None) -> list[int]:
        try:
            async with asyncio.timeout(self._timeout):
                await self._producer.begin_transaction()
                sent = [await self._send(message) for message in messages]
                # Every one, before the offsets: aiokafka would commit without those that failed.
                delivered = [(await future).offset for future in sent]
                if offset is not None:
                    at = {TopicPartition(self._source.topic, self._source.partition): offset}
                    await self._producer.send_offsets_to_transaction(at, self._group)
                await self._producer.commit_transaction()
        # AssertionError and AttributeError: aiokafka's own state after a fatal error (HAZARDS, aiokafka 4).
        except (KafkaError, TimeoutError, AssertionError, AttributeError) as error:
            raise TransactionFailedError(type(error).__name__) from error
        return delivered

    async def _send(self, message: Message) -> "asyncio.Future[RecordMetadata]":
        partition = await _partition_for(self._producer, message.topic, self._source.partition)
        future: asyncio.Future[RecordMetadata] = await self._producer.send(
            message.topic, message.value, key=message.key, partition=partition, headers=self._tracing.send(message)
        )
        return future


class RecordMetadata:
    """What aiokafka answers to a delivery; only this is used of it."""

    offset: int


@dataclass(frozen=True, slots=True)
class PartialsStats:
    """Since the start: partials written, shed because the queue was full or the broker failed, and records waiting now."""

    written: int
    shed: int
    waiting: int


class PartialsWriter:
    """Writes partials and files' progress in order, without acknowledgement to anyone: what cannot be written is shed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queue: deque[tuple[Message, int]] = deque(maxlen=PARTIALS_QUEUE)
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._written = self._shed = 0

    @property
    def stats(self) -> PartialsStats:
        """Counts since the start."""
        return PartialsStats(self._written, self._shed, len(self._queue))

    def offer(self, message: Message, partition: int) -> None:
        """Queue a record of the lane with this partition number; never blocks."""
        if len(self._queue) == PARTIALS_QUEUE:
            self._shed += self._queue[0][0].partial
        self._queue.append((message, partition))
        self._filled.set()
        self._empty.clear()

    async def run(self) -> None:
        """Write until cancelled. A producer that failed is replaced."""
        while True:
            producer = AIOKafkaProducer(**security(self._settings), enable_idempotence=True)
            try:
                await producer.start()
                await self._write(producer)
            except KafkaError:
                await asyncio.sleep(1)
            finally:
                await stop_producer(producer)

    async def drain(self, seconds: float) -> None:
        """Wait until all is written, ``seconds`` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()

    async def _write(self, producer: AIOKafkaProducer) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _PARTIALS_WINDOW))]
                try:
                    futures = [await self._send(producer, *item) for item in batch]
                    for future in futures:
                        await future
                except KafkaError:
                    # Only now: a counter that is read while they are under way cannot take them back.
                    self._shed += _partials(batch)
                    raise
                self._written += _partials(batch)
            self._empty.set()

    async def _send(self, producer: AIOKafkaProducer, message: Message, lane: int) -> "asyncio.Future[RecordMetadata]":
        partition = await _partition_for(producer, message.topic, lane)
        future: asyncio.Future[RecordMetadata] = await producer.send(
            message.topic, message.value, key=message.key, partition=partition, headers=message.headers
        )
        return future


def _partials(records: Iterable[tuple[Message, int]]) -> int:
    """How many of the records are partials."""
    return sum(message.partial for message, _ in records)
