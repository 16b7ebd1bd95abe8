"""Reading transcripts: an async iterator of typed records with promise 3 applied."""

import logging
import time
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from typing import Final as Const

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from pydantic import ValidationError

from kaption.adapters.kafka import security
from kaption.adapters.presence import require_topics
from kaption.adapters.settings import Settings
from kaption.domain.events import is_undecodable
from kaption.domain.reader import Reader, Transcript
from kaption_schemas.headers import text_headers
from kaption_schemas.records import FinalTranscript, Gap, PartialTranscript, StreamCompleted, StreamProgress
from kaption_schemas.topics import DEFAULT_TENANT, FINAL, PARTIAL, Type, topic_name

log = logging.getLogger(__name__)

_MODELS: Const[dict[str, type[Transcript]]] = {
    Type.PARTIAL: PartialTranscript,
    Type.FINAL: FinalTranscript,
    Type.GAP: Gap,
    Type.COMPLETED: StreamCompleted,
    Type.PROGRESS: StreamProgress,
}
_WAIT_MS: Const = 100
_BATCH: Const = 500
_COMMIT_SECONDS: Const = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stood in the log; ``timestamp_ms`` is the broker's or its writer's, as the topic says."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


def parse(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> Transcript | None:
    """A record of an output topic, typed; None for a type that this version does not know.

    Raises:
        pydantic.ValidationError: The body is not what its type says.
    """
    model = _MODELS.get(text_headers(headers).get("ce_type", ""))
    return None if model is None else model.model_validate_json(value or b"")


class Transcripts:
    """Partials, finals, gaps and completions of a tenant's streams, and how far their files are, as they come.

    ::

        async with Transcripts(["meeting"]) as transcripts:
            async for record in transcripts:
                ...

    Finals come exactly once: the consumer reads committed transactions only. A partial comes only while it is news
    (``kaption.domain.reader``). With a ``group`` reading resumes behind the last record whose turn of the loop ended,
    so a record that was being handled at a crash comes again.
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
            from_beginning: Start with the oldest record that is kept, where no group has a place yet.
            group: Consumer group that remembers the place; its id gets the tenant's prefix. Without one, reading
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
        self.place: Place | None = None
        """Where the record stood that was yielded last."""

    async def __aenter__(self) -> Self:
        """Connect, and settle where reading starts: whatever is published from now on is read.

        Raises:
            aiokafka.errors.KafkaError: The brokers can't be reached, or refuse.
            LookupError: A topic is not there, or not for this user; the message says what to do.
        """
        consumer = AIOKafkaConsumer(
            *self._topics,
            **security(self._settings),
            group_id=self._group,  # without one aiokafka assigns every partition
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest" if self._from_beginning else "latest",
            fetch_max_wait_ms=_WAIT_MS,
            # Partials and finals of a stream have one partition number; a range assignor gives both to one member.
            partition_assignment_strategy=(RangePartitionAssignor,),
        )
        try:
            await require_topics(self._settings, *self._topics)
            await consumer.start()
            for where in consumer.assignment():
                await consumer.position(where)
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what was handled, and disconnect. After an error the last record counts as not handled."""
        consumer, self._consumer = self._consumer, None
        try:
            if error is None:
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
            aiokafka.errors.KafkaError: The brokers refuse, or the place to read from is no longer kept.
        """
        self._settle()
        while True:
            await self._commit_now_and_then()
            while self._fetched:
                record = self._fetched.popleft()
                item = self._news(record)
                self.place = Place(record.topic, record.partition, record.offset, record.timestamp)
                if item is not None:
                    return item
                self._settle()
            fetched = await self._consumer.getmany(timeout_ms=_WAIT_MS, max_records=_BATCH)
            # Finals first: a partial that a final of the same fetch settles is no news.
            for where in sorted(fetched, key=lambda where: self._topics.index(where.topic)):
                self._fetched.extend(fetched[where])

    def _settle(self) -> None:
        """The loop came back for more: the record that it had is handled."""
        if self.place is not None:
            self._done[TopicPartition(self.place.topic, self.place.partition)] = self.place.offset + 1
            self.place = None

    def _news(self, record: ConsumerRecord) -> Transcript | None:
        if is_undecodable(record.headers):
            log.warning(
                "skipped an unreadable batch at %s-%s, up to @%s", record.topic, record.partition, record.offset
            )
            return None
        if self._streams is not None and (record.key or b"").decode("utf-8", "replace") not in self._streams:
            return None
        try:
            item = parse(record.headers, record.value)
        except ValidationError:
            # No text and no cause: the body may be speech.
            log.warning("skipped an unreadable record at %s-%s@%s", record.topic, record.partition, record.offset)
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
            await consumer.commit(offsets)
