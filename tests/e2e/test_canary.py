"""What is sensitive in metadata, vocabulary, headers and speech stays where it belongs while the pipeline logs all it can."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.testing.brokers import EmbeddedBroker
from kaption.testing.pipeline import Record, bodies, committed, frames, metrics, pipeline, publish, reasons
from kaption.testing.topics import create_topics
from kaption_schemas.headers import event_headers
from kaption_schemas.topics import DLQ, EVENTS, STATE, TOPICS, Type, topic_name
from tests.support.pool import speech

pytestmark = pytest.mark.timeout(280)

#: An address that the policy names, a word that it does not, and the words spoken in the recording.
ADDRESS, WORD, SPOKEN = "quince.canary@example.com", "marzipan", "harbor. my name"
RUN, BROKEN = (f"01K{'0' * 22}{digit}" for digit in "12")


def started(run: str, **options: object) -> Record:
    body = {"format": {"encoding": "s16le", "rate": 16000, "channels": 1}, "options": options}
    return b"talk", json.dumps(body).encode(), event_headers(Type.STARTED, id=f"{run}-start", source="/test", run=run)


def canaries() -> list[Record]:
    """One good run with canaries in its options, then records whose refusal might quote them."""
    pcm, rate = speech("harbour-1-joe", 6)
    metadata = {"owner": f"write to {ADDRESS}", WORD: WORD}
    run = frames("talk", RUN, pcm, rate)
    run.insert(0, started(RUN, language="en", vocabulary=[WORD, ADDRESS], metadata=metadata))
    key, value, headers = run[3]
    return [
        *run,
        started(BROKEN, language=WORD),
        started(BROKEN, metadata={"a": [WORD]}),
        started(BROKEN, **{WORD: ADDRESS}),
        (key, f'{{"{WORD}": {ADDRESS}'.encode(), event_headers(Type.STARTED, id="x", source="/test", run=BROKEN)),
        (key, value, [(n, WORD.encode() if n in {"content-type", "ce_firstsample"} else v) for n, v in headers]),
        (key, value, [*headers, (WORD, f"\udcff{ADDRESS}".encode("utf-8", "surrogateescape"))]),
    ]


async def everything(settings: Settings) -> list[ConsumerRecord]:
    """Every record of every topic but what clients sent themselves."""
    names = [topic_name(topic) for topic in TOPICS if topic is not EVENTS]
    async with Consumer(**security(settings), enable_auto_commit=False) as consumer:
        places = [TopicPartition(name, n) for name in names for n in range(settings.partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        out: list[ConsumerRecord] = []
        quiet = 0
        while quiet < 5:
            got = await consumer.getmany(timeout_ms=300)
            quiet = 0 if got else quiet + 1
            out += [record for batch in got.values() for record in batch]
    return out


async def test_canaries_stay_where_they_belong(
    embedded_kafka: EmbeddedBroker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(embedded_kafka, log_level="DEBUG")
    await create_topics(settings)
    async with pipeline(settings, tmp_path) as children:
        await publish(settings, canaries())
        results = await committed(settings, 1)
        records = await everything(settings)
        measured = "".join([await asyncio.to_thread(metrics, child) for child in children])
    logs = "".join((tmp_path / name).read_text() for name in ("agent.log", "pool.log"))

    assert SPOKEN in " ".join(final["text"] for final in bodies(results, Type.FINAL)).lower()
    assert set(reasons(results)) >= {"bad_firstsample", "bad_headers", "bad_json", "invalid_body"}
    assert reasons(results).count("invalid_body") == 3
    assert '"level": "DEBUG"' in logs
    for canary in (ADDRESS, WORD, SPOKEN):
        assert canary not in logs.lower()
        assert canary not in measured.lower()
    letters = [record for record in records if record.topic == topic_name(DLQ)]
    for name, value in (header for letter in letters for header in letter.headers if header[0].startswith("errors.")):
        assert not any(canary.encode() in name.encode() + value for canary in (ADDRESS, WORD, SPOKEN)), name
    states = [record for record in records if record.topic == topic_name(STATE)]
    assert any(record.value and Type.SNAPSHOT in str(record.headers) for record in states)
    # The word was not to be masked: the model needs it and ``completed`` gives it back. The address was, everywhere.
    for record in records:
        if record not in letters:
            assert ADDRESS.encode() not in (record.value or b"") + str(record.headers).encode(), record.topic
