"""A worker is killed in the middle of a long file: the next one repeats less than a minute of it, and no final."""

import asyncio
import io
import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore, normalised_key
from kaption.cli.demo.scoring import RATE, load_talks, together
from kaption.domain.intake.bucket_events import ObjectRun
from kaption.domain.intake.file_chunks import Normalised, batch_records
from kaption.domain.records import RunKey
from kaption.testing.brokers import Broker
from kaption.testing.pipeline import ready, worker
from kaption.testing.processes import Child
from kaption.testing.store import EmbeddedStore
from kaption.testing.topics import create_topics
from kaption_schemas.codec import encode_event
from kaption_schemas.headers import text_headers
from kaption_schemas.records import MediaObject, RunOptions
from kaption_schemas.topics import BATCH, FINAL, PARTIAL, Type
from tests.conftest import MakeSettings
from tests.support.noting_worker import notes

pytestmark = pytest.mark.timeout(280)

#: The shipped speech, two minutes, so often.
TIMES = 3
#: Finals to commit before the next kill of a worker.
KILLS = (6,)
#: More bytes than a partition has here: one fetch reads it whole, with its aborted transactions.
_ALL = 64 << 20


class Reader:
    """Committed finals and the progress of each run.

    Each look reads all from the start: a reader that stays open while a worker dies in a transaction may leave out what comes
    after it, on the embedded broker (docs/hazards.md).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._partitions = [
            TopicPartition(name, n) for name in (FINAL.name, PARTIAL.name) for n in range(settings.partitions)
        ]
        self.finals: dict[str, list[dict[str, Any]]] = {}
        self.progress: dict[str, list[dict[str, Any]]] = {}
        self.completed: set[str] = set()

    async def look(self) -> None:
        """Read what is committed now."""
        self.finals, self.progress, self.completed = {}, {}, set()
        async with Consumer(
            **security(self._settings),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=_ALL,
        ) as consumer:
            consumer.assign(self._partitions)
            ends = await consumer.end_offsets(self._partitions)
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for record in chain.from_iterable((await consumer.getmany(timeout_ms=50)).values()):
                    self._take(record)

    def _take(self, record: ConsumerRecord) -> None:
        body = json.loads(record.value)
        match text_headers(record.headers)["ce_type"]:
            case Type.FINAL:
                self.finals.setdefault(body["run"], []).append(body)
            case Type.PROGRESS:
                self.progress.setdefault(body["run"], []).append(body)
            case Type.COMPLETED:
                self.completed.add(body["run"])

    async def until(self, run: str, finals: int | None = None) -> None:
        """Until that many finals are committed, or all."""
        async with asyncio.timeout(120):
            while len(self.finals.get(run, [])) < (finals or 0) or (finals is None and run not in self.completed):
                await self.look()


def noting(settings: Settings, folder: Path, number: int) -> tuple[Child, Path]:
    """A worker of two executors, not started, and the file of its notes."""
    child, file = worker(settings, folder / "pool.log"), folder / f"notes-{number}"
    argv = [sys.executable, "-m", "tests.support.noting_worker", str(file)]
    return Child(argv, child.log, child.env | {"KAPTION_EXECUTORS": "2"}), file


async def submit(settings: Settings, stream: str, run: str) -> None:
    """Store the audio and publish what the file agent would."""
    talk = together("film", load_talks() * TIMES)
    audio = Normalised(
        settings.work_bucket, normalised_key(RunKey("default", stream, run)), RATE, 1, len(talk.pcm) // 2
    )
    store = ObjectStore(settings)
    store.put(audio.bucket, audio.key, io.BytesIO(talk.pcm))
    store.close()
    media = MediaObject(bucket="media", key="default/film.wav")
    options = RunOptions(language="en", redaction=())
    producer = AIOKafkaProducer(**security(settings))
    await producer.start()
    try:
        for event in batch_records(ObjectRun("default", stream, run, media, 0), options, audio):
            made = encode_event(event, BATCH)
            await producer.send_and_wait(made.topic, made.value, key=made.key, headers=list(made.headers))
    finally:
        await producer.stop()


@pytest.fixture
async def settings(fresh_kafka: Broker, store: EmbeddedStore, make_settings: MakeSettings) -> Settings:
    made = make_settings(fresh_kafka, session_timeout_ms=6000, **store.fields)
    await create_topics(made)
    return made


async def test_a_killed_worker_repeats_less_than_a_minute_of_a_file(settings: Settings, tmp_path: Path) -> None:
    """Killed with two batches in flight; finals are those of an undisturbed run."""
    calm, storm = (f"01K{'0' * 22}{digit}" for digit in "12")
    reader = Reader(settings)
    child, file = noting(settings, tmp_path, 0)
    child.spawn()
    try:
        await ready(child)
        await submit(settings, "calm", calm)
        await reader.until(calm)
        undisturbed = len(notes(file))
        await submit(settings, "storm", storm)
        begun: dict[int, float] = {}
        for number, more in enumerate(KILLS, 1):
            await reader.until(storm, len(reader.finals.get(storm, [])) + more)
            child.kill()
            begun |= {note.segment: note.seconds for note in notes(file)[undisturbed:]}
            undisturbed = 0
            child, file = noting(settings, tmp_path, number)
            child.spawn()
            await ready(child)  # which takes longer than the last transaction
            await reader.look()
            committed = len(reader.finals[storm])
            # All that is not final when the worker dies is begun again, in flight or done.
            repeated = {segment: seconds for segment, seconds in begun.items() if segment >= committed}
            assert repeated, "it was killed with work in flight"
            assert sum(repeated.values()) <= 60
            await reader.until(storm, committed + 1)
            assert min(note.segment for note in notes(file)) >= committed, "what is final is not decoded again"
        await reader.until(storm)
        await reader.look()
    finally:
        child.kill()
    finals = reader.finals[storm]
    assert [final["segment"] for final in finals] == list(range(len(finals))), "none twice, none missing"
    assert [final["start_sample"] for final in finals] == [0, *(final["end_sample"] for final in finals[:-1])]
    assert list(map(said, finals)) == list(map(said, reader.finals[calm]))
    assert sum(bool(final["text"]) for final in finals) > 15
    check_words(finals)
    check_progress(reader.progress[storm], finals)


def said(final: dict[str, Any]) -> tuple[Any, ...]:
    """What must be equal in any run of the same audio."""
    return final["start_sample"], final["end_sample"], final["text"], final["words"]


def check_words(finals: list[dict[str, Any]]) -> None:
    """A file's words carry times, in order and within what was said, and probabilities."""
    at = 0
    for final in finals:
        assert " ".join(word["text"] for word in final["words"]) == final["text"]
        for word in final["words"]:
            assert max(at, final["start_ms"]) <= word["start_ms"] <= word["end_ms"] <= final["end_ms"]
            assert 0 < word["probability"] <= 1
            at = word["end_ms"]
    words = [word for final in finals for word in final["words"]]
    assert sum(word["end_ms"] > word["start_ms"] for word in words) > 0.9 * len(words)


def check_progress(progress: list[dict[str, Any]], finals: list[dict[str, Any]]) -> None:
    """It only grows, over the workers as well, tells the length, and is true."""
    done = [record["done_ms"] for record in progress]
    assert len(done) >= 2
    assert done == sorted(set(done))
    assert {record["total_ms"] for record in progress} == {finals[-1]["end_ms"]}
    ends = {final["end_ms"]: final["segment"] + 1 for final in finals}
    assert [record["segments"] for record in progress] == [ends[ms] for ms in done]
