"""When a file agent says that it is ready: a supervisor ends one that is not for long, and all that is in work with it."""

import asyncio
from pathlib import Path

from kaption.adapters.settings import Settings
from kaption.adapters.telemetry import Telemetry
from kaption.domain.intake.events import Origin
from kaption_streams.app import make_app
from kaption_streams.files import FileDoor, _Job
from kaption_streams.intake import Record


def job(offset: int) -> _Job:
    return _Job(Record(Origin("acme", "acme.media.objects.v1", 0, offset, 1, None, b"", ()), 1, lambda: None))


async def test_one_object_that_waits_for_room_does_not_end_the_others(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    door = FileDoor(make_app(settings, "files"), settings, Telemetry(settings, "files"))
    assert not door.ready
    door._fitness.fit = True
    assert door.ready
    large, film = job(1), job(2)
    task = asyncio.create_task(asyncio.Event().wait())
    door._no_room.add(large)
    assert not door.ready  # nothing is decoded
    door._working[task] = large
    assert not door.ready  # it looks once more
    door._working[task] = film
    assert door.ready
    task.cancel()
    await door.close()
