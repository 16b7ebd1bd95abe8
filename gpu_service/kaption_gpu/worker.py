"""Runs the pool's loop: poll -> plan -> execute -> apply, for every lane of one process.

A worker has one consumer, one model, a few executors, and the lanes of its assigned partitions. Its tasks are polling,
the loop itself, the partials' writer, a watchdog, and one for each lane. The first task that fails ends the process. A
supervisor starts it again, and a replay restores everything.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any
from typing import Final as Const

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.kafka.fetching import log_end
from kaption.adapters.kafka.members import client_id, keep_removing
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import Backend, Costs
from kaption.domain.pool.overload import Step
from kaption.domain.pool.plan import DEFAULT_COSTS, Candidate, overdue_seconds
from kaption.domain.pool.ports import Objects, Sessions
from kaption.domain.records import Latency
from kaption.service.watchdog import Watchdog
from kaption_gpu import batches
from kaption_gpu.batches import BatchStats, Recovered
from kaption_gpu.decoding import Decoding
from kaption_gpu.engine.executor import Cause, Executors
from kaption_gpu.lanes.chunk_reading import ChunkReader
from kaption_gpu.lanes.data import Draft, Shown, Source
from kaption_gpu.lanes.lane import Lane, LaneParts, LaneStats
from kaption_gpu.lanes.opening import source_of
from kaption_gpu.lanes.polling import Reader
from kaption_gpu.lanes.reach import Reach
from kaption_gpu.lanes.transactions import NO_TRACING, PartialsStats, PartialsWriter, Tracing
from kaption_gpu.load import Load
from kaption_schemas.errors import StuckError
from kaption_schemas.topics import BATCH, LIVE, MIB

log = logging.getLogger(__name__)

_TICK_SECONDS: Const = 1.0
_WAKE_SECONDS: Const = 0.25
#: Seconds for work in flight to end in order, and seconds for each of the two steps that then close tasks and consumer.
_DRAIN_SECONDS: Const = 5.0
_STOP_SECONDS: Const = 1.5
_WATCH_SECONDS: Const = 5.0


@dataclass(frozen=True, slots=True)
class Sinks:
    """Callbacks for statistics, as data; telemetry renders them."""

    decoded: Callable[[BatchStats], None] = lambda _: None
    shown: Callable[[Source, Shown], None] = lambda _source, _shown: None
    committed: Callable[[Source, Draft], None] = lambda _source, _draft: None
    failed: Callable[[Source], None] = lambda _source: None
    left_out: Callable[[Source, int], None] = lambda _source, _records: None
    state: Callable[[float, PartialsStats, tuple[LaneStats, ...]], None] = lambda _overdue, _partials, _lanes: None
    overload: Callable[[Step], None] = lambda _step: None
    replaced: Callable[[Cause], None] = lambda _cause: None
    recovered: Callable[[Recovered], None] = lambda _recovered: None


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts of a worker. ``backend`` is loaded and warm. ``costs`` describe how long it takes."""

    settings: Settings
    backend: Backend
    sessions: Sessions
    objects: Objects
    sinks: Sinks = Sinks()
    tracing: Tracing = NO_TRACING
    costs: Costs = DEFAULT_COSTS


class Worker(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types that mypy follows
    """One member of the pool. ``run`` works until it is stopped."""

    def __init__(self, parts: WorkerParts) -> None:
        self.lanes: dict[TopicPartition, Lane] = {}
        self._parts = parts
        self._wake = asyncio.Event()
        self._executors = Executors(
            parts.backend, parts.settings.executors, parts.settings.hang_seconds, parts.sinks.replaced
        )
        self._load = Load(parts.settings, self._executors, self.lanes, parts.sinks.overload)
        self._decoding = Decoding(
            parts.settings,
            parts.costs,
            self._executors,
            self._waiting,
            self._spawn,
            self._wake.set,
            parts.sinks.decoded,
            parts.sinks.recovered,
        )
        self._reach = Reach()
        self._partials = PartialsWriter(parts.settings, self._reach)
        self._chunks = ChunkReader(parts.objects)
        self._consumer = self._make_consumer(parts.settings)
        self._reader = Reader(self._consumer, self.lanes, parts.tracing, self._wake.set, lambda: self._load.finals_late)
        self._lane_tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @staticmethod
    def _make_consumer(settings: Settings) -> AIOKafkaConsumer:
        return Consumer(
            **(security(settings) | {"client_id": client_id("pool")}),
            group_id=f"{settings.group}.pool",
            enable_auto_commit=False,
            # If retention has passed the committed offset, the lane reports it; the consumer must not skip it in silence.
            auto_offset_reset="none",
            partition_assignment_strategy=(StickyPartitionAssignor,),
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(settings.session_timeout_ms // 5, 200),
            # A paused partition keeps what was fetched (HAZARDS, aiokafka 8).
            max_partition_fetch_bytes=2 * MIB + 64 * 1024,
            fetch_max_wait_ms=100,
        )

    # Life

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Work until ``stop`` is set, then drain. Raises the error of a task: ``StuckError``, ``KafkaError``, a backend's error."""
        try:
            await self._consumer.start()
        except BaseException:
            await self._stop_consumer()
            raise
        self._consumer.subscribe([LIVE.name, BATCH.name], listener=self)
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in (
                ("poll", self._reader.run()),
                ("loop", self._loop()),
                ("partials", self._partials.run()),
                ("watchdog", self._watch()),
                ("members", keep_removing(self._parts.settings, f"{self._parts.settings.group}.pool")),
            )
        ]
        stopping = asyncio.create_task(stop.wait())
        ready()
        try:
            watched: list[asyncio.Future[Any]] = [*tasks, self._failed, self._executors.broken]
            await asyncio.wait([*watched, stopping], return_when=asyncio.FIRST_COMPLETED)
            for future in watched:
                if future.done():
                    future.result()
            await self._drain()
        finally:
            await self._close([*tasks, stopping])

    async def _drain(self) -> None:
        """Start no new work, let batches in flight end, and commit them."""
        self._decoding.stop()
        self._reader.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                if self._decoding.tasks:
                    await asyncio.wait(self._decoding.tasks)
                await asyncio.gather(*(lane.drain() for lane in self.lanes.values()))
                await self._partials.drain(1.0)

    async def _close(self, tasks: list[asyncio.Task[Any]]) -> None:
        own = [*tasks, *self._lane_tasks.values(), *self._decoding.tasks]
        for task in own:
            task.cancel()
        await asyncio.wait([*own, *self._ending], timeout=_STOP_SECONDS)
        await self._stop_consumer()
        self._executors.close()

    async def _stop_consumer(self) -> None:
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._consumer.stop()
        except (TimeoutError, KafkaError):
            log.warning("consumer_stop_timed_out")

    # Rebalances

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Do nothing: the assignment decides which lanes stay, and a new owner fences before it reads."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Drop revoked lanes, keep those that stay, and open new ones. Must not await: see HAZARDS, aiokafka 5."""
        now = set(assigned)
        for tp in set(self.lanes) - now:
            del self.lanes[tp]
            task = self._lane_tasks.pop(tp)
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        for tp in sorted(now):
            if tp not in self.lanes:
                self._open(tp)
            self.lanes[tp].on_assigned()
        log.info("partitions_assigned", extra={"lanes": len(now)})

    def _open(self, tp: TopicPartition) -> None:
        parts = self._parts
        lane = Lane(
            source_of(tp.topic, tp.partition),
            LaneParts(
                parts.settings,
                self._consumer,
                parts.sessions,
                parts.objects,
                self._chunks,
                partial(log_end, self._consumer),
                self._wake.set,
                parts.sinks.committed,
                parts.sinks.failed,
                parts.tracing,
                self._load.refusal,
                self._reach,
                parts.sinks.left_out,
            ),
        )
        self.lanes[tp] = lane
        self._lane_tasks[tp] = self._spawn(lane.run())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Make a task. Its failure ends the process."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_failure)
        return task

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._failed.done():
            return
        if error := task.exception():
            self._failed.set_exception(error)

    # Plan, execute, apply

    async def _loop(self) -> None:
        ticked = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(_WAKE_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            tick = time.monotonic() - ticked >= _TICK_SECONDS
            for lane in list(self.lanes.values()):
                if tick:
                    lane.tick()
                lane.pump()
            if tick:
                ticked = time.monotonic()
                self._report()
            self._decoding.plan()
            self._publish_partials()

    def _waiting(self) -> list[Candidate]:
        """The windows that all sessions want decoded."""
        lanes = self.lanes.values()
        return batches.waiting((lane.memory, lane.now_ms()) for lane in lanes if lane.memory is not None)

    def _report(self) -> None:
        lanes = tuple(lane.stats() for lane in self.lanes.values())
        waiting = self._waiting()
        self._parts.sinks.state(overdue_seconds(waiting), self._partials.stats, lanes)
        reading = (lane.reading_s for lane in lanes if lane.source.latency is Latency.LIVE)
        self._load.observe(waiting, max(reading, default=0.0))

    def _publish_partials(self) -> None:
        for lane in self.lanes.values():
            if lane.memory is not None:
                for message in lane.memory.partials:
                    self._partials.offer(message, lane.source.partition)
                lane.memory.partials.clear()
                for shown in lane.memory.shown:
                    self._parts.sinks.shown(lane.source, shown)
                lane.memory.shown.clear()

    # Watch

    async def _watch(self) -> None:
        """Replace executors that hang. End the process when too many hang, or when polling or reading of a lane stalls."""
        patience = batches.limit(self._parts.settings, 0.0)
        reading = Watchdog(self._parts.settings.hang_seconds)
        while True:
            await asyncio.sleep(min(_WATCH_SECONDS, patience / 4))
            unread = {str(lane.source): lane.unread(self._consumer) for lane in self.lanes.values()}
            reading.look(time.monotonic(), {"poll": self._reader.polled, **unread})
            self._executors.look()
            if self._executors.exhausted:
                # Abandoned windows are committed first, so that the next process does not hang on them again.
                await asyncio.sleep(_TICK_SECONDS)
                raise StuckError("executor")
