"""``Publisher`` and ``Transcripts`` against a broker: what is on the wire, and what comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from kaption import Publisher, Transcripts
from kaption.adapters.settings import Settings
from kaption.testing.brokers import ApacheNode, EmbeddedBroker
from kaption.testing.topics import create_topics
from kaption_schemas.errors import PublishError
from kaption_schemas.headers import text_headers
from kaption_schemas.records import FinalTranscript, MediaObject, RunOptions, StreamEnded, StreamStarted, Transcript
from kaption_schemas.topics import EVENTS, OBJECTS, topic_name
from tests.conftest import MakeSettings
from tests.support.transcripts import completed, final, gap, partial, put


@pytest.fixture
async def settings(fresh_kafka: EmbeddedBroker, make_settings: MakeSettings) -> Settings:
    made = make_settings(fresh_kafka, tenants="default,acme")
    await create_topics(made)
    return made


@asynccontextmanager
async def pool(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A transactional producer, as a lane has it."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, transactional_id="lane")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def commit(producer: AIOKafkaProducer, *records: Transcript, abort: bool = False) -> None:
    await producer.begin_transaction()
    for record in records:
        await put(producer, record)
    await (producer.abort_transaction() if abort else producer.commit_transaction())


async def take(transcripts: Transcripts, count: int) -> list[Transcript]:
    out: list[Transcript] = []
    async with asyncio.timeout(20):
        async for record in transcripts:
            out.append(record)
            if len(out) == count:
                break
    return out


async def on_the_wire(settings: Settings, topic: str) -> list[ConsumerRecord]:
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka, auto_offset_reset="earliest") as consumer:
        places = [TopicPartition(topic, number) for number in range(settings.partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        out: list[ConsumerRecord] = []
        async with asyncio.timeout(20):
            while len(out) < sum(ends.values()):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    out += records
        return out


def heads(records: list[ConsumerRecord]) -> list[dict[str, str]]:
    return [text_headers(record.headers) for record in records]


@pytest.mark.parametrize("piece", [1, 777, 3200, 100_000])
async def test_audio_in_any_slicing_is_the_same_frames(settings: Settings, piece: int) -> None:
    audio = bytes(range(256)) * 40  # 320 ms
    async with Publisher(settings) as publisher, publisher.stream("call", language="en", vocabulary=["Kaption"]) as run:
        for at in range(0, len(audio), piece):
            await run.send(audio[at : at + piece])
    records = await on_the_wire(settings, EVENTS.name)
    head = heads(records)
    assert [h["ce_type"] for h in head] == [
        "kaption.stream.started", *["kaption.audio.frame"] * 4, "kaption.stream.ended",
    ]  # fmt: skip
    assert {(record.key, record.partition) for record in records} == {(b"call", records[0].partition)}
    assert {h["ce_run"] for h in head} == {run.run}
    assert [(h["ce_sequence"], h["ce_firstsample"], h["content-type"]) for h in head[1:-1]] == [
        (f"{number:012d}", str(number * 1600), "audio/pcm;rate=16000;channels=1;encoding=s16le") for number in range(4)
    ]
    assert b"".join(record.value for record in records[1:-1]) == audio
    started = StreamStarted.model_validate_json(records[0].value)
    assert (started.options.language, started.options.vocabulary, started.options.redaction) == (
        "en",
        ("Kaption",),
        None,
    )
    assert StreamEnded.model_validate_json(records[-1].value) == StreamEnded(last_sequence=3)


async def test_a_short_rest_is_filled_up_and_left_out_silence_moves_the_clock(settings: Settings) -> None:
    async with Publisher(settings) as publisher, publisher.stream("call", rate=8000, encoding="mulaw") as run:
        await run.send(b"\x01" * 10)
        await run.skip(8000)
        await run.send(b"\x02" * 800)
    first, second = (await on_the_wire(settings, EVENTS.name))[1:-1]
    assert first.value == b"\x01" * 10 + b"\xff" * 150
    assert text_headers(second.headers)["ce_firstsample"] == "8010"  # what fills up is no more than silence left out


async def publish_and_break(publisher: Publisher) -> None:
    async with publisher.stream("call") as run:
        await run.send(bytes(3200))
        raise ZeroDivisionError


async def test_a_run_without_audio_and_one_that_breaks_are_ended(settings: Settings) -> None:
    async with Publisher(settings) as publisher:
        async with publisher.stream("call"):
            pass
        with pytest.raises(ZeroDivisionError):
            await publish_and_break(publisher)
    ends = [r for r in await on_the_wire(settings, EVENTS.name) if text_headers(r.headers)["ce_id"].endswith("/ended")]
    assert [StreamEnded.model_validate_json(record.value) for record in ends] == [
        StreamEnded(last_sequence=-1), StreamEnded(last_sequence=0, reason="aborted"),
    ]  # fmt: skip


async def publish_and_kill(settings: Settings, broker: EmbeddedBroker) -> None:
    async with Publisher(settings) as publisher, publisher.stream("call") as run:
        await publisher.flush()
        broker.kill()
        while True:
            await run.send(bytes(3200))
            await asyncio.sleep(0.01)


async def test_a_broker_that_takes_nothing_ends_the_publisher_in_bounded_time(
    settings: Settings, fresh_kafka: EmbeddedBroker
) -> None:
    impatient = settings.model_copy(update={"delivery_seconds": 1.0})
    async with asyncio.timeout(30):
        with pytest.raises(PublishError, match=r"did not take .* within 1 s"):
            await publish_and_kill(impatient, fresh_kafka)


async def test_an_object_goes_to_the_tenants_topic(settings: Settings) -> None:
    async with Publisher(settings, tenant="acme") as publisher:
        run = await publisher.object("media", "acme/talk.flac", stream="talk", size=5, redaction=[])
    (record,) = await on_the_wire(settings, topic_name(OBJECTS, "acme"))
    assert (record.key, text_headers(record.headers)["ce_run"]) == (b"talk", run)
    body = MediaObject(bucket="media", key="acme/talk.flac", size=5, options=RunOptions(redaction=()))
    assert MediaObject.model_validate_json(record.value) == body


@pytest.mark.parametrize("wrong", [{"name": "a b"}, {"name": "a", "rate": 12345}, {"name": "a", "language": "English"}])
async def test_what_the_service_would_refuse_is_refused_here(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Publisher(Settings()).stream(**wrong)


async def test_what_is_published_after_entering_is_read_with_promise_3(settings: Settings) -> None:
    async with pool(settings) as producer, AIOKafkaProducer(bootstrap_servers=settings.kafka) as plain:
        await commit(producer, final(0, "before"))
        async with Transcripts(["call"], settings=settings) as transcripts:
            await put(plain, partial(1, 2))
            await put(plain, partial(1, 1))
            await put(plain, partial(1, 2, stream="other"))
            assert await take(transcripts, 1) == [partial(1, 2)]
            await commit(producer, final(1, "said"), gap(), completed())
            assert await take(transcripts, 3) == [final(1, "said"), gap(), completed()]
            await put(plain, partial(1, 3))
            await put(plain, partial(2, 9))
            await commit(producer, final(0, "anew", run="01J00000000000000000000000"))
            assert await take(transcripts, 1) == [final(0, "anew", run="01J00000000000000000000000")]


@pytest.mark.apache
async def test_what_was_taken_back_is_not_read(apache_kafka: ApacheNode, make_settings: MakeSettings) -> None:
    # On the embedded broker a reader that is open while a transaction aborts receives no more from that producer.
    settings = make_settings(apache_kafka)
    await create_topics(settings)
    async with pool(settings) as producer, Transcripts(settings=settings) as transcripts:
        await commit(producer, final(0, "taken back"), abort=True)
        await commit(producer, final(0, "said"))
        assert await take(transcripts, 1) == [final(0, "said")]
        await commit(producer, final(1))
        assert await take(transcripts, 1) == [final(1)]


async def test_from_the_beginning_and_finals_only(settings: Settings) -> None:
    async with pool(settings) as producer, AIOKafkaProducer(bootstrap_servers=settings.kafka) as plain:
        await put(plain, partial(0, 1))
        await commit(producer, final(0), final(1))
        async with Transcripts(from_beginning=True, partials=False, settings=settings) as transcripts:
            assert await take(transcripts, 2) == [final(0), final(1)]


async def read_two_and_break(settings: Settings) -> None:
    async with Transcripts(from_beginning=True, group="archive", settings=settings) as transcripts:
        assert await take(transcripts, 2) == [final(2), final(3)]
        raise ZeroDivisionError


async def test_a_group_resumes_behind_what_was_handled(settings: Settings) -> None:
    async with pool(settings) as producer:
        await commit(producer, *(final(segment) for segment in range(5)))
        async with Transcripts(from_beginning=True, group="archive", settings=settings) as transcripts:
            assert await take(transcripts, 2) == [final(0), final(1)]
        with pytest.raises(ZeroDivisionError):
            await read_two_and_break(settings)
        async with Transcripts(from_beginning=True, group="archive", settings=settings) as transcripts:
            assert await take(transcripts, 2) == [final(3), final(4)]


async def test_tenants_do_not_see_each_other(settings: Settings) -> None:
    async with pool(settings) as producer:
        await commit(producer, final(0, "ours"), final(0, "theirs", tenant="acme"))
        async with Transcripts(tenant="acme", from_beginning=True, group="g", settings=settings) as transcripts:
            assert await take(transcripts, 1) == [final(0, "theirs", tenant="acme")]


async def handle(settings: Settings, handled: list[tuple[str, int]]) -> None:
    """Read as a member of the group until cancelled, with turns that take a moment."""
    async with Transcripts(group="archive", from_beginning=True, partials=False, settings=settings) as transcripts:
        async for record in transcripts:
            assert isinstance(record, FinalTranscript)
            await asyncio.sleep(0.004)
            handled.append((record.stream, record.segment))


@pytest.mark.apache
async def test_a_group_whose_members_come_and_go_handles_every_final_once(
    apache_kafka: ApacheNode, make_settings: MakeSettings
) -> None:
    # The embedded broker does not finish a rebalance whose leader has left.
    settings = make_settings(apache_kafka)
    await create_topics(settings)
    stays: list[tuple[str, int]] = []
    goes: list[tuple[str, int]] = []
    segments = 0
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer, asyncio.timeout(100):

        async def publish_until(enough: Callable[[], bool]) -> None:
            """However long a member takes to join, there is something left for it."""
            nonlocal segments
            while not enough():
                for partition in range(settings.partitions):
                    await put(producer, final(segments, stream=f"s{partition}"), partition)
                segments += 1
                await asyncio.sleep(0.01)

        first = asyncio.create_task(handle(settings, stays))
        await publish_until(lambda: len(stays) >= 50)
        second = asyncio.create_task(handle(settings, goes))
        await publish_until(lambda: len(goes) >= 20)
        second.cancel()
        while len({*stays, *goes}) < segments * settings.partitions:
            await asyncio.sleep(0.02)
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
    assert sorted(stays + goes) == sorted((f"s{n}", k) for n in range(settings.partitions) for k in range(segments))
