"""An upload that is no media: a client that waits for its transcript learns of the refusal."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from aiokafka import AIOKafkaProducer
from ulid import ULID

from kaption import Transcripts
from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings
from kaption.testing.brokers import EmbeddedBroker
from kaption.testing.pipeline import ready, worker
from kaption.testing.topics import create_topics
from kaption_schemas.headers import event_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import MediaObject, StreamCompleted
from kaption_schemas.topics import OBJECTS, Type
from tests.integration.test_file_agent import file_agent
from tests.support.fake_store import FakeStore

PAGE = b"<!doctype html><title>404</title><h1>Not here</h1>" * 50


async def test_a_page_named_mp3_ends_who_waits_for_it(
    fresh_kafka: EmbeddedBroker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with FakeStore() as store:
        settings = make_settings(fresh_kafka, **store.fields)
        await create_topics(settings)
        store.objects["/media/default/talk.mp3"] = PAGE
        children = (file_agent(settings, tmp_path / "files.log"), worker(settings, tmp_path / "pool.log"))
        for child in children:
            child.spawn()
        try:
            run = str(ULID())
            producer = AIOKafkaProducer(**security(settings))
            await producer.start()
            body = MediaObject(bucket="media", key="default/talk.mp3").model_dump_json(exclude_none=True).encode()
            headers = event_headers(Type.OBJECT, id=run, source="/test", run=run)
            await producer.send_and_wait(OBJECTS.name, body, key=b"talk", headers=headers)
            await producer.stop()
            await asyncio.gather(*map(ready, children))
            async with Transcripts(["talk"], from_beginning=True, settings=settings) as transcripts:
                async with asyncio.timeout(30):
                    told = await anext(aiter(transcripts))
            assert isinstance(told, StreamCompleted)
            assert (told.run, told.reason, told.segments) == (run, Reason.NOT_MEDIA, 0)
        finally:
            assert [child.stop() for child in children] == [0, 0]
