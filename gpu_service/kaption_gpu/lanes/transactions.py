"""Writes a lane's transactions, and partials with a plain producer. See HAZARDS, aiokafka 1-4.

A producer that failed is never used again. Finals are written in atomic transactions. Partials go through a bounded queue,
which sheds its oldest and never delays finals.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final as Const
from typing import Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings
from kaption_gpu.lanes.ask_once import TransactionalProducer
from kaption_gpu.lanes.data import Draft, Source
from kaption_gpu.lanes.letters import NOTHING_TOLD
from kaption_gpu.lanes.reach import Reach
from kaption_schemas.codec import Headers, Message, encode_claim, encode_lane
from kaption_schemas.errors import LaneError
from kaption_schemas.topics import MIB, STATE, Type

log = logging.getLogger(__name__)

#: A dead letter is up to 2 MiB (topics.DLQ), with its envelope.
MAX_REQUEST: Const = 2 * MIB + 64 * 1024
#: The most partials that wait; with more, the oldest are shed.
PARTIALS_QUEUE: Const = 1000
_STOP_SECONDS: Const = 5.0
#: Number of partials that are sent before their deliveries are awaited.
_PARTIALS_WINDOW: Const = 64
#: Seconds for which the producer asks for a topic that the broker does not list.
_METADATA_SECONDS: Const = 5.0


class Tracing(Protocol):
    """Makes spans for the records that a lane reads and writes."""

    def poll(self, source: Source, records: Sequence[ConsumerRecord]) -> None:
        """Note that ``records`` were read together."""

    def commit(self, source: Source, count: int) -> AbstractContextManager[object]:
        """A span around a transaction of ``count`` records."""

    def send(self, message: Message) -> Headers:
        """The headers to write: those of ``message``, with its trace continued by a new span."""


class NoTracing:
    """Leaves every record's trace unchanged."""

    def poll(self, source: Source, records: Sequence[ConsumerRecord]) -> None:
        """No span."""

    def commit(self, source: Source, count: int) -> AbstractContextManager[object]:  # noqa: ARG002  # the port's signature
        """No span."""
        return contextlib.nullcontext()

    def send(self, message: Message) -> Headers:
        """The headers, unchanged."""
        return message.headers


NO_TRACING: Const = NoTracing()


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stop within a bounded time: a producer in a fatal state may wait without end (HAZARDS, aiokafka 7)."""
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await producer.stop()
    except (TimeoutError, KafkaError, AssertionError, AttributeError):
        with contextlib.suppress(KafkaError):
            await producer.client.close()


async def _partition_for(producer: AIOKafkaProducer, topic: str, partition: int) -> int:
    """The lane's partition number modulo the topic's partitions. Raises ``TimeoutError`` if the broker lists no such topic."""
    async with asyncio.timeout(_METADATA_SECONDS):
        return partition % len(await producer.partitions_for(topic))


async def _look(producer: AIOKafkaProducer, topics: Collection[str], reach: Reach) -> None:
    """List the broker's topics, and note which of ``topics`` are missing."""
    with contextlib.suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(_METADATA_SECONDS):
            known = (await producer.client.fetch_all_metadata()).topics()
        if known:
            reach.seen(known)
            reach.fails(set(topics) - known)


class LaneWriter:
    """The transactional producer of one lane. Starting it fences the lane's previous owner."""

    def __init__(
        self, settings: Settings, source: Source, tracing: Tracing = NO_TRACING, reach: Reach | None = None
    ) -> None:
        self._source = source
        self._tracing = tracing
        self._reach = reach or Reach()
        self._group = f"{settings.group}.pool"
        self._timeout = settings.transaction_timeout_ms / 1000
        self._producer = TransactionalProducer(
            **security(settings),
            transactional_id=settings.transactional_id(source.topic, source.partition),
            transaction_timeout_ms=settings.transaction_timeout_ms,
            max_request_size=MAX_REQUEST,
            request_timeout_ms=settings.transaction_timeout_ms,
        )

    async def start(self) -> None:
        """Connect, abort the previous owner's open transaction, and fence it. Raises ``KafkaError``."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close the producer, within a bounded time. The next owner's start aborts an open transaction."""
        await stop_producer(self._producer)

    async def claim(self, *, afresh: bool = False) -> int:
        """Write the owner's claim; its offset is the owner's epoch. Raises ``LaneError``.

        ``afresh`` forgets committed dead letters: their offsets belong to other records now.
        """
        lane = str(self._source)
        forget = (encode_lane(lane, NOTHING_TOLD.value()),) if afresh else ()
        return (await self._commit((encode_claim(lane), *forget), None))[0]

    async def commit(self, draft: Draft) -> int:
        """Write ``draft`` and its input offset as one transaction. Raises ``LaneError``.

        Returns the number of records left out because their topics cannot be written to (``Reach``).
        """
        topics = {message.topic for message in draft.messages} - {STATE.name}
        if self._reach.to_look(topics):
            await _look(self._producer, topics, self._reach)
        left_out = {topic for topic in topics if self._reach.left_out(topic)}
        messages = tuple(message for message in draft.messages if message.topic not in left_out)
        try:
            with self._tracing.commit(self._source, len(messages)):
                await self._commit(messages, draft.offset)
        except LaneError as error:
            await self._note_failure(error.__cause__, topics - left_out)
            raise
        self._reach.works(topics - left_out)
        missing = len(draft.messages) - len(messages)
        if missing:
            what = {"lane": str(self._source), "topics": sorted(left_out), "records": missing}
            log.error("output_records_lost", extra=what)
        return missing

    async def _note_failure(self, cause: BaseException | None, topics: set[str]) -> None:
        """Note whether one of ``topics`` caused the failure of a transaction."""
        if isinstance(cause, TopicAuthorizationFailedError):
            named = cause.args[0] if cause.args else ()
            self._reach.fails(topics & ({named} if isinstance(named, str) else set(named)), denied=True)
        else:
            await _look(self._producer, topics, self._reach)

    async def _commit(self, messages: tuple[Message, ...], offset: int | None) -> list[int]:
        try:
            async with asyncio.timeout(self._timeout):
                await self._producer.begin_transaction()
                sent = [await self._send(message) for message in messages]
                # Await every send before the offsets: aiokafka would commit without failed ones.
                delivered = [(await future).offset for future in sent]
                if offset is not None:
                    at = {TopicPartition(self._source.topic, self._source.partition): offset}
                    await self._producer.send_offsets_to_transaction(at, self._group)
                await self._producer.commit_transaction()
        # AssertionError and AttributeError: aiokafka's own state after a fatal error (HAZARDS, aiokafka 4).
        except (KafkaError, TimeoutError, AssertionError, AttributeError) as error:
            raise LaneError(type(error).__name__) from error
        return delivered

    async def _send(self, message: Message) -> "asyncio.Future[RecordMetadata]":
        partition = await _partition_for(self._producer, message.topic, self._source.partition)
        future: asyncio.Future[RecordMetadata] = await self._producer.send(
            message.topic,
            message.value,
            key=message.key,
            partition=partition,
            headers=list(self._tracing.send(message)),
        )
        return future


class RecordMetadata:
    """The used part of aiokafka's answer to a delivery."""

    offset: int


@dataclass(frozen=True, slots=True)
class PartialsStats:
    """Partials written since the start, partials shed because the queue was full or the broker failed, and waiting records."""

    written: int
    shed: int
    waiting: int


class PartialsWriter:
    """Writes partials and files' progress in order. It reports no acknowledgements, and sheds records that it cannot write."""

    def __init__(self, settings: Settings, reach: Reach | None = None) -> None:
        self._settings = settings
        self._reach = reach or Reach()
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
        """Queue a record of the lane with this partition number. Never blocks."""
        if len(self._queue) == PARTIALS_QUEUE:
            self._shed += _partials([self._queue[0]])
        self._queue.append((message, partition))
        self._filled.set()
        self._empty.clear()

    async def run(self) -> None:
        """Write until cancelled, and replace a producer that failed."""
        while True:
            timeout = self._settings.transaction_timeout_ms
            producer = AIOKafkaProducer(**security(self._settings), enable_idempotence=True, request_timeout_ms=timeout)
            try:
                await producer.start()
                await self._write(producer)
            except (KafkaError, TimeoutError):
                await asyncio.sleep(1)
            finally:
                await stop_producer(producer)

    async def drain(self, seconds: float) -> None:
        """Wait until all records are written, for at most ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()

    async def _write(self, producer: AIOKafkaProducer) -> None:
        while True:
            if not self._queue:
                await self._filled.wait()
            self._filled.clear()
            while self._queue:
                taken = [self._queue.popleft() for _ in range(min(len(self._queue), _PARTIALS_WINDOW))]
                if self._reach.to_look({message.topic for message, _ in taken}):
                    await _look(producer, (), self._reach)
                batch = [item for item in taken if not self._reach.shed(item[0].topic)]
                self._shed += _partials(taken) - _partials(batch)
                topics = {message.topic for message, _ in batch}
                try:
                    futures = [await self._send(producer, *item) for item in batch]
                    for future in futures:
                        await future
                except (KafkaError, TimeoutError) as error:
                    # Count them only now: a counter that was read during the delivery could not be decreased.
                    self._shed += _partials(batch)
                    if isinstance(error, TopicAuthorizationFailedError):
                        self._reach.fails(topics & set(map(str, error.args)), denied=True)
                    await _look(producer, topics, self._reach)
                    raise
                self._reach.works(topics)
                self._written += _partials(batch)
            self._empty.set()

    async def _send(self, producer: AIOKafkaProducer, message: Message, lane: int) -> "asyncio.Future[RecordMetadata]":
        partition = await _partition_for(producer, message.topic, lane)
        future: asyncio.Future[RecordMetadata] = await producer.send(
            message.topic, message.value, key=message.key, partition=partition, headers=list(message.headers)
        )
        return future


def _partials(records: Iterable[tuple[Message, int]]) -> int:
    """The number of partials among the records."""
    return sum(message.kind is Type.PARTIAL for message, _ in records)
