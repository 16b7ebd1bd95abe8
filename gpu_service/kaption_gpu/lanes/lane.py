"""Runs a lane: one assigned partition, from its takeover to its revocation. It reads records and commits transactions.

``LaneMemory`` keeps the state; the lane is the I/O around it. If a transaction fails, the lane discards memory and
producer, and begins again from the committed state (HAZARDS, aiokafka 2-4).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final as Const

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.fetching import LogEnd
from kaption.adapters.settings import Settings
from kaption.domain.pool.ports import Admission, Objects, Sessions, takes_all
from kaption.domain.records import RunKey
from kaption_gpu.lanes.chunk_reading import ChunkReader
from kaption_gpu.lanes.clock import BrokerClock
from kaption_gpu.lanes.data import Draft, Source
from kaption_gpu.lanes.intake import Intake
from kaption_gpu.lanes.memory import LaneMemory
from kaption_gpu.lanes.opening import open_lane
from kaption_gpu.lanes.reach import Reach
from kaption_gpu.lanes.transactions import NO_TRACING, LaneWriter, Tracing
from kaption_schemas.errors import IncompatibleError, LaneError, StoreError

log = logging.getLogger(__name__)

#: Seconds for which finals are collected into one transaction.
COMMIT_INTERVAL: Const = 0.1
#: The first and the longest pause, in seconds, before the lane tries a broker again.
_BACKOFF_SECONDS: Const = (0.2, 5.0)


class State(StrEnum):
    """The state of a lane. ``STOPPED``: a snapshot is unreadable, so the lane waits for another version of the code."""

    OPENING = "opening"
    READY = "ready"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class LaneParts:
    """The parts that all lanes of a process share.

    ``wake`` wakes the loop after a change. ``committed`` and ``failed`` report a transaction's result to the statistics.
    ``log_end`` gives a partition's end and the time at which the broker was asked for it.
    """

    settings: Settings
    consumer: AIOKafkaConsumer
    sessions: Sessions
    objects: Objects
    chunks: ChunkReader
    log_end: Callable[[TopicPartition], LogEnd | None]
    wake: Callable[[], None]
    committed: Callable[[Source, Draft], None]
    failed: Callable[[Source], None]
    tracing: Tracing = NO_TRACING
    refusal: Admission = takes_all
    reach: Reach | None = None
    left_out: Callable[[Source, int], None] = lambda _source, _records: None
    clock: Callable[[], BrokerClock] = BrokerClock


@dataclass(frozen=True, slots=True)
class LaneStats:
    """Statistics of a lane.

    It has the number of open runs, the seconds of audio that no final covers, the seconds since the last commit, and the
    seconds by which its reading is late.
    """

    source: Source
    ready: bool
    runs: int
    backlog_seconds: float
    commit_age_s: float
    reading_s: float


class Lane:
    """One partition. ``run`` works until cancelled; the worker's loop calls the other methods, between awaits."""

    def __init__(self, source: Source, parts: LaneParts) -> None:
        self.source = source
        self.tp = TopicPartition(source.topic, source.partition)
        self.state = State.OPENING
        self.memory: LaneMemory | None = None
        self.paused = True
        self._parts = parts
        self._clock = parts.clock()
        self._writer: LaneWriter | None = None
        self._intake = Intake(source, parts.chunks, parts.settings.work_bucket, parts.wake)
        self._fetch_from = 0
        self._pending = asyncio.Event()
        self._committing = asyncio.Lock()
        self._failed = False
        self._out_of_range = False
        self._opened_at = 0
        self._committed_at = time.monotonic()
        self._removals: set[asyncio.Task[None]] = set()

    # Life

    async def run(self) -> None:
        """Open the lane and commit its outputs, again after each failure, until cancelled."""
        delay = _BACKOFF_SECONDS[0]
        while self.state is not State.STOPPED:
            began = time.monotonic()
            try:
                await self._serve()
            except (KafkaError, LaneError, TimeoutError) as error:
                log.warning(
                    "lane_restarted",
                    extra={"lane": str(self.source), "cause": type(error.__cause__ or error).__name__},
                )
            except IncompatibleError:
                log.exception("snapshot_unreadable", extra={"lane": str(self.source)})
                self.state = State.STOPPED
            finally:
                await self._discard()
            if time.monotonic() - began > _BACKOFF_SECONDS[1]:
                delay = _BACKOFF_SECONDS[0]
            await asyncio.sleep(delay)
            delay = min(2 * delay, _BACKOFF_SECONDS[1])

    async def _serve(self) -> None:
        """Take the lane over, and commit until a step fails."""
        parts = self._parts
        self._clock = parts.clock()
        self._writer = LaneWriter(parts.settings, self.source, parts.tracing, parts.reach)
        memory = await open_lane(
            parts.consumer,
            parts.settings,
            self.source,
            parts.sessions,
            self._clock,
            self._writer,
            out_of_range=self._out_of_range,
            refusal=parts.refusal,
        )
        self._failed = self._out_of_range = False
        self._fetch_from = self._opened_at = memory.position
        parts.consumer.seek(self.tp, memory.position)
        self.memory, self.state = memory, State.READY
        self._pause(paused=False)
        log.info(
            "lane_ready",
            extra={
                "lane": str(self.source),
                "position": memory.position,
                "epoch": memory.epoch,
                "runs": memory.open_runs,
            },
        )
        while not self._failed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._pending.wait()
            self._pending.clear()
            if await self._commit():
                await asyncio.sleep(COMMIT_INTERVAL)
        raise LaneError("restart")

    async def _commit(self) -> bool:
        """Write the transaction that is due. Returns whether there was one."""
        async with self._committing:
            memory, writer = self.memory, self._writer
            draft = memory.draft(self._clock.now()) if memory else None
            if memory is None or draft is None or writer is None:
                return False
            try:
                left_out = await writer.commit(draft)
            except LaneError:
                self._parts.failed(self.source)
                raise
            memory.committed()
            memory.partials.extend(draft.progress)
        self._committed_at = time.monotonic()
        self._parts.wake()  # a run may have waited for the run that is closed now
        self._parts.committed(self.source, draft)
        if left_out:
            self._parts.left_out(self.source, left_out)
        for run in draft.finished:
            task = asyncio.create_task(self._remove(run))
            self._removals.add(task)
            task.add_done_callback(self._removals.discard)
        return True

    async def _remove(self, run: RunKey) -> None:
        """Delete a finished run's normalised object. If that fails, the object expires later."""
        try:
            await asyncio.to_thread(self._parts.objects.remove, run)
        except StoreError:
            log.warning("object_not_deleted", extra={"lane": str(self.source)})

    async def drain(self) -> None:
        """Commit pending outputs before an orderly stop. A failure only costs a replay."""
        with contextlib.suppress(LaneError):
            await self._commit()
        if self._removals:
            await asyncio.wait(self._removals, timeout=2)

    async def _discard(self) -> None:
        """Drop memory, records and producer: only committed state counts."""
        self.memory = None
        if self.state is State.READY:
            self.state = State.OPENING
        self._intake.clear()
        self._pause(paused=True)
        writer, self._writer = self._writer, None
        if writer:
            await writer.stop()

    def restart(self) -> None:
        """Begin again, after a fetch was refused because its offset is not in the log.

        The log has lost committed records only if that offset was the committed one. Otherwise the lane returns to the
        committed offset.
        """
        self._out_of_range = self._fetch_from == self._opened_at
        self._failed = True
        self._pending.set()

    def on_assigned(self) -> None:
        """Continue at the same offset after a rebalance that kept the lane here. Called before any fetch."""
        self.paused = False
        if self.state is State.READY:
            self._parts.consumer.seek(self.tp, self._fetch_from)
        else:
            self._parts.consumer.seek(self.tp, 0)  # while paused, any position will do; without one aiokafka raises
            self._pause(paused=True)

    # Records in

    def offer(self, records: list[ConsumerRecord]) -> None:
        """Take records that were read. A lane that is not ready drops them, since its seek reads them again."""
        if self.state is not State.READY or self.memory is None:
            return
        for record in records:
            if record.offset < self._fetch_from:
                continue
            self._fetch_from = record.offset + 1
            self._clock.seen(record.timestamp)
            self._intake.add(record)

    def pump(self) -> None:
        """Hand records to the sessions while their bytes are there and memory has room. Then pause or resume reading."""
        memory = self.memory
        if memory is None:
            return
        self._log_faults(memory)
        self._intake.fetch_ahead(memory)
        while memory.has_room() and (record := self._intake.take(memory)):
            self._log_faults(memory, record.offset)
        full = self._intake.full or not memory.has_room()
        if full != self.paused:
            self._pause(paused=full)
        if memory.has_pending():
            self._pending.set()

    def tick(self) -> None:
        """Let time pass in the sessions: up to the last record, or at the partition's end up to the fetch that found no more.

        The current time does not count: a worker that was stopped or disconnected does not know what came meanwhile.
        """
        if (memory := self.memory) is not None:
            asked = self._end_asked(memory)
            memory.tick(memory.record_ms if asked is None else max(memory.record_ms, self._clock.at(asked)))

    def now_ms(self) -> int:
        """The broker's time, in ms since 1970."""
        return self._clock.now()

    def stats(self) -> LaneStats:
        """The lane's current statistics."""
        memory = self.memory
        runs, held = (memory.open_runs, memory.backlog_seconds()) if memory else (0, 0.0)
        return LaneStats(
            self.source,
            self.state is State.READY,
            runs,
            held,
            time.monotonic() - self._committed_at if runs else 0.0,
            memory.reading_late(self.now_ms()) if memory and self._end_asked(memory) is None else 0.0,
        )

    def unread(self, consumer: AIOKafkaConsumer) -> int | None:
        """The next offset to read, if the log has records from there on. None if there is nothing to read."""
        if self.state is not State.READY or self.paused or self.tp not in consumer.assignment():
            return None
        highwater = consumer.highwater(self.tp)
        return self._fetch_from if highwater is not None and highwater > self._fetch_from else None

    def _end_asked(self, memory: LaneMemory) -> float | None:
        """The time (``time.monotonic``) at which the log held no untaken records. None if it holds some, or if that is unknown."""
        if self._intake or self.paused or self.tp not in self._parts.consumer.assignment():
            return None
        end = self._parts.log_end(self.tp)
        return None if end is None or memory.position < end.offset else end.asked

    def _log_faults(self, memory: LaneMemory, offset: int | None = None) -> None:
        """Log the sessions' exceptions: on the record at ``offset``, or without one on a result or a tick."""
        for cause in memory.faults:
            log.error("session_failed", extra={"lane": str(self.source), "offset": offset, "cause": cause})
        memory.faults.clear()

    def _pause(self, *, paused: bool) -> None:
        consumer = self._parts.consumer
        self.paused = paused
        if self.tp in consumer.assignment():
            (consumer.pause if paused else consumer.resume)(self.tp)
