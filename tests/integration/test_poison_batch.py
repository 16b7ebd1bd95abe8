"""A batch that can't be read, on topics that the pool and readers read: each goes on behind it."""

from collections.abc import Callable
from datetime import datetime

from aiokafka.errors import NoError

from kaption.adapters.settings import Settings
from kaption.client.transcripts import Transcripts
from kaption.testing.brokers import Broker
from kaption.testing.topics import create_topics
from kaption_schemas.codec import is_undecodable
from kaption_schemas.headers import text_headers
from kaption_schemas.records import FinalTranscript, StreamCompleted
from kaption_schemas.topics import DLQ, FINAL, LIVE, MIB
from tests.support.batches import CODECS, batch, write
from tests.support.lanes import RUNS, completed, expected, finals, publisher, read, working


async def test_pool_and_readers_go_on_behind_it(kafka: Broker, make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(kafka, partitions=1, session_timeout_ms=6000, hang_seconds=30)
    await create_topics(settings)
    bomb = batch([bytes(40 * MIB)], CODECS["zstd"])
    assert await write(settings.kafka, FINAL.name, bomb) is NoError
    async with publisher(settings) as out, working(settings):
        await out.chunk("a", RUNS[0], 0, 1)
        assert await write(settings.kafka, LIVE.name, bomb) is NoError
        await out.chunk("a", RUNS[0], 1, 1)
        await out.end("a", RUNS[0], 1)
        records = await read(settings, FINAL.name, completed(RUNS[0]))
        (letter,) = await read(settings, DLQ.name, bool)
    head = text_headers(letter.headers)
    assert (head["errors.reason"], head["errors.topic"]) == ("undecodable_batch", LIVE.name)
    assert head["errors.offset"] == head["errors.last_offset"] == "1"
    assert datetime.fromisoformat(head["errors.time"]).tzinfo is not None
    assert len(letter.value) > 61, "the batch as the broker keeps it"
    assert is_undecodable(records[0].headers)
    assert finals(records[1:], RUNS[0]) == expected([1, 1])
    async with Transcripts(settings=settings, from_beginning=True, partials=False) as transcripts:
        kinds = [type(record) async for record in _until_completed(transcripts)]
    assert kinds == [FinalTranscript, StreamCompleted]


async def _until_completed(transcripts: Transcripts):  # type: ignore[no-untyped-def]
    async for record in transcripts:
        yield record
        if isinstance(record, StreamCompleted):
            return
