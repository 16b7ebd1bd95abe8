"""Lanes on real brokers, with sessions that count instead of listening."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import normalised_key
from kaption.domain.records import Latency, RunKey
from kaption.testing.backends import CountingBackend
from kaption.testing.brokers import Broker
from kaption.testing.objects import MemoryObjects
from kaption.testing.processes import Child
from kaption.testing.sessions import REFUSED, CountingSessions
from kaption.testing.topics import create_topics
from kaption_gpu.lanes.data import Source
from kaption_gpu.lanes.records import TOPIC_OF
from kaption_gpu.lanes.transactions import LaneWriter
from kaption_gpu.worker import Sinks, Worker, WorkerParts
from kaption_schemas.errors import LaneError
from kaption_schemas.headers import event_headers, pcm_type, sequence, text_headers
from kaption_schemas.records import DataRef, StreamProgress, StreamStarted
from kaption_schemas.topics import BATCH, DLQ, FINAL, LIVE, PARTIAL, STATE, Type, topic_name
from tests.support.lanes import (
    RUNS,
    TENTH,
    completed,
    crash,
    expected,
    finals,
    ids,
    publisher,
    read,
    read_anew,
    working,
)


@pytest.fixture
async def settings(kafka: Broker, make_settings: Callable[..., Settings]) -> Settings:
    made = make_settings(kafka, session_timeout_ms=6000, silence_commit_seconds=1, hang_seconds=30)
    await create_topics(made)
    return made


async def test_runs_come_back_as_finals_and_partials(settings: Settings) -> None:
    async with publisher(settings) as out, working(settings):
        for number in range(25):
            for stream, run in (("a", RUNS[0]), ("b", RUNS[1])):
                await out.chunk(stream, run, number, number + (100 if stream == "b" else 1))
        await out.end("a", RUNS[0], 24)
        await out.end("b", RUNS[1], 24)
        records = await read(settings, FINAL.name, completed(RUNS[0], RUNS[1]))
        partials = await read(settings, PARTIAL.name, bool)
    assert finals(records, RUNS[0]) == expected([n + 1 for n in range(25)])
    assert finals(records, RUNS[1]) == expected([n + 100 for n in range(25)])
    assert len(set(ids(records))) == len(records)
    assert {r.key for r in records} == {b"a", b"b"}
    assert text_headers(partials[0].headers)["ce_id"].startswith(tuple(RUNS[:2]))


async def test_a_crash_and_a_new_owner_neither_lose_nor_double(settings: Settings) -> None:
    """Half is published, the worker dies without a word, the rest follows, another goes on; dead letters too."""
    async with publisher(settings) as out:
        task = asyncio.create_task(
            Worker(WorkerParts(settings, CountingBackend(), CountingSessions(), MemoryObjects())).run(asyncio.Event())
        )
        values = [n + 1 for n in range(37)]
        for number in range(17):
            await out.chunk("a", RUNS[0], number, values[number])
        await out.chunk("a", RUNS[0], 17, REFUSED)
        await out.chunk("b", RUNS[1], 0, 5)
        await read(settings, DLQ.name, bool)
        await crash(task)
        for number in range(17, 37):
            await out.chunk("a", RUNS[0], number + 1, values[number])
        await out.end("a", RUNS[0], 37)
        await out.end("b", RUNS[1], 0)
        async with working(settings):
            records = await read_anew(settings, FINAL.name, completed(RUNS[0], RUNS[1]))
            letters = await read(settings, DLQ.name, bool)
    assert finals(records, RUNS[0]) == expected(values)
    assert finals(records, RUNS[1]) == [(0, f"{TENTH}:{5 * TENTH}")]
    assert len(set(ids(records))) == len(records)
    assert len(letters) == 1
    head = text_headers(letters[0].headers)
    assert (head["errors.reason"], head["errors.topic"], head["ce_sequence"]) == ("late", LIVE.name, sequence(17))
    assert letters[0].key == b"default/a"
    assert np.frombuffer(letters[0].value, "<i2")[0] == REFUSED


async def test_a_new_run_supersedes_and_a_closed_one_takes_nothing(settings: Settings) -> None:
    async with publisher(settings) as out:
        async with working(settings):
            for number in range(13):
                await out.chunk("a", RUNS[0], number, 1)
            await out.chunk("a", RUNS[1], 0, 2)
            await out.chunk("a", RUNS[0], 13, 1)
            await out.end("a", RUNS[1], 0)
            records = await read(settings, FINAL.name, completed(RUNS[0], RUNS[1]))
        # The next owner knows the closed runs by their snapshots.
        async with working(settings):
            await out.chunk("a", RUNS[0], 14, 1)
            letters = await read(settings, DLQ.name, lambda found: len(found) >= 2)
    assert finals(records, RUNS[0]) == expected([1] * 13)
    assert finals(records, RUNS[1]) == [(0, f"{TENTH}:{2 * TENTH}")]
    order = [run for run in (r.split("/")[0] for r in ids(records)) if run in RUNS]
    assert order == sorted(order), "the old run is complete before the new one says anything"
    reasons = [text_headers(r.headers)["errors.reason"] for r in letters]
    assert reasons == ["run_closed", "run_closed"]


async def test_a_fenced_writer_cannot_commit(settings: Settings) -> None:
    source = Source(Latency.LIVE, 0)
    old, new = LaneWriter(settings, source), LaneWriter(settings, source)
    await old.start()
    first = await old.claim()
    await new.start()
    assert await new.claim() > first
    with pytest.raises(LaneError):
        await old.claim()
    await old.stop()
    await new.stop()


async def test_a_lane_whose_transaction_fails_says_so_and_begins_again(settings: Settings) -> None:
    failed: list[Source] = []
    values = [n + 1 for n in range(25)]
    async with publisher(settings) as out, working(settings, sinks=Sinks(failed=failed.append)):
        for number in range(12):
            await out.chunk("a", RUNS[0], number, values[number])
        [lane] = {record.partition for record in await read(settings, FINAL.name, bool)}
        assert failed == []
        usurper = LaneWriter(settings, Source(Latency.LIVE, lane))
        await usurper.start()
        await usurper.stop()
        for number in range(12, 25):
            await out.chunk("a", RUNS[0], number, values[number])
        await out.end("a", RUNS[0], 24)
        records = await read_anew(settings, FINAL.name, completed(RUNS[0]))
    assert failed == [Source(Latency.LIVE, lane)]
    assert finals(records, RUNS[0]) == expected(values)
    assert len(set(ids(records))) == len(records)


async def test_a_log_that_lost_what_was_committed_is_begun_anew(settings: Settings) -> None:
    consumer = Consumer(**security(settings), group_id=f"{settings.group}.pool", enable_auto_commit=False)
    await consumer.start()
    try:
        lanes = [TopicPartition(LIVE.name, number) for number in range(settings.partitions)]
        consumer.assign(lanes)
        await consumer.commit(dict.fromkeys(lanes, 500))
    finally:
        await consumer.stop()
    async with publisher(settings) as out, working(settings):
        for number in range(10):
            await out.chunk("s", RUNS[0], number, 1)
        await out.end("s", RUNS[0], 9)
        await read(settings, FINAL.name, completed(RUNS[0]))


@pytest.mark.apache
async def test_what_retention_took_before_it_was_read_is_a_gap(
    apache_kafka: Broker, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(apache_kafka, partitions=1)
    await create_topics(settings)
    run = RUNS[0]
    async with publisher(settings) as out:
        async with working(settings):
            for number in range(15):
                await out.chunk("s", run, number, 1)
            await read(settings, FINAL.name, lambda found: len(found) == 1)
        for number in range(15, 40):
            await out.chunk("s", run, number, 1)
        admin = AIOKafkaAdminClient(**security(settings))
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(LIVE.name, 0): RecordsToDelete(before_offset=30)})
        finally:
            await admin.close()
        async with working(settings):
            await out.end("s", run, 39)
            found = await read(settings, FINAL.name, completed(run))
    [gap] = [json.loads(r.value) for r in found if text_headers(r.headers)["ce_type"] == Type.GAP]
    assert (gap["reason"], gap["first_sequence"], gap["last_sequence"]) == ("retention", 10, 29)


LEAVES_OPEN = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

async def main(bootstrap, topic, ids):
    for lane, id in enumerate(ids):
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=id, transaction_timeout_ms=15000)
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"{}", key=b"s", partition=lane, headers=[("ce_id", b"orphan")])
    print("left open", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
"""


async def test_a_transaction_that_was_left_open_is_aborted_and_never_seen(settings: Settings, tmp_path: Path) -> None:
    """As a worker leaves it that is killed between its sends and its commit."""
    ids = [settings.transactional_id(LIVE.name, lane) for lane in range(settings.partitions)]
    argv = [sys.executable, "-c", LEAVES_OPEN, settings.kafka, FINAL.name, *ids]
    with Child(argv, tmp_path / "owner.log").during() as owner:
        async with asyncio.timeout(30):
            while "left open" not in owner.output():
                assert owner.running, owner.output()
                await asyncio.sleep(0.1)
        owner.kill()
    async with publisher(settings) as out, working(settings):
        for number in range(10):
            await out.chunk("s", RUNS[0], number, 1)
        await out.end("s", RUNS[0], 9)
        records = await read_anew(settings, FINAL.name, completed(RUNS[0]))
    assert "orphan" not in {text_headers(r.headers)["ce_id"] for r in records}


async def test_two_workers_share_and_one_takes_over(settings: Settings) -> None:
    streams = [(f"s{n}", RUNS[n]) for n in range(6)]
    values = list(range(1, 31))
    async with publisher(settings) as out, working(settings):
        second = asyncio.create_task(
            Worker(WorkerParts(settings, CountingBackend(), CountingSessions(), MemoryObjects())).run(asyncio.Event())
        )
        for number, value in enumerate(values):
            for stream, run in streams:
                await out.chunk(stream, run, number, value)
            if number == 15:
                await asyncio.sleep(4)
            if number == 20:
                await crash(second)
        for stream, run in streams:
            await out.end(stream, run, len(values) - 1)
        records = await read_anew(settings, FINAL.name, completed(*(run for _, run in streams)))
    for _, run in streams:
        assert finals(records, run) == expected(values)
    assert len(set(ids(records))) == len(records)


async def test_a_file_is_read_from_the_store_and_deleted_when_done(settings: Settings) -> None:
    objects = MemoryObjects()
    objects.away = 2
    pcm = np.full(3 * 16000, 3, "<i2").tobytes()
    key = normalised_key(RunKey("default", "f", RUNS[0]))
    objects.objects[settings.work_bucket, key] = pcm
    async with publisher(settings) as out, working(settings, objects=objects):
        await out.start("f", RUNS[0], BATCH.name)
        for number, place in enumerate((0, 10**9, 64000)):
            ref = DataRef(bucket=settings.work_bucket, key=key, offset=place, length=32000)
            await out.send(
                BATCH.name, "f", RUNS[0], Type.CHUNK, ref.model_dump_json().encode(), sequence=sequence(number),
                firstsample=str(number * 16000), samples="16000", format=pcm_type(16000, 1), received="1",
                totalsamples="48000",
            )  # fmt: skip
        await out.end("f", RUNS[0], 2, BATCH.name)
        records = await read(settings, FINAL.name, completed(RUNS[0]))
        letters = await read(settings, DLQ.name, bool)
        told = await read(settings, PARTIAL.name, bool)
    assert finals(records, RUNS[0]) == [(0, "16000:48000"), (1, "16000:48000")]
    assert {text_headers(record.headers)["ce_type"] for record in told} == {str(Type.PROGRESS)}
    progress = [StreamProgress.model_validate_json(record.value) for record in told]
    assert ids(told) == [f"{RUNS[0]}/progress/{one.done_ms}" for one in progress]
    assert {(one.stream, one.run, one.total_ms) for one in progress} == {("f", RUNS[0], 3000)}
    assert f"{RUNS[0]}/gap/0/1" in ids(records)
    assert text_headers(letters[0].headers)["errors.reason"] == "audio_unavailable"
    assert objects.objects == {}


async def test_a_record_that_nobody_should_have_written_is_dead_lettered(settings: Settings) -> None:
    async with publisher(settings) as out, working(settings):
        await out.producer.send_and_wait(LIVE.name, b"x", key=b"default/a", headers=[("ce_type", b"\xff")])
        await out.producer.send_and_wait(LIVE.name, b"x")
        letters = await read(settings, DLQ.name, lambda found: len(found) >= 2)
    assert {text_headers(r.headers)["errors.reason"] for r in letters} <= {"bad_key", "bad_run"}


async def test_silence_is_committed_so_that_a_replay_is_short(settings: Settings) -> None:
    async with publisher(settings) as out, working(settings):
        await out.start("a", RUNS[0])
        await read(settings, STATE.name, lambda found: any(r.key == f"default/a/{RUNS[0]}".encode() for r in found))


async def test_an_unreadable_snapshot_stops_its_lane_alone(settings: Settings) -> None:
    async with publisher(settings) as out:
        for stream in ("a", "b", "c", "d"):
            await out.start(stream, RUNS[0])
        async with working(settings):
            await read(settings, STATE.name, lambda found: sum(r.key.startswith(b"default/") for r in found) >= 4)
        headers = event_headers(
            Type.SNAPSHOT, id="x", source="x", run=RUNS[0],
            extra={"latency": "live", "closed": "0", "settled": "0", "began": "0"},
        )  # fmt: skip
        await out.producer.send_and_wait(
            STATE.name, b"{", key=f"default/a/{RUNS[0]}".encode(), partition=0, headers=headers
        )
        stop = asyncio.Event()
        worker = Worker(WorkerParts(settings, CountingBackend(), CountingSessions(), MemoryObjects()))
        task = asyncio.create_task(worker.run(stop))
        async with asyncio.timeout(20):
            while {lane.state for lane in worker.lanes.values()} != {"ready", "stopped"}:
                await asyncio.sleep(0.1)
        stop.set()
        await task
    assert [str(lane.source) for lane in worker.lanes.values() if lane.state == "stopped"] == [f"{LIVE.name}/0"]


async def test_a_batch_holds_windows_of_many_streams(settings: Settings) -> None:
    backend = CountingBackend(seconds=0.1)
    async with publisher(settings) as out, working(settings, backend):
        for number in range(10):
            for index in range(8):
                await out.chunk(f"s{index}", RUNS[index], number, 1)
        for index in range(8):
            await out.end(f"s{index}", RUNS[index], 9)
        await read(settings, FINAL.name, completed(*RUNS[:8]))
    assert max(backend.batches) > 1


async def test_a_tenant_that_only_starts_runs_keeps_nobodys_captions_back(
    fresh_kafka: Broker, make_settings: Callable[..., Settings]
) -> None:
    """Promise 7. Each of these cost a look at all that were open, and their transaction was one."""
    settings = make_settings(fresh_kafka, partitions=1, tenants=("default", "acme"), tenant_runs=200)
    await create_topics(settings)
    body, headers = StreamStarted().model_dump_json().encode(), {"received": "1"}
    async with publisher(settings) as out, working(settings):
        await read(settings, STATE.name, lambda found: sum(r.key.startswith(b"claim/") for r in found) >= 2)
        flood = [
            await out.producer.send(
                LIVE.name, body, key=f"acme/s{number}".encode(),
                headers=event_headers(Type.STARTED, id="x", source="x", run=f"01J{number:023d}", extra=headers),
            )
            for number in range(5000)
        ]  # fmt: skip
        await asyncio.gather(*flood)
        began = time.monotonic()
        for number in range(25):
            await out.chunk("quiet", RUNS[0], number, 1)
        await out.end("quiet", RUNS[0], 24)
        records = await read(settings, FINAL.name, completed(RUNS[0]))
        took = time.monotonic() - began
        letters = await read(settings, topic_name(DLQ, "acme"), lambda found: len(found) >= 4800)
    assert finals(records, RUNS[0]) == expected([1] * 25)
    assert {text_headers(r.headers)["errors.reason"] for r in letters} == {"too_many_runs"}
    assert len(letters) == 4800
    assert took < 20, "it was minutes"


def test_every_latency_has_its_topic() -> None:
    assert {latency: TOPIC_OF[latency].name for latency in Latency} == {
        Latency.LIVE: LIVE.name,
        Latency.BATCH: BATCH.name,
    }
