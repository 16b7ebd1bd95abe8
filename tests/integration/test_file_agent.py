"""The file agent as a process: embedded broker, SeaweedFS, and the file agent between them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord
from minio.sse import SseCustomerKey
from ulid import ULID

from kaption.adapters.kafka import topics
from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.processes.tcp_ports import free_port
from kaption.adapters.settings import Settings, child_environment
from kaption.adapters.store.s3 import ObjectStore
from kaption.testing.brokers import EmbeddedBroker
from kaption.testing.pipeline import ready
from kaption.testing.processes import Child
from kaption.testing.store import EmbeddedStore
from kaption_schemas.headers import event_headers, text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef, StreamEnded, StreamRefused, StreamStarted
from kaption_schemas.topics import BATCH, DLQ, OBJECTS, Type, topic_name
from tests.conftest import MakeSettings
from tests.support.media import encode, tone, video
from tests.support.uploads import client, upload

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def file_agent(settings: Settings, log: Path) -> Child:
    env = child_environment(settings) | {"KAPTION_HTTP_PORT": str(free_port())}
    return Child([sys.executable, "-m", "kaption_streams", "files"], log, env)


@dataclass
class Bench:
    """A broker and a store with an agent between them, and what it has made so far."""

    settings: Settings
    agent: Child
    producer: AIOKafkaProducer
    consumer: AIOKafkaConsumer
    records: list[ConsumerRecord]

    async def send(self, body: Any, *, stream: str = "film", tenant: str = "default", run: str | None = None) -> str:
        """Publish a ``kaption.media.object``; returns its run."""
        run = run or str(ULID())
        extra = {"traceparent": TRACE}
        headers = event_headers(Type.OBJECT, id=run, source="/test", run=run, extra=extra)
        await self.raw(json.dumps(body).encode(), stream.encode(), headers, tenant)
        return run

    async def raw(self, value: bytes, key: bytes, headers: Any = (), tenant: str = "default") -> None:
        await self.producer.send_and_wait(topic_name(OBJECTS, tenant), value, key=key, headers=list(headers))

    def object(self, key: str, body: bytes | None = None, **fields: Any) -> dict[str, Any]:
        """A body that names ``key``, uploaded first if it has a body."""
        if body is not None:
            upload(self.settings, key, body)
        return {"bucket": self.settings.media_bucket, "key": key} | fields

    async def until(self, done: Callable[[list[ConsumerRecord]], bool], seconds: float = 90) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not done(self.records):
                    for batch in (await self.consumer.getmany(timeout_ms=200)).values():
                        self.records += batch
        except TimeoutError:
            raise AssertionError(f"only {len(self.records)} records came:\n{self.agent.output()}") from None

    async def audio(self, run: str) -> "Audio":
        await self.until(lambda found: bool(of(found, run, Type.ENDED)))
        return Audio(self.settings, run, self.records)

    async def refusal(self, match: str, topic: str = DLQ.name) -> ConsumerRecord:
        """The dead letter whose value has ``match`` in it."""

        def letters(found: list[ConsumerRecord]) -> list[ConsumerRecord]:
            return [r for r in found if r.topic == topic and match.encode() in (r.value or b"")]

        await self.until(lambda found: bool(letters(found)))
        (letter,) = letters(self.records)
        return letter


def of(records: list[ConsumerRecord], run: str, kind: Type) -> list[ConsumerRecord]:
    heads = [(text_headers(record.headers), record) for record in records if record.topic == BATCH.name]
    return [record for head, record in heads if head["ce_run"] == run and head["ce_type"] == kind]


class Audio:
    """What the batch topic says of one run, and its samples."""

    def __init__(self, settings: Settings, run: str, records: list[ConsumerRecord]) -> None:
        self.started = of(records, run, Type.STARTED)
        self.chunks = of(records, run, Type.CHUNK)
        self.ended = of(records, run, Type.ENDED)
        self.options = StreamStarted.model_validate_json(self.started[0].value).options
        self.format = StreamStarted.model_validate_json(self.started[0].value).format
        store = ObjectStore(settings)
        refs = [DataRef.model_validate_json(record.value) for record in self.chunks]
        data = b"".join(store.read(ref) for ref in refs)
        store.close()
        self.pcm: npt.NDArray[np.int16] = np.frombuffer(data, "<i2").reshape(-1, self.format.channels)


@asynccontextmanager
async def bench(settings: Settings, folder: Path) -> AsyncIterator[Bench]:
    agent = file_agent(settings, folder / "files.log")
    agent.spawn()
    producer = AIOKafkaProducer(**security(settings))
    consumer = Consumer(**security(settings), auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        await producer.start()
        await consumer.start()
        names = [BATCH.name, *(topic_name(DLQ, tenant) for tenant in settings.tenants)]
        consumer.assign([TopicPartition(name, n) for name in names for n in range(settings.partitions)])
        await ready(agent)
        yield Bench(settings, agent, producer, consumer, [])
    finally:
        await producer.stop()
        await consumer.stop()
        assert agent.stop() == 0
    assert not list((settings.data / "scratch").iterdir())


@pytest.fixture
async def files(
    fresh_kafka: EmbeddedBroker, store: EmbeddedStore, make_settings: MakeSettings, tmp_path: Path
) -> AsyncIterator[Bench]:
    limits = {"object_max_seconds": 120, "object_max_bytes": 32 << 20, "tenants": ("default", "acme")}
    settings = make_settings(fresh_kafka, **store.fields, **limits)
    await topics.create(settings)
    async with bench(settings, tmp_path) as made:
        yield made


async def test_a_file_becomes_chunks_of_thirty_seconds(files: Bench) -> None:
    sound = tone(65, 16_000, 2)
    body = files.object("default/film.wav", encode(sound, 16_000), muted=[[1000, 1500], [29_900, 30_100]])
    options = {"channels": "split", "metadata": {"note": "mail jane.doe@example.com"}, "vocabulary": ["Kaption"]}
    run = await files.send(body | {"options": options})
    audio = await files.audio(run)
    silent = sound.copy()
    silent[16_000:24_000] = 0
    silent[29_900 * 16 : 30_100 * 16] = 0
    assert np.array_equal(audio.pcm, silent)
    heads = [text_headers(record.headers) for record in audio.chunks]
    assert [int(head["ce_sequence"]) for head in heads] == [0, 1, 2]
    assert [int(head["ce_samples"]) for head in heads] == [480_000, 480_000, 80_000]
    assert {head["ce_totalsamples"] for head in heads} == {"1040000"}
    assert StreamEnded.model_validate_json(audio.ended[0].value).last_sequence == 2
    assert audio.options.metadata == {"note": "mail [EMAIL_ADDRESS]"}
    assert audio.options.redaction == files.settings.redaction
    assert audio.options.vocabulary == ("Kaption",)
    assert {record.key for record in (*audio.started, *audio.chunks, *audio.ended)} == {b"default/film"}
    assert len({record.partition for record in (*audio.started, *audio.chunks, *audio.ended)}) == 1
    assert all(head["traceparent"] == TRACE and head["ce_received"].isdigit() for head in heads)
    assert "jane" not in files.agent.output()


async def test_a_video_and_a_notification_are_transcribed_and_a_second_one_is_the_same_run(files: Bench) -> None:
    video_run = await files.send(files.object("default/clip.mp4", video(sound=True)))
    assert 0.4 < len((await files.audio(video_run)).pcm) / 16_000 < 0.7
    made = upload(files.settings, "default/a b.flac", encode(tone(2), 16_000, "flac", "flac"))
    what = {"key": "default%2Fa+b.flac", "eTag": made.etag, "size": None, "sequencer": "1"}
    entry = {
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": files.settings.media_bucket}, "object": what},
    }
    for _ in range(2):
        await files.raw(json.dumps({"Records": [entry]}).encode(), b"media/default/a b.flac")

    def ends(found: list[ConsumerRecord]) -> list[ConsumerRecord]:
        return [r for r in found if r.topic == BATCH.name and (r.key or b"").startswith(b"default/a-b.flac-")]

    await files.until(lambda found: len(ends(found)) == 6)
    assert len({text_headers(record.headers)["ce_run"] for record in ends(files.records)}) == 1
    assert len({(text_headers(record.headers)["ce_id"], record.value) for record in ends(files.records)}) == 3


async def test_each_refusal_has_its_reason_and_the_next_object_is_taken(files: Bench) -> None:
    wav = encode(tone(4), 16_000)
    playlist = b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n"
    bomb = encode(np.zeros((300 * 8000, 1), np.int16), 8000, "flac", "flac")
    secret: dict[str, Any] = SseCustomerKey(b"0" * 32).headers()
    store = client(files.settings)
    store._put_object(files.settings.media_bucket, "default/locked.wav", wav, secret)
    expected = {
        "default/none.wav": (files.object("default/none.wav"), Reason.OBJECT_MISSING),
        "default/sha.wav": (files.object("default/sha.wav", wav, sha256="0" * 64), Reason.OBJECT_CHANGED),
        "default/size.wav": (files.object("default/size.wav", wav, size=1), Reason.OBJECT_CHANGED),
        "default/etag.wav": (files.object("default/etag.wav", wav, etag="abc"), Reason.OBJECT_CHANGED),
        "default/large.wav": (files.object("default/large.wav", bytes((32 << 20) + 1)), Reason.OBJECT_TOO_LARGE),
        "default/locked.wav": (files.object("default/locked.wav"), Reason.OBJECT_ENCRYPTED),
        "acme/theirs.wav": (files.object("acme/theirs.wav", wav), Reason.OUTSIDE_PREFIX),
        "default/../acme/b.wav": (files.object("default/../acme/b.wav"), Reason.OUTSIDE_PREFIX),
        "default/text.mp3": (files.object("default/text.mp3", b"words, words\n" * 999), Reason.NOT_MEDIA),
        "default/list.m3u8": (files.object("default/list.m3u8", playlist), Reason.NOT_MEDIA),
        "default/mute.mp4": (files.object("default/mute.mp4", video(sound=False)), Reason.NO_AUDIO),
        "default/cut.wav": (files.object("default/cut.wav", wav[:50_000]), Reason.TRUNCATED),
        "default/long.flac": (files.object("default/long.flac", bomb), Reason.TOO_LONG),
        "default/odd.wav": (
            files.object("default/odd.wav", wav, options={"redaction": ["NO_SUCH_ENTITY"]}), Reason.UNKNOWN_ENTITY,
        ),
    }  # fmt: skip
    for body, _ in expected.values():
        await files.send(body)
    gone = {"eventName": "s3:ObjectRemoved:Delete", "s3": {"bucket": {"name": "media"}, "object": {"key": "default/x"}}}
    await files.raw(json.dumps({"Records": [gone]}).encode(), b"media/default/x", [("mine", b"\xff")])
    good = await files.send(files.object("default/good.wav", wav))
    for key, (body, reason) in expected.items():
        letter = await files.refusal(f'"{key}"')
        head = text_headers(letter.headers)
        assert (key, head["errors.reason"]) == (key, reason)
        assert head["errors.stage"] == "files"
        assert (letter.key, json.loads(letter.value)) == (b"film", body)
    letter = await files.refusal("ObjectRemoved")
    assert text_headers(letter.headers)["errors.reason"] == Reason.NOT_A_CREATION
    assert ("mine", b"\xff") in letter.headers
    assert np.array_equal((await files.audio(good)).pcm, tone(4))
    left = [
        found.object_name for found in store.list_objects(files.settings.work_bucket, "normalised/", recursive=True)
    ]
    assert [name for name in left if good in name]
    heads = [text_headers(record.headers) for record in files.records if record.topic == BATCH.name]
    assert {head["ce_run"] for head in heads if head["ce_type"] != Type.REFUSED} == {good}
    marks = [
        StreamRefused.model_validate_json(record.value).reason
        for record in files.records
        if record.topic == BATCH.name and text_headers(record.headers)["ce_type"] == Type.REFUSED
    ]
    assert sorted(marks) == sorted(reason for _, reason in expected.values()), "whoever waits hears of each"


async def test_another_tenant_has_its_own_topics_and_place(files: Bench) -> None:
    wav = encode(tone(1), 16_000)
    run = await files.send(files.object("acme/a.wav", wav), tenant="acme")
    audio = await files.audio(run)
    assert audio.started[0].key == b"acme/film"
    await files.send(files.object("default/b.wav", wav), tenant="acme")
    letter = await files.refusal("default/b.wav", topic_name(DLQ, "acme"))
    assert text_headers(letter.headers)["errors.reason"] == Reason.OUTSIDE_PREFIX


async def test_a_killed_agent_leaves_its_object_to_the_next(files: Bench) -> None:
    sound = tone(100, 48_000, 2)
    run = await files.send(files.object("default/big.wav", encode(sound, 48_000), options={"channels": "split"}))
    await asyncio.sleep(0.3)
    files.agent.kill()
    files.agent.spawn()
    await ready(files.agent)
    audio = await files.audio(run)
    assert np.array_equal(audio.pcm, sound)
    assert files.agent.running
