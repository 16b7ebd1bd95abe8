"""Tests records that no publisher should write: each is a dead letter, and no other tenant waits for one."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import NoError
from aiokafka.structs import ConsumerRecord
from confluent_kafka import Producer

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.testing.brokers import Broker
from kaption.testing.pipeline import Record, agent, frames, ready
from kaption.testing.processes import Child
from kaption.testing.topics import create_topics
from kaption_schemas.headers import event_headers, text_headers
from kaption_schemas.records import StreamEnded
from kaption_schemas.topics import DLQ, EVENTS, LIVE, MIB, Type, topic_name
from tests.support.batches import CODECS, batch, signed, with_codec, write
from tests.support.pool import speech

pytestmark = pytest.mark.timeout(180)
HOSTILE, QUIET = "acme", "globex"
RUN = f"01K{'0' * 22}7"
#: What a frame of the quiet tenant may take through the agent, with hostile records before it, on a loaded machine.
SECONDS = 8.0


@asynccontextmanager
async def running(settings: Settings, folder: Path, *topics: str) -> AsyncIterator[tuple[Child, AIOKafkaConsumer]]:
    """A live agent, and a reader of ``topics`` from their beginning."""
    await create_topics(settings)
    with agent(settings, folder / "agent.log").during() as child:
        async with Consumer(**security(settings), auto_offset_reset="earliest") as consumer:
            await ready(child)
            consumer.assign([TopicPartition(name, n) for name in topics for n in range(settings.partitions)])
            yield child, consumer


async def until(
    consumer: AIOKafkaConsumer, seen: list[ConsumerRecord], enough: Callable[[], bool], seconds: float = 60
) -> None:
    async with asyncio.timeout(seconds):
        while not enough():
            for records in (await consumer.getmany(timeout_ms=200)).values():
                seen += records


def publish_compressed(settings: Settings, topic: str, codec: str, records: Iterable[Record]) -> None:
    """As librdkafka does it, in batches of several."""
    producer = Producer({"bootstrap.servers": settings.kafka, "compression.type": codec, "linger.ms": 50})
    for key, value, headers in records:
        producer.produce(topic, value, key=key, headers=[*headers])
    assert producer.flush(20) == 0


async def test_every_codec_of_kafkas_clients_is_read(
    kafka: Broker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(kafka, partitions=1)
    pcm, rate = speech("harbour-2-slt", 1)
    async with running(settings, tmp_path, LIVE.name, EVENTS.name) as (_, consumer):
        expected = {}
        for number, codec in enumerate(CODECS):
            run = frames(codec, f"01K{'0' * 22}{number}", pcm, rate)
            expected[codec] = [value for _, value, _ in run]
            await asyncio.to_thread(publish_compressed, settings, EVENTS.name, codec, run)
        seen: list[ConsumerRecord] = []
        total = sum(map(len, expected.values()))
        await until(consumer, seen, lambda: len(seen) >= 2 * total)
    for topic, prefix in ((EVENTS.name, b""), (LIVE.name, b"default/")):
        for codec, values in expected.items():
            *audio, end = [r.value for r in seen if r.topic == topic and r.key == prefix + codec.encode()]
            assert audio == values[:-1], codec
            # The agent writes an end itself, with what the publisher left to its default.
            assert StreamEnded.model_validate_json(end or b"") == StreamEnded.model_validate_json(values[-1] or b""), (
                codec
            )


def started(metadata: object) -> tuple[bytes, list[tuple[str, bytes | None]]]:
    head = event_headers(Type.STARTED, id="1", source="/t", run=RUN)
    return json.dumps({"options": {"metadata": metadata}}).encode(), [*head]


def hostile() -> dict[str, tuple[bytes | bytearray, set[str]]]:
    """Batches by what is wrong with them, and the reason codes that may become of it; a broker may refuse some itself."""
    plain = batch([b"one", b"two", b"three"])
    text, head = started({"a": "a@b.c" * 12_000})
    short, _ = started({str(n): "a@b.c " * 20 for n in range(60)})
    phones, _ = started({str(n): "202-555-01" * 80 for n in range(9)})
    cut = bytearray(batch([bytes(5000)] * 3, CODECS["zstd"]))
    torn = signed(bytearray(cut[: len(cut) - 20]))
    odd = batch([b"x"], 0, [("name", b"1")])
    at = odd.rindex(b"name")
    odd[at : at + 4] = b"\xff\xfe\xff\xfe"
    crc = bytearray(plain)
    crc[-1] ^= 1
    return {
        "4 MiB in a kilobyte": (batch([bytes(4 * MIB)], CODECS["gzip"]), {"not_cloudevents"}),
        "a frame of 4 MiB": (batch([bytes(4 * MIB)], CODECS["zstd"], [*frame_headers()]), {"body_too_large"}),
        "a bomb": (batch([bytes(100 * MIB)], CODECS["gzip"]), {"undecodable_batch"}),
        "a key of 4 MiB": (batch([b"x"], CODECS["gzip"], key=bytes(4 * MIB)), {"not_cloudevents"}),
        "headers of 4 MiB": (batch([b"x"], CODECS["zstd"], [("a", bytes(4 * MIB))]), {"bad_headers"}),
        "50,000 headers": (batch([b"x"], CODECS["zstd"], [("a", None)] * 50_000), {"bad_headers"}),
        "100,000 empty records": (batch([None] * 100_000, CODECS["gzip"]), {"undecodable_batch"}),
        "a codec of tomorrow": (with_codec(bytearray(plain), 6), {"undecodable_batch"}),
        "no zstd": (with_codec(bytearray(plain), CODECS["zstd"]), {"undecodable_batch"}),
        "torn": (torn, {"undecodable_batch"}),
        "a wrong checksum": (crc, {"undecodable_batch"}),
        "an odd name": (signed(odd), {"bad_headers"}),
        "60 KB of addresses": (batch([text], 0, head), {"bad_metadata"}),
        "8 KB of addresses": (batch([short], 0, head, key=b"calls"), set()),
        "7 KB of numbers": (batch([phones], 0, head, key=b"calls"), set()),
        "no value at all": (batch([None], 0, [("ce_type", None)]), {"not_cloudevents"}),
    }


def frame_headers() -> list[tuple[str, bytes | None]]:
    (_, _, head), *_ = frames("call", RUN, speech("harbour-2-slt", 1)[0], 16_000)
    return [*head]


async def test_hostile_records_stop_nobody(
    kafka: Broker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """One tenant sends each kind; the other's frames go through, each within seconds, in the same process."""
    settings = make_settings(kafka, partitions=1, tenants=f"default,{HOSTILE},{QUIET}")
    kinds = hostile()
    pcm, rate = speech("harbour-2-slt", 8)
    quiet = frames("call", RUN, pcm, rate)
    assert len(quiet) > len(kinds)
    topic, letters = topic_name(EVENTS, HOSTILE), topic_name(DLQ, HOSTILE)
    seen: list[ConsumerRecord] = []
    took: list[float] = []
    wanted: set[str] = set()
    async with (
        running(settings, tmp_path, LIVE.name, letters) as (child, consumer),
        AIOKafkaProducer(**security(settings)) as producer,
    ):
        pid = child.pid
        attacks = iter(kinds.items())
        for number, (key, value, headers) in enumerate(quiet, 1):
            for name, (data, reasons) in itertools.islice(attacks, 1):
                if await write(settings.kafka, topic, data) is NoError:
                    wanted |= reasons
                else:
                    assert name in REFUSED_BY_BROKERS, name
            begin = time.monotonic()
            await producer.send_and_wait(topic_name(EVENTS, QUIET), value, key=key, headers=headers)
            await until(consumer, seen, lambda: count(seen, number), SECONDS)  # noqa: B023  # awaited here
            took.append(time.monotonic() - begin)
        await until(consumer, seen, lambda: wanted <= reasons_of(seen, letters), 30)
        assert (child.running, child.pid) == (True, pid)
        assert list(attacks) == []
    assert wanted <= reasons_of(seen, letters)
    for record in seen:
        head = text_headers(record.headers)
        if head.get("errors.reason") == "undecodable_batch":
            assert head["errors.topic"] == topic
            assert int(head["errors.offset"]) <= int(head["errors.last_offset"])
    assert sorted(took)[len(took) // 2] < 2


#: A broker that checks records refuses these from any client.
REFUSED_BY_BROKERS = {
    "a bomb", "a codec of tomorrow", "no zstd", "torn", "a wrong checksum", "headers of 4 MiB", "a key of 4 MiB",
    "an odd name", "100,000 empty records", "50,000 headers",
}  # fmt: skip


def count(seen: list[ConsumerRecord], number: int) -> bool:
    """Whether this number of the quiet tenant's records are on the audio topic."""
    mine = [r for r in seen if r.topic == LIVE.name and r.key == f"{QUIET}/call".encode()]
    return len(mine) >= number


def reasons_of(seen: list[ConsumerRecord], topic: str) -> set[str]:
    return {text_headers(r.headers)["errors.reason"] for r in seen if r.topic == topic}
