"""Executors that hang, fail, always fail on one window or are too slow, in a worker on a real broker: every final comes once, and right."""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import groupby

import pytest
from aiokafka.structs import ConsumerRecord

from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import normalised_key
from kaption.domain.decoding.port import Decoded, Kind, Window
from kaption.domain.pool.overload import LATE_SECONDS, PARTIAL_SECONDS, Step
from kaption.domain.records import Latency, RunKey
from kaption.testing.backends import POISON, CountingBackend
from kaption.testing.brokers import Broker
from kaption.testing.objects import MemoryObjects
from kaption.testing.sessions import CountingSession, CountingSessions, CountingWanted
from kaption.testing.topics import create_topics
from kaption_gpu.batches import Recovered
from kaption_gpu.engine.executor import Cause
from kaption_gpu.lanes.memory import GONE_SECONDS
from kaption_gpu.worker import Sinks, Worker, WorkerParts
from kaption_schemas.errors import StuckError
from kaption_schemas.headers import pcm_type, sequence, text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef
from kaption_schemas.topics import BATCH, DLQ, FINAL, Type, topic_name
from tests.support.lanes import RUNS, Publisher, completed, expected, finals, ids, publisher, read, working


@pytest.fixture
async def settings(kafka: Broker, make_settings: Callable[..., Settings]) -> Settings:
    made = make_settings(kafka, session_timeout_ms=6000, hang_seconds=20, executor_hang_seconds=0.5)
    await create_topics(made)
    return made


class FaultyBackend(CountingBackend):
    """Hangs on the second batch of finals, until it is released, and fails on the fourth."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()
        self.came_back = threading.Event()
        self._finals = iter(range(1000))

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        number = next(self._finals) if batch[0].kind is Kind.FINAL else -1
        if number == 1:
            self.release.wait()
            self.came_back.set()
            return [Decoded("late", None, 0.0, 0.0, 1.0) for _ in batch]
        if number == 3:
            raise RuntimeError("out of order")
        return super().transcribe(batch)


@dataclass
class Seen:
    """The reports of the worker to its sinks."""

    replaced: list[Cause] = field(default_factory=list)
    recovered: list[Recovered] = field(default_factory=list)

    def sinks(self) -> Sinks:
        return Sinks(replaced=self.replaced.append, recovered=self.recovered.append)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.05)


async def test_finals_come_once_while_one_executor_hangs_and_another_dies(settings: Settings) -> None:
    backend, seen = FaultyBackend(), Seen()
    streams = [(f"s{n}", RUNS[n]) for n in range(4)]
    values = list(range(1, 46))
    async with publisher(settings) as out, working(settings, backend, sinks=seen.sinks()):
        for number, value in enumerate(values[:30]):
            for stream, run in streams:
                await out.chunk(stream, run, number, value)
        await until(lambda: set(seen.replaced) == set(Cause))
        backend.release.set()
        await until(backend.came_back.is_set)
        for number, value in enumerate(values[30:], 30):
            for stream, run in streams:
                await out.chunk(stream, run, number, value)
        for stream, run in streams:
            await out.end(stream, run, len(values) - 1)
        records = await read(settings, FINAL.name, completed(*(run for _, run in streams)))
    for _, run in streams:
        assert finals(records, run) == expected(values)
    assert len(set(ids(records))) == len(records)
    assert sorted(seen.replaced) == [Cause.FAILED, Cause.HUNG]
    assert sum(r.again for r in seen.recovered) >= 2
    assert not any(r.given_up for r in seen.recovered)


async def test_a_window_that_always_fails_costs_its_own_text_and_nothing_else(settings: Settings) -> None:
    seen = Seen()
    good, poisoned = list(range(1, 26)), [1] * 10 + [POISON] * 10 + [2] * 5
    async with publisher(settings) as out, working(settings, sinks=seen.sinks()):
        for number in range(25):
            await out.chunk("good", RUNS[0], number, good[number])
            await out.chunk("bad", RUNS[1], number, poisoned[number])
        await out.end("good", RUNS[0], 24)
        await out.end("bad", RUNS[1], 24)
        records = await read(settings, FINAL.name, completed(RUNS[0], RUNS[1]))
    assert finals(records, RUNS[0]) == expected(good)
    whole = expected(poisoned)
    assert finals(records, RUNS[1]) == [whole[0], (1, ""), whole[2]]
    assert len(set(ids(records))) == len(records)
    assert set(seen.replaced) == {Cause.FAILED}
    lost = [r for r in seen.recovered if r.given_up and r.batch.kind is Kind.FINAL]
    assert [len(r.batch.windows) for r in lost] == [1], "it was alone when it was given up"


class HangingBackend(CountingBackend):
    """Hangs without end on finals that begin with the value ``POISON``, and fails on no partial."""

    def __init__(self) -> None:
        super().__init__()
        self.end = threading.Event()

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        poisoned = any(window.audio[0] == POISON for window in batch)
        if poisoned and batch[0].kind is Kind.FINAL:
            self.end.wait()
        return [Decoded("", None, 0.0, 0.0, 1.0) for _ in batch] if poisoned else super().transcribe(batch)


async def test_a_window_that_always_hangs_costs_one_restart_and_not_one_after_the_other(settings: Settings) -> None:
    backend = HangingBackend()
    values = [1] * 10 + [POISON] * 10 + [2] * 5
    async with publisher(settings) as out:
        worker = Worker(WorkerParts(settings, backend, CountingSessions(), MemoryObjects()))
        task = asyncio.create_task(worker.run(asyncio.Event()))
        for number, value in enumerate(values):
            await out.chunk("a", RUNS[0], number, value)
        with pytest.raises(StuckError):
            await asyncio.wait_for(task, 30)
        async with working(settings, backend):
            await out.end("a", RUNS[0], 24)
            records = await read(settings, FINAL.name, completed(RUNS[0]))
    backend.end.set()
    whole = expected(values)
    assert finals(records, RUNS[0]) == [whole[0], (1, ""), whole[2]]
    assert len(set(ids(records))) == len(records)


class BrokenBackend(CountingBackend):
    """Decodes nothing any more once it has begun, as one whose device is gone."""

    def warm_up(self) -> None:
        raise RuntimeError("the device is gone")

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        raise RuntimeError("the device is gone")


async def test_a_broken_backend_ends_the_worker_and_costs_no_text(settings: Settings) -> None:
    async with publisher(settings) as out:
        for number in range(10):
            await out.chunk("a", RUNS[0], number, 1)
        worker = Worker(WorkerParts(settings, BrokenBackend(), CountingSessions(), MemoryObjects()))
        with pytest.raises(RuntimeError, match="the device is gone"):
            await asyncio.wait_for(worker.run(asyncio.Event()), 30)
        async with working(settings):
            await out.end("a", RUNS[0], 9)
            records = await read(settings, FINAL.name, completed(RUNS[0]))
    assert finals(records, RUNS[0]) == expected([1] * 10)


async def test_a_worker_stops_in_good_order_while_an_executor_hangs(settings: Settings) -> None:
    """The hung thread is not waited for: neither before it is replaced nor after."""
    backend = FaultyBackend()
    async with publisher(settings) as out:
        async with asyncio.timeout(30), working(settings, backend):
            for number in range(25):
                await out.chunk("a", RUNS[0], number, 1)
            await read(settings, FINAL.name, lambda found: len(found) >= 2)
        assert not backend.came_back.is_set()
        async with working(settings):
            await out.end("a", RUNS[0], 24)
            records = await read(settings, FINAL.name, completed(RUNS[0]))
    backend.release.set()
    assert finals(records, RUNS[0]) == expected([1] * 25)
    assert text_kinds(records) == [str(Type.FINAL)] * 3 + [str(Type.COMPLETED)]


def text_kinds(records: list[ConsumerRecord]) -> list[str]:
    return [text_headers(record.headers)["ce_type"] for record in records]


class SlowBackend(CountingBackend):
    """Decodes nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.release = threading.Event()

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        self.began.set()
        self.release.wait()
        return super().transcribe(batch)


#: Seconds that windows say they have been waiting, by stream.
LATE = {"gone": GONE_SECONDS + 1, "on": PARTIAL_SECONDS + 1, "film": 1.0, "late": LATE_SECONDS + 1}


class LateSession(CountingSession):
    """Its windows have been waiting for as long as ``LATE`` says of its stream."""

    def wants(self, now_ms: int) -> list[CountingWanted]:
        return [replace(wanted, overdue_s=LATE.get(self.key.stream, 0.0)) for wanted in super().wants(now_ms)]


class LateSessions(CountingSessions):
    """Makes ``LateSession``s, and keeps them by stream."""

    def __init__(self) -> None:
        self.made: dict[str, LateSession] = {}

    def new(self, key: RunKey, latency: Latency) -> LateSession:
        return self.made.setdefault(key.stream, LateSession(key, latency))


async def test_each_overload_step_is_told_and_logged_and_files_wait_only_where_there_is_one(
    fresh_kafka: Broker, make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 5. The last final of a run that has ended is planned as a file's, and is none."""
    settings = make_settings(fresh_kafka, session_timeout_ms=6000, executors=1)
    await create_topics(settings)
    caplog.set_level(logging.INFO, "kaption_gpu")
    backend, sessions, objects = SlowBackend(), LateSessions(), MemoryObjects()
    steps: list[Step] = []
    gone, on, film = RUNS[:3]
    key = normalised_key(RunKey("default", "film", film))
    objects.objects[settings.work_bucket, key] = bytes(32000)
    async with publisher(settings) as out:
        for number in range(10):
            await out.chunk("gone", gone, number, 1)
        await out.end("gone", gone, 9)
        async with working(settings, backend, objects, Sinks(overload=steps.append), sessions):
            await until(lambda: bool(steps) and "gone" in sessions.made and sessions.made["gone"].ended)
            for number in range(10):
                await out.chunk("on", on, number, 2)
            await until(lambda: Step.PARTIALS_THINNED in steps)
            await out.start("film", film, BATCH.name)
            ref = DataRef(bucket=settings.work_bucket, key=key, offset=0, length=32000)
            await out.send(
                BATCH.name, "film", film, Type.CHUNK, ref.model_dump_json().encode(), sequence=sequence(0),
                firstsample="0", samples="16000", format=pcm_type(16000, 1), received="1", totalsamples="16000",
            )  # fmt: skip
            await until(lambda: Step.FILES_WAIT in steps)
            backend.release.set()
            await out.end("on", on, 9)
            await out.end("film", film, 0, BATCH.name)
            records = await read(settings, FINAL.name, completed(gone, on, film))
            await until(lambda: steps[-1] is Step.NOTHING)
    assert [step for step, _ in groupby(steps)] == [Step.NOTHING, Step.PARTIALS_THINNED, Step.FILES_WAIT, Step.NOTHING]
    told = [vars(record) for record in caplog.records if record.getMessage() == "overload_step_changed"]
    assert [record["step"] for record in told] == ["partials_thinned", "files_wait", "nothing"]
    assert all({"busy", "late_seconds"} <= record.keys() for record in told)
    assert [finals(records, run) for run in (gone, on, film)] == [expected([value] * 10) for value in (1, 2, 0)]


async def test_a_pool_that_is_late_and_busy_refuses_new_runs_until_it_has_caught_up(
    fresh_kafka: Broker, make_settings: Callable[..., Settings]
) -> None:
    """Promise 5: what was accepted gets its finals all the same; and 7: only the tenant that fills the pool is refused."""
    settings = make_settings(
        fresh_kafka, session_timeout_ms=6000, executors=1, executor_hang_seconds=60, tenants=("default", "acme")
    )
    await create_topics(settings)
    backend, steps = SlowBackend(), list[Step]()
    first, late, refused, taken, others = RUNS[:5]
    sinks = Sinks(overload=steps.append)
    async with publisher(settings) as out, working(settings, backend, sinks=sinks, sessions=LateSessions()):
        for number in range(10):
            await out.chunk("first", first, number, 1)
        await until(backend.began.is_set)
        for number in range(10):
            await out.chunk("late", late, number, 2)
        await until(lambda: Step.RUNS_REFUSED in steps)
        await out.chunk("new", refused, 0, 3)
        [letter] = await read(settings, DLQ.name, bool)
        assert text_headers(letter.headers)["errors.reason"] == Reason.OVERLOADED
        acme = Publisher(out.producer, "acme")
        await acme.chunk("theirs", others, 0, 5)
        await acme.end("theirs", others, 0)
        backend.release.set()
        await out.end("first", first, 9)
        await out.end("late", late, 9)
        await until(lambda: steps[-1] is Step.NOTHING)
        await out.chunk("another", taken, 0, 4)
        await out.end("another", taken, 0)
        records = await read(settings, FINAL.name, completed(first, late, refused, taken))
        theirs = await read(settings, topic_name(FINAL, "acme"), completed(others))
    assert finals(theirs, others) == expected([5])
    told = [finals(records, run) for run in (first, late, refused, taken)]
    assert told == [expected([1] * 10), expected([2] * 10), [], expected([4])]
