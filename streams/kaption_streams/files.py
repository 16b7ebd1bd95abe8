"""The file agent: objects in, batch records and dead letters out; several at once, fairly between tenants.

An input is acknowledged once all that it made is delivered. A process that ends before leaves it to the next one, which
makes the same run, the same object and the same records again.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

from kaption.adapters.media.files import MediaDecoder
from kaption.adapters.store.s3 import ObjectStore
from kaption.adapters.telemetry import FILE_WORK_SECONDS
from kaption.domain.intake.bucket_events import ObjectRun, RefusedObject
from kaption.domain.intake.turns import Turns
from kaption.domain.redaction.matches import TextRedactor
from kaption_schemas.errors import LocalError, ProcessError, RefusedError, StoppedError, StoreError
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import OBJECTS, topic_name
from kaption_streams.agent import Agent, AgentParts
from kaption_streams.app import input_topic, origin_of
from kaption_streams.file_stage import FileStage, tenant_class
from kaption_streams.fitness import Fitness, pause
from kaption_streams.intake import AHEAD, Intake, Record
from kaption_streams.normalise import Normaliser
from kaption_streams.standing import Offsets, Standing

log = logging.getLogger(__name__)

#: How long an agent may take over what it has read before the broker thinks it dead: as long as what it reads is kept.
_POLL_SECONDS = OBJECTS.retention_ms // 1000
_SWEEP_SECONDS = 3600
_NO_ROOM_SECONDS = 5.0
_SPARE_THREADS = 4


@dataclass(eq=False, slots=True)
class _Job:
    """What a slot is given: a record to be read (``run`` None), or one of its objects."""

    record: Record
    run: ObjectRun | None = None
    tries: int = 0

    @property
    def tenant(self) -> str:
        return self.record.origin.tenant

    @property
    def line(self) -> tuple[str, str]:
        """What is worked on one after another: a tenant's records while they are read, and the objects of one stream."""
        return self.tenant, self.run.stream if self.run else ""


class FileAgent(Agent):
    """The file agent."""

    def __init__(self, parts: AgentParts, store: ObjectStore, decoder: MediaDecoder, redactor: TextRedactor) -> None:
        super().__init__(parts)
        settings, app = parts.settings, parts.app
        self._settings = settings
        self._stopping = threading.Event()
        self._store, self._decoder = store, decoder
        self._fitness = Fitness(store, decoder, self._fill)
        normalise = Normaliser(settings, store, decoder, self._stopping)
        self._stage = FileStage(settings, parts.telemetry, parts.output, redactor, normalise)
        self._intake = Intake(self._hold, self._resume)
        self._turns: Turns[_Job] = Turns(settings.files_at_once)
        self._lines: dict[tuple[str, str], deque[_Job]] = {}
        self._working: dict[asyncio.Task[None], _Job] = {}
        self._no_room: set[_Job] = set()
        self._sweeper: asyncio.Task[None] | None = None
        app.conf.broker_max_poll_interval = float(_POLL_SECONDS)
        # What is polled at once is read ahead, however much of the tenant's is held by then.
        app.conf.broker_max_poll_records = AHEAD
        # A rebalance does not wait for films: they are read again, and known.
        app.conf.stream_wait_empty = False
        app.agent(input_topic(app, settings, OBJECTS), name=OBJECTS.name, concurrency=1)(self._read)

    @property
    def ready(self) -> bool:
        """Whether objects are decoded. Where one waits for room on the disk, others may fit: the agent is not to be ended for it."""
        return self._fitness.fit and not (self._no_room and self._no_room.issuperset(self._working.values()))

    def standing(self, places: dict[TP, Offsets]) -> Standing:
        """Where the agent stands; one that has objects in work, which may take long, has its own limits there."""
        return Standing({} if self._intake.in_work else places, 0, self._taken)

    async def start(self) -> None:
        """Connect to the broker; before the app starts. For the store it waits beside, unready."""
        # A thread for each that may be in work, and some to look whether the store is well while all of those wait for it.
        threads = ThreadPoolExecutor(2 * self._settings.files_at_once + _SPARE_THREADS, "files")
        asyncio.get_running_loop().set_default_executor(threads)
        await super().start()
        self._fitness.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="sweep orphans")

    async def stop(self) -> None:
        """Leave the objects in work to the next process; before the app stops."""
        self._stopping.set()
        await asyncio.gather(*self._working, return_exceptions=True)

    async def close(self) -> None:
        """Let go of producer and store; after the app stopped."""
        self._stopping.set()
        await self._fitness.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await super().close()
        await asyncio.to_thread(self._decoder.close)
        self._store.close()

    async def _read(self, stream: Any) -> None:  # Faust ships no types
        async for event in stream.noack().events():
            try:
                record = self._intake.arrive(origin_of(event, OBJECTS), event.message.generation_id, event.ack)
                if record is not None:
                    self._taken += 1
                    self._enter([_Job(record)])
            except Exception as error:  # noqa: BLE001  # the process's edge: Faust would ack the event and go on
                self._fail(error)
                return

    def _hold(self, tenant: str) -> None:
        """Read no more of a tenant's objects for now: what Faust does when a queue of its own is full.

        Its ``pause_partitions`` would drop what is fetched, and a commit pass that.
        """
        for tp in self._partitions(tenant):
            self._app.consumer.on_buffer_full(tp)

    def _resume(self, tenant: str) -> None:
        for tp in self._partitions(tenant):
            self._app.consumer.on_buffer_drop(tp)

    def _partitions(self, tenant: str) -> list[TP]:
        name = topic_name(OBJECTS, tenant)
        return [tp for tp in self._app.consumer.assignment() if tp.topic == name]

    def _enter(self, jobs: list[_Job]) -> None:
        """Let ``jobs`` wait for their turns, those of a line one after another: a stream's runs begin in the order of arrival."""
        heads = []
        for job in jobs:
            line = self._lines.setdefault(job.line, deque())
            line.append(job)
            if line[0] is job:
                heads.append(job)
        for job in reversed(heads):
            # A record's objects before records that came later.
            self._turns.add(job.tenant, job, first=job.run is not None)
        self._fill()

    def _leave(self, job: _Job) -> None:
        """``job`` is over: the next of its line may have its turn."""
        self._no_room.discard(job)
        line = self._lines[job.line]
        line.popleft()
        if line:
            self._turns.add(job.tenant, line[0], first=job.run is not None)
        else:
            del self._lines[job.line]

    def _fill(self) -> None:
        """Begin what may begin."""
        while self._fitness.fit and not self._stopping.is_set() and (turn := self._turns.take()) is not None:
            task = asyncio.create_task(self._turn(*turn))
            self._working[task] = turn[1]
            task.add_done_callback(self._working.pop)

    async def _turn(self, tenant: str, job: _Job) -> None:
        began = time.monotonic()
        try:
            if job.record.generation != self._app.consumer_generation_id:
                self._intake.forget(job.record)
                self._leave(job)
            elif job.run is None:
                await self._open(job)
            else:
                await self._object(job, job.run)
        except StoppedError:
            pass
        except Exception as error:  # noqa: BLE001  # the process's edge
            self._fail(error)
        finally:
            seconds = time.monotonic() - began
            self._turns.done(tenant, seconds)
            self._telemetry.record(FILE_WORK_SECONDS, seconds, tenant_class=tenant_class(tenant))
            self._fill()

    async def _open(self, job: _Job) -> None:
        """Read a record, and let its objects wait for their turns."""
        record = job.record
        wanted = await self._stage.wanted(record.origin)
        record.left = len(wanted)
        self._enter([_Job(record, run) for run in wanted if isinstance(run, ObjectRun)])
        self._leave(job)
        for want in wanted:
            if isinstance(want, RefusedObject):
                await self._stage.refuse(record.origin, RefusedError(want.reason), want.run)
                self._intake.done(record)

    async def _object(self, job: _Job, run: ObjectRun) -> None:
        refusal: RefusedError | None = None
        try:
            await self._stage.transcribe(job.record.origin, run)
        except (StoppedError, KafkaError):
            raise
        except LocalError as error:
            self._no_room.add(job)
            log.warning("scratch_full", extra={"run": run.run, "error": str(error)})
            self._again(job, _NO_ROOM_SECONDS)
            return
        except RefusedError as error:
            refusal = error
        except (StoreError, ProcessError, OSError) as error:
            if self._stopping.is_set():
                raise StoppedError from None
            if not await self._fitness.blames(error):
                self._again(job, 0)
                return
            job.tries += 1
            if job.tries < self._settings.object_tries:
                extra = {"run": run.run, "error": str(error), "again_in_seconds": pause(job.tries)}
                log.warning("object_failed", extra=extra)
                self._again(job, pause(job.tries))
                return
            refusal = _given_up(error, self._settings.s3)
        except Exception as error:
            log.exception("object_failed_unexpectedly", extra={"run": run.run})
            refusal = RefusedError(Reason.INTERNAL_ERROR, type(error).__name__)
        if refusal is not None:
            await self._stage.refuse(job.record.origin, refusal, run, max(1, job.tries))
        self._leave(job)
        self._intake.done(job.record)

    def _again(self, job: _Job, seconds: float) -> None:
        """Put ``job`` back at the head of its tenant's, after a while in which it holds no slot."""

        def back() -> None:
            self._turns.add(job.tenant, job, first=True)
            self._fill()

        asyncio.get_running_loop().call_later(seconds, back)

    async def _sweep(self) -> None:
        """Remove orphans now and then, for stores that do not expire them by themselves; by the store's own clock."""
        while True:
            if self._fitness.fit:
                with contextlib.suppress(StoreError):  # the next round will do
                    await asyncio.to_thread(lambda: self._store.sweep(self._store.probe()))
            await asyncio.sleep(_SWEEP_SECONDS if self._fitness.fit else 1)


def _given_up(error: Exception, store: str) -> RefusedError:
    """What an object is refused with that failed each time; without the store's address, which is no publisher's business."""
    reason = Reason.OBJECT_UNREADABLE if isinstance(error, StoreError) else Reason.INTERNAL_ERROR
    return RefusedError(reason, str(error).replace(f" at {store}", ""))
