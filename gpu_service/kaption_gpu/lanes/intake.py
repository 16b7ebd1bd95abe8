"""Queues the records that a lane has read and not taken yet, in order. Fetches the bytes of the next batch chunks ahead."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final as Const

from aiokafka.structs import ConsumerRecord

from kaption.domain.records import Latency
from kaption_gpu.lanes.chunk_reading import ChunkReader, Read
from kaption_gpu.lanes.data import Source
from kaption_gpu.lanes.memory import LaneMemory
from kaption_gpu.lanes.records import Incoming, parse
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason

#: The most records that are read and not taken yet. A live record is taken at once.
INTAKE: Const = {Latency.LIVE: 1000, Latency.BATCH: 32}
#: Batch chunks (30 s, up to 6 MB) that are fetched ahead.
PREFETCH: Const = 3


@dataclass(slots=True)
class _Waiting:
    """A record that was read and not taken yet. ``fetch`` gets a batch chunk's bytes."""

    record: ConsumerRecord
    incoming: Incoming | Reason
    fetch: "asyncio.Task[Read] | None" = None


class Intake:
    """The queue of one lane. ``wake`` is called when bytes have come. ``bucket`` is the bucket of batch chunks."""

    def __init__(self, source: Source, chunks: ChunkReader, bucket: str, wake: Callable[[], None]) -> None:
        self._source = source
        self._chunks = chunks
        self._bucket = bucket
        self._wake = wake
        self._waiting: deque[_Waiting] = deque()

    def __len__(self) -> int:
        """The number of waiting records."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether the lane should read no more records for now."""
        return len(self._waiting) >= INTAKE[self._source.latency]

    def add(self, record: ConsumerRecord) -> None:
        """Parse a record that was read, and queue it."""
        try:
            incoming: Incoming | Reason = parse(record, self._source.latency, self._bucket)
        except RefusedError as error:
            incoming = error.reason
        self._waiting.append(_Waiting(record, incoming))

    def clear(self) -> None:
        """Drop all waiting records."""
        for waiting in self._waiting:
            if waiting.fetch:
                waiting.fetch.cancel()
        self._waiting.clear()

    def take(self, memory: LaneMemory) -> ConsumerRecord | None:
        """Hand the next record to ``memory``. None if no record waits, or if its bytes have not come yet."""
        if not self._waiting or ((fetch := self._waiting[0].fetch) and not fetch.done()):
            return None
        waiting = self._waiting.popleft()
        record, incoming = waiting.record, waiting.incoming
        if isinstance(incoming, Reason) or waiting.fetch is None:
            if isinstance(incoming, Incoming) and memory.gave_up(record.offset):
                memory.take_unavailable(record, incoming)
            else:
                memory.take(record, incoming)
        elif (read := waiting.fetch.result()).body is None:
            memory.take_unavailable(record, incoming, read.tries)
        else:
            memory.take(record, replace(incoming, audio=replace(incoming.audio, body=read.body)))
        self.fetch_ahead(memory)
        return record

    def fetch_ahead(self, memory: LaneMemory) -> None:
        """Fetch the bytes of the next batch chunks."""
        for waiting in list(self._waiting)[:PREFETCH] if self._source.latency is Latency.BATCH else ():
            incoming = waiting.incoming
            if isinstance(incoming, Reason) or incoming.ref is None or waiting.fetch or memory.skips(incoming):
                continue
            if not memory.gave_up(waiting.record.offset):
                read = self._chunks.read(incoming.ref, str(self._source), self._wake)
                waiting.fetch = asyncio.create_task(read)
