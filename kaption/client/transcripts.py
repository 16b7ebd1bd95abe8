"""Reads transcripts: an async iterator of typed records that keeps promise 3."""

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
#: Seconds that a rebalance waits for the record in hand: half the time that the group waits for a member.
_HAND_OVER_SECONDS: Const = 5.0


@dataclass(frozen=True, slots=True)
class Position:
    """A record's position in the log. ``timestamp_ms`` is the broker's or the writer's, depending on the topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


def parse(headers: Headers, value: bytes | None) -> Transcript | None:
    """Parse a record of an output topic. None for a type that this version does not know.

    Raises:
        pydantic.ValidationError: The body does not fit its type.
    """
    return read_transcript(headers, value)


class Transcripts:
    """Iterates over partials, finals, gaps, completions and files' progress of a tenant's streams, as they arrive.

    ::

        async with Transcripts(["meeting"]) as transcripts:
            async for record in transcripts:
                ...

    Finals come exactly once: the consumer reads committed transactions only. A partial comes only while it is news
    (``kaption.domain.reading.reader``). With a ``group``, reading resumes after the last record that the loop has handled.
    After a crash, the record in hand and those handled in the second before come again. When members join or leave the
    group, each hands over after its last handled record: no record comes to two members, unless a turn of the loop takes
    over 5 s.

    ``async for record in transcripts.until_completed()`` ends with the run, and raises ``RunFailedError`` if it was refused.
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
            tenant: The tenant to read.
            from_beginning: Start with the oldest record that is kept, unless a group has a position.
            group: Consumer group that remembers the position; its id gets the tenant's prefix. Without one, reading
                starts at the end, and each of several readers gets everything.
            partials: False reads finals, gaps and completions only, without progress.
            bootstrap: Brokers to use in place of those of ``settings``.
            settings: The connection to the brokers; default: from the environment.
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
        """Connect, and fix the position where reading starts: every record published from now on is read.

        Raises:
            aiokafka.errors.KafkaError: The brokers can't be reached, or refuse.
            LookupError: A topic is missing, or this user may not read it; the message says what to do.
        """
        grouped = self._group is not None
        consumer = Consumer(
            *(() if grouped else self._topics),
            **security(self._settings),
            group_id=self._group,  # without a group, aiokafka assigns every partition
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest" if self._from_beginning else "latest",
            fetch_max_wait_ms=_WAIT_MS,
            # Partials and finals of a stream have one partition number. A range assignor gives both to one member.
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
                # Commit before any record is handled: the partition's next owner begins here too.
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
        """Commit the handled records, and disconnect. After an error, the last record counts as not handled."""
        consumer, self._consumer = self._consumer, None
        try:
            if error is not None:
                self._in_hand = None
            self._settle()
            await self._commit(consumer)
        finally:
            await consumer.stop()

    def __aiter__(self) -> Self:
        """Iterate over the records. A second iteration continues after the last yielded record."""
        return self

    async def __anext__(self) -> Transcript:
        """Wait for the next record and return it.

        Raises:
            aiokafka.errors.KafkaError: The brokers refuse, or the log no longer has the position to read from.
        """
        self._settle()
        while True:
            await self._commit_now_and_then()
            if (item := self._buffered()) is not None:
                return item
            await self._fetch()

    async def until_completed(self, run: str | None = None) -> AsyncIterator[Transcript]:
        """Iterate over the records of one run of each named stream, until all of these runs are completed.

        Args:
            run: The run, if there is one stream. Without it: with ``from_beginning`` the newest run that is kept (unless a
                group has a position), otherwise the first one seen.

        Raises:
            RunFailedError: After the last record: a run was refused or abandoned.
            ValueError: No stream was named, or several with one ``run``.
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
        """The records of the chosen runs. With ``newest``, these are first searched for in the kept records."""
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
        """The records that the log had when reading began, as far as they are news."""
        while True:
            self._settle()
            if (item := self._buffered()) is not None:
                yield item
            elif all([await self._consumer.position(where) >= end for where, end in self._ends.items()]):
                return
            else:
                await self._fetch()

    def _buffered(self) -> Transcript | None:
        """Take the next fetched record that is news in hand."""
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
        # Finals first: a partial is no news if a final of the same fetch covers it.
        for where in sorted(fetched, key=lambda where: self._topics.index(where.topic)):
            self._fetched.extend(fetched[where])

    def _settle(self) -> None:
        """Mark the record in hand as handled: the loop asks for the next one."""
        if self._in_hand is not None:
            self._done[TopicPartition(self._in_hand.topic, self._in_hand.partition)] = self._in_hand.offset + 1
        self.position = self._in_hand = None
        self._returned.set()

    async def _hand_over(self) -> None:
        """Hand the partitions over: commit handled records, drop others, and wait for the record in hand."""
        self._fetched.clear()
        if self._consumer is None:
            return  # this reader is closing, and has committed
        try:
            await asyncio.wait_for(self._returned.wait(), _HAND_OVER_SECONDS)
        except TimeoutError:
            # The record comes again, so the group does not need the result of handling it here.
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
            # Neither text nor cause: the body may hold speech.
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
                # The group removed this member while it was busy. The partitions' new owner begins at the last commit.
                log.warning("group_left_behind: what this member handled last may be handled again by another")


class _HandOver(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Makes a reader hand over its partitions before a rebalance. A range assignor revokes all of them."""

    def __init__(self, reader: Transcripts) -> None:
        self._reader = reader

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Hand over the partitions, which may go to other members."""
        if revoked:
            await self._reader._hand_over()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Do nothing: reading begins at the committed offsets."""
