"""When a file agent says that it is ready: a supervisor ends one that is not for long, and all that is in work with it."""

import asyncio
from pathlib import Path

from kaption.adapters.media.files import MediaDecoder
from kaption.adapters.presidio import PresidioRedactor
from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore
from kaption.adapters.telemetry import Telemetry
from kaption_schemas.codec import Origin
from kaption_streams.agent import AgentParts
from kaption_streams.app import Output, make_app
from kaption_streams.files import FileAgent, _Job
from kaption_streams.intake import Record


def job(offset: int) -> _Job:
    return _Job(Record(Origin("acme", "acme.media.objects.v1", 0, offset, 1, None, b"", ()), 1, lambda: None))


async def test_one_object_that_waits_for_room_does_not_end_the_others(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    app, telemetry = make_app(settings, "files"), Telemetry(settings, "files")
    parts = AgentParts(app, "kaption.files", settings, telemetry, Output(settings))
    agent = FileAgent(parts, ObjectStore(settings), MediaDecoder(settings), PresidioRedactor())
    assert not agent.ready
    agent._fitness.fit = True
    assert agent.ready
    large, film = job(1), job(2)
    task = asyncio.create_task(asyncio.Event().wait())
    agent._no_room.add(large)
    assert not agent.ready  # nothing is decoded
    agent._working[task] = large
    assert not agent.ready  # it looks once more
    agent._working[task] = film
    assert agent.ready
    task.cancel()
    await agent.close()
