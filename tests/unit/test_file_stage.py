"""What the file agent sends of an object that it refuses, and of a record that it fails on."""

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from kaption.adapters.presidio import PresidioRedactor
from kaption.adapters.settings import Settings
from kaption.adapters.telemetry import Telemetry
from kaption.domain.intake.bucket_events import ObjectRun, RefusedObject
from kaption.domain.intake.file_chunks import Normalised
from kaption_schemas.codec import Message, Origin
from kaption_schemas.errors import RefusedError
from kaption_schemas.headers import event_headers, text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import StreamRefused
from kaption_schemas.topics import BATCH, Type
from kaption_streams.app import Output
from kaption_streams.file_stage import FileStage

RUN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"


class Sent(Output):
    """Keeps what is sent."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.records: list[tuple[str, bytes | None, bytes | None, dict[str, str]]] = []

    async def send(self, message: Message) -> Awaitable[Any]:
        self.records.append((message.topic, message.key, message.value, text_headers(message.headers)))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@pytest.fixture
def stage(tmp_path: Path) -> tuple[FileStage, Sent]:
    settings = Settings(data=tmp_path)

    def normalise(_: ObjectRun) -> Normalised:
        raise RefusedError(Reason.NOT_MEDIA)

    sent = Sent(settings)
    return FileStage(settings, Telemetry(settings, "files"), sent, PresidioRedactor(), normalise), sent


def origin(body: Any, key: bytes = b"film") -> Origin:
    headers = event_headers(Type.OBJECT, id="1", source="/test", run=RUN)
    return Origin("acme", "acme.media.objects.v1", 0, 7, 1234, key, body, tuple(headers))


async def test_a_refusal_says_why_and_nothing_that_is_redacted(stage: tuple[FileStage, Sent]) -> None:
    door, sent = stage
    error = RefusedError(Reason.NOT_MEDIA, "codec dts of 'call +1 202 555 0143 jane@example.com'\n" + "x" * 999)
    await door.refuse(origin(b"{}"), error, None, attempts=4)
    (topic, key, value, head), (batch, inner, body, mark) = sent.records
    assert (topic, key, value) == ("acme.media.dlq.v1", b"film", b"{}")
    assert (head["errors.reason"], head["errors.attempt"]) == (Reason.NOT_MEDIA, "4")
    assert "codec dts of 'call [PHONE_NUMBER] [EMAIL_ADDRESS]'x" in head["errors.message"]
    assert len(head["errors.message"]) < 450
    assert (batch, inner, mark["ce_type"], mark["ce_run"]) == (BATCH.name, b"acme/film", Type.REFUSED, RUN)
    assert StreamRefused.model_validate_json(body or b"").reason is Reason.NOT_MEDIA


async def test_a_record_that_it_fails_on_is_refused(stage: tuple[FileStage, Sent]) -> None:
    """No bytes, which no client can send: whatever raises in the pure stages."""
    door, _ = stage
    assert await door.wanted(origin(7)) == [RefusedObject(Reason.INTERNAL_ERROR)]


async def test_a_notifications_stream_holds_no_number(stage: tuple[FileStage, Sent]) -> None:
    door, _ = stage
    key = "acme/2026-11-28%20%2B1%20202-555-0143%204111%201111%201111%201111.wav"
    entry = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "media"}, "object": {"key": key}}}
    plain = Origin("acme", "acme.media.objects.v1", 0, 7, 1, None, json.dumps({"Records": [entry]}).encode(), ())
    (run,) = await door.wanted(plain)
    assert isinstance(run, ObjectRun)
    assert len(run.stream) == 10
