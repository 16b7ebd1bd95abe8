"""Reading transcripts: an async iterator of typed records with promise 3 applied."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from typing import Final as Const

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError
from pydantic import ValidationError

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.kafka.presence import require_topics
from kaption.adapters.settings import Settings
from kaption.domain.reading.reader import Newest, OneRun, Reader
from kaption_schemas.codec import Headers, is_undecodable, read_transcript
from kaption_schemas.records import Transcript
from kaption_schemas.topics import DEFAULT_TENANT, FINAL, PARTIAL, topic_name

log = logging.getLogger(__name__)

_WAIT_MS: Const = 100
_BATCH: Const = 500
_COMMIT_SECONDS: Const = 1.0
#: How long a rebalance waits for the record in hand; half of what the group waits for a member.
_HAND_OVER_SECONDS: Const = 5.0


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stood in the log; ``timestamp_ms`` is the broker's or its writer's, as the topic says."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


def parse(headers: Headers, value: bytes | None) -> Transcript | None:
    """A record of an output topic, typed; None for a type that this version does not know.

    Raises:
        pydantic.ValidationError: The body is not what its type says.
    """
    return read_transcript(headers, value)


class Transcripts:
    """Partials, finals, gaps and completions of a tenant's streams, and how far their files are, as they come.

    ::

        async with Transcripts(["meeting"]) as transcripts:
            async for record in transcripts:
                ...

    Finals come exactly once: the consumer reads committed transactions only. A partial comes only while it is news
    (``kaption.domain.reading.reader``). With a ``group`` reading resumes behind the last record whose turn of the loop ended,
    so what was handled in the second before a crash comes again, and what was in hand. When members of the group come and go, each hands
    over behind what it handled: nothing comes to two of them, unless a turn of the loop takes over 5 s.

    ``async for record in transcripts.until_completed()`` ends with the run, and raises ``RunFailedError`` where that was refused.
    """

    def __init__(
        self,
        streams: Collection[str] | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        from_beginning: bool = False,
        group: str | None = None,
        partials: bool = True,
        bootstrap: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        """Nothing is read before ``async with``.

        Args:
            streams: Names to read; None reads all of the tenant's.
            tenant: Whose topics to read.
            from_beginning: Start with the oldest record that is kept, where no group has a position yet.
            group: Consumer group that remembers the position; its id gets the tenant's prefix. Without one, reading
                starts at the end and several readers each get everything.
            partials: False reads finals, gaps and completions only, and no progress either.
            bootstrap: Brokers, where they are not those of ``settings``.
            settings: How to reach the brokers; default: the environment's.
        """
        base = settings or Settings()
        self._settings = base if bootstrap is None else base.model_copy(update={"kafka": bootstrap})
        self._streams = None if streams is None else frozenset(streams)
        topics = (FINAL, PARTIAL) if partials else (FINAL,)
        self._topics = tuple(topic_name(topic, tenant) for topic in topics)
        self._group = group
        if group is not None and tenant != DEFAULT_TENANT and not group.startswith(f"{tenant}."):
            self._group = f"{tenant}.{group}"
        self._from_beginning = from_beginning
        self._reader = Reader()
        self._consumer: Any = None
        self._fetched: deque[ConsumerRecord] = deque()
        self._done: dict[TopicPartition, int] = {}
        self._committed_at = 0.0
        self._ends: dict[TopicPartition, int] = {}
        self._in_hand: Position | None = None
        self._returned = asyncio.Event()
        self._returned.set()
        self.position: Position | None = None
        """Where the record stood that was yielded last; None for what ``until_completed`` yields of the past."""

    async def __aenter__(self) -> Self:
        """Connect, and settle where reading starts: whatever is published from now on is read.

        Raises:
            aiokafka.errors.KafkaError: The brokers can't be reached, or refuse.
            LookupError: A topic is not there, or not for this user; the message says what to do.
        """
        grouped = self._group is not None
        consumer = Consumer(
            *(() if grouped else self._topics),
            **security(self._settings),
            group_id=self._group,  # without one aiokafka assigns every partition
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest" if self._from_beginning else "latest",
            fetch_max_wait_ms=_WAIT_MS,
            # Partials and finals of a stream have one partition number; a range assignor gives both to one member.
            partition_assignment_strategy=(RangePartitionAssignor,),
        )
        self._consumer = consumer
        try:
            await require_topics(self._settings, *self._topics)
            if grouped:
                consumer.subscribe(self._topics, listener=_HandOver(self))
            await consumer.start()
            positions = {where: await consumer.position(where) for where in consumer.assignment()}
            if grouped:
                # Committed even before anything is handled: who gets the partition next begins here too.
                self._done = positions | self._done
            elif self._from_beginning:
                self._ends = await consumer.end_offsets(list(positions))
        except BaseException:
            await consumer.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what was handled, and disconnect. After an error the last record counts as not handled."""
        consumer, self._consumer = self._consumer, None
        try:
            if error is not None:
                self._in_hand = None
            self._settle()
            await self._commit(consumer)
        finally:
            await consumer.stop()

    def __aiter__(self) -> Self:
        """The records; iterating again goes on behind the record that was yielded last."""
        return self

    async def __anext__(self) -> Transcript:
        """The next record; waits for as long as there is none.

        Raises:
            aiokafka.errors.KafkaError: The brokers refuse, or the position to read from is no longer kept.
        """
        self._settle()
        while True:
            await self._commit_now_and_then()
            if (item := self._buffered()) is not None:
                return item
            await self._fetch()

    async def until_completed(self, run: str | None = None) -> AsyncIterator[Transcript]:
        """The records of one run of each stream that was named, until all of these runs are completed.

        Args:
            run: The run, where there is one stream. Without it, the newest that is kept with ``from_beginning`` (unless a
                group's position counts), otherwise the first one seen.

        Raises:
            RunFailedError: Behind the last record: a run was refused, or given up.
            ValueError: No streams were named, or several with one ``run``.
            aiokafka.errors.KafkaError: As with plain iteration.
        """
        if not self._streams or (run and len(self._streams) > 1):
            raise ValueError("until_completed needs the streams' names, and a run needs one stream")
        one = OneRun(self._streams, run)
        async for record in self._of(one, newest=bool(self._ends) and not run):
            yield record
            if one.after(record):
                self._settle()
                one.check()
                return

    async def _of(self, one: OneRun, *, newest: bool) -> AsyncIterator[Transcript]:
        """The records of the runs that are read, which with ``newest`` are looked for in what is kept."""
        found = Newest()
        if newest:
            async for record in self._past():
                found.add(record, self.position.timestamp_ms if self.position else 0)
        for stream, (run, records) in found.runs.items():
            one.choose(stream, run)
            for record in records:
                yield record
        async for record in self:
            if one.takes(record):
                yield record

    async def _past(self) -> AsyncIterator[Transcript]:
        """What was in the log when reading began, as far as it is news."""
        while True:
            self._settle()
            if (item := self._buffered()) is not None:
                yield item
            elif all([await self._consumer.position(where) >= end for where, end in self._ends.items()]):
                return
            else:
                await self._fetch()

    def _buffered(self) -> Transcript | None:
        """The next record that was fetched and is news, now in hand."""
        while self._fetched:
            record = self._fetched.popleft()
            item = self._news(record)
            self.position = Position(record.topic, record.partition, record.offset, record.timestamp)
            self._in_hand = self.position
            if item is not None:
                self._returned.clear()
                return item
            self._settle()
        return None

    async def _fetch(self) -> None:
        fetched = await self._consumer.getmany(timeout_ms=_WAIT_MS, max_records=_BATCH)
        # Finals first: a partial that a final of the same fetch settles is no news.
        for where in sorted(fetched, key=lambda where: self._topics.index(where.topic)):
            self._fetched.extend(fetched[where])

    def _settle(self) -> None:
        """The loop came back for more: the record that it had is handled."""
        if self._in_hand is not None:
            self._done[TopicPartition(self._in_hand.topic, self._in_hand.partition)] = self._in_hand.offset + 1
        self.position = self._in_hand = None
        self._returned.set()

    async def _hand_over(self) -> None:
        """Let others have the partitions: commit what is handled, drop what is not, and wait for what is in hand."""
        self._fetched.clear()
        if self._consumer is None:
            return  # it leaves, and has committed
        try:
            await asyncio.wait_for(self._returned.wait(), _HAND_OVER_SECONDS)
        except TimeoutError:
            # It comes again; what becomes of it here is no news to the group.
            self._in_hand = None
        await self._commit(self._consumer)

    def _news(self, record: ConsumerRecord) -> Transcript | None:
        if is_undecodable(record.headers):
            log.warning(
                "batch_skipped topic=%s partition=%s last_offset=%s", record.topic, record.partition, record.offset
            )
            return None
        if self._streams is not None and (record.key or b"").decode("utf-8", "replace") not in self._streams:
            return None
        try:
            item = parse(record.headers, record.value)
        except ValidationError:
            # No text and no cause: the body may be speech.
            log.warning("record_skipped topic=%s partition=%s offset=%s", record.topic, record.partition, record.offset)
            return None
        return item if item is not None and self._reader.accept(item) else None

    async def _commit_now_and_then(self) -> None:
        if time.monotonic() - self._committed_at >= _COMMIT_SECONDS:
            await self._commit(self._consumer)

    async def _commit(self, consumer: Any) -> None:
        self._committed_at = time.monotonic()
        done, self._done = self._done, {}
        if self._group is None:
            return
        mine = consumer.assignment()
        if offsets := {where: offset for where, offset in done.items() if where in mine}:
            try:
                await consumer.commit(offsets)
            except CommitFailedError:
                # The group gave this member up while it was busy; who has the partitions now begins at the last commit.
                log.warning("group_left_behind: what this member handled last may be handled again by another")


class _HandOver(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Has a reader hand over its partitions before the group shares them out anew; a range assignor takes all of them."""

    def __init__(self, reader: Transcripts) -> None:
        self._reader = reader

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """The partitions are about to go to others."""
        if revoked:
            await self._reader._hand_over()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Nothing to do: reading begins at what is committed."""
