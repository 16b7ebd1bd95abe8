"""Runs the file agent: objects in, batch records and dead letters out, several at once, fairly between tenants.

An input is acknowledged once all its records are delivered. If a process ends before that, its successor makes the same
run, the same normalised object and the same records again.
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

#: Seconds that an agent may work on a poll's records before the broker removes it from the group: their retention time.
_POLL_SECONDS = OBJECTS.retention_ms // 1000
_SWEEP_SECONDS = 3600
_NO_ROOM_SECONDS = 5.0
_SPARE_THREADS = 4


@dataclass(eq=False, slots=True)
class _Job:
    """The work of a slot: a record to read (``run`` None), or one of its objects."""

    record: Record
    run: ObjectRun | None = None
    tries: int = 0

    @property
    def tenant(self) -> str:
        return self.record.origin.tenant

    @property
    def line(self) -> tuple[str, str]:
        """Jobs of one line run one after another: a tenant's records while they are read, and the objects of one stream."""
        return self.tenant, self.run.stream if self.run else ""


class FileAgent(Agent):
    """Reads records, gives their objects slots by turns, and acknowledges them."""

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
        # All records of one poll are read ahead, even when the tenant is on hold by then.
        app.conf.broker_max_poll_records = AHEAD
        # A rebalance does not wait for long files: their records are read again, and recognised.
        app.conf.stream_wait_empty = False
        app.agent(input_topic(app, settings, OBJECTS), name=OBJECTS.name, concurrency=1)(self._read)

    @property
    def ready(self) -> bool:
        """Whether objects are decoded. If one waits for disk space, others may still fit, so the agent stays ready."""
        return self._fitness.fit and not (self._no_room and self._no_room.issuperset(self._working.values()))

    def standing(self, places: dict[TP, Offsets]) -> Standing:
        """The agent's progress. Objects in work may take long and have limits of their own, so then no place is watched."""
        return Standing({} if self._intake.in_work else places, 0, self._taken)

    async def start(self) -> None:
        """Connect to the broker. Call it before the app starts. The agent waits for the store in the background, unready."""
        # One thread for each object that may be in work, and some to probe the store while all the others wait for it.
        threads = ThreadPoolExecutor(2 * self._settings.files_at_once + _SPARE_THREADS, "files")
        asyncio.get_running_loop().set_default_executor(threads)
        await super().start()
        self._fitness.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="sweep orphans")

    async def stop(self) -> None:
        """Leave the objects in work to the next process. Call it before the app stops."""
        self._stopping.set()
        await asyncio.gather(*self._working, return_exceptions=True)

    async def close(self) -> None:
        """Close producer and store. Call it after the app has stopped."""
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
            except Exception as error:  # noqa: BLE001  # the process's boundary: Faust would acknowledge the event and go on
                self._fail(error)
                return

    def _hold(self, tenant: str) -> None:
        """Read no more of a tenant's objects for now, as Faust does when a queue of its own is full.

        Faust's ``pause_partitions`` would drop fetched records, and a commit would pass them.
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
        """Queue ``jobs`` for their turns. Jobs of a line run one after another: a stream's runs begin in the order of arrival."""
        heads = []
        for job in jobs:
            line = self._lines.setdefault(job.line, deque())
            line.append(job)
            if line[0] is job:
                heads.append(job)
        for job in reversed(heads):
            # A record's objects go before later records.
            self._turns.add(job.tenant, job, first=job.run is not None)
        self._fill()

    def _leave(self, job: _Job) -> None:
        """Note that ``job`` is over: the next job of its line may have its turn."""
        self._no_room.discard(job)
        line = self._lines[job.line]
        line.popleft()
        if line:
            self._turns.add(job.tenant, line[0], first=job.run is not None)
        else:
            del self._lines[job.line]

    def _fill(self) -> None:
        """Begin all jobs that may begin."""
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
        except Exception as error:  # noqa: BLE001  # the process's boundary
            self._fail(error)
        finally:
            seconds = time.monotonic() - began
            self._turns.done(tenant, seconds)
            self._telemetry.record(FILE_WORK_SECONDS, seconds, tenant_class=tenant_class(tenant))
            self._fill()

    async def _open(self, job: _Job) -> None:
        """Read a record, and queue its objects for their turns."""
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
        """Queue ``job`` again, first of its tenant, after ``seconds`` without a slot."""

        def back() -> None:
            self._turns.add(job.tenant, job, first=True)
            self._fill()

        asyncio.get_running_loop().call_later(seconds, back)

    async def _sweep(self) -> None:
        """Remove orphans periodically, by the store's own clock, for stores without expiry."""
        while True:
            if self._fitness.fit:
                with contextlib.suppress(StoreError):  # the next round tries again
                    await asyncio.to_thread(lambda: self._store.sweep(self._store.probe()))
            await asyncio.sleep(_SWEEP_SECONDS if self._fitness.fit else 1)


def _given_up(error: Exception, store: str) -> RefusedError:
    """The refusal of an object that failed at each try, without the store's address, which publishers must not see."""
    reason = Reason.OBJECT_UNREADABLE if isinstance(error, StoreError) else Reason.INTERNAL_ERROR
    return RefusedError(reason, str(error).replace(f" at {store}", ""))
