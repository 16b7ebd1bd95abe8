"""``python -m kaption_streams live|files``: one agent process, until SIGTERM or until something fails."""

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

from kaption.adapters.confinement import filters, hide
from kaption.adapters.health import Health
from kaption.adapters.logs import configure
from kaption.adapters.members import remove_dead
from kaption.adapters.s3 import StoreError
from kaption.adapters.settings import Settings
from kaption.adapters.telemetry import Telemetry
from kaption_streams.app import make_app
from kaption_streams.files import FileDoor
from kaption_streams.live import FrontDoor, StagedDoor
from kaption_streams.progress import Place, Progress, places

log = logging.getLogger("kaption_streams")
#: Each agent's consumer group, after the settings' prefix, and what it runs.
_DOORS: dict[str, tuple[str, type[FrontDoor | StagedDoor | FileDoor]]] = {
    "live": ("streams", FrontDoor),
    "files": ("files", FileDoor),
}
_WATCH_SECONDS = 0.5
_STOP_SECONDS = 10.0


async def run(settings: Settings, name: str) -> int:
    """Run agent ``name`` until SIGTERM; 0 then, 1 when a delivery failed (the supervisor starts the process again)."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    group, make_door = _DOORS[name]
    if name == "live" and settings.stages == "staged":
        make_door = StagedDoor
    app = make_app(settings, group)
    telemetry = Telemetry(settings, name)
    door = make_door(app, settings, telemetry)
    health = Health(telemetry.prometheus)
    await health.start(settings, name)
    await door.start()
    # What was killed here before would be waited for; on the embedded broker for ever.
    await remove_dead(settings, f"{settings.group}.{group}")
    await app.start()
    # A crash of Faust's own (its consumer's thread, a commit) ends its services and nothing else: it must be looked for.
    stopping = asyncio.create_task(stop.wait())
    watching = asyncio.create_task(_watch(app, door, Progress(settings.hang_seconds), settings.hang_seconds / 10))
    ends = (stopping, door.failed, watching)
    while not (any(end.done() for end in ends) or app.crashed):
        health.ready = door.ready and bool(app.consumer.assignment())
        await asyncio.wait(ends, timeout=_WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    health.ready = False
    failures = [end.exception() for end in (door.failed, watching) if end.done()]
    failed = bool(failures) or app.crashed
    for task in (stopping, watching):
        task.cancel()
    if failed:
        error = failures[0] if failures else app.crash_reason
        log.error("stopping", extra={"error": type(error).__name__})
    with suppress(TimeoutError):
        await asyncio.wait_for(_stop(app, door, drain=not failed), _STOP_SECONDS)
    await health.stop()
    await asyncio.to_thread(telemetry.shutdown)
    return 1 if failed else 0


async def _watch(app: Any, door: FrontDoor | StagedDoor | FileDoor, progress: Progress, every: float) -> None:
    """Look whether the agent gets on. Raises ``StuckError``."""
    known: dict[TP, Place] = {}
    while True:
        await asyncio.sleep(every)
        # A consumer that does not even answer stands where it stood.
        with suppress(TimeoutError):
            known = await asyncio.wait_for(places(app.consumer), every)
        progress.look(door.standing(known))


async def _stop(app: object, door: FrontDoor | StagedDoor | FileDoor, *, drain: bool) -> None:
    if drain:
        await door.stop()
    await app.stop()  # type: ignore[attr-defined]  # Faust ships no types
    await door.close()


def main() -> int:
    """Entry point."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in _DOORS:
        sys.exit(f"usage: python -m kaption_streams {'|'.join(_DOORS)}")
    hide()
    settings = Settings()
    configure(settings, name)
    if not filters():
        log.warning("system calls can't be filtered here: a decoder that was taken over reaches what its user reaches")
    try:
        return asyncio.run(run(settings, name))
    except (StoreError, KafkaError) as error:
        log.error("can't start", extra={"error": f"{type(error).__name__}: {error}"})
        return 1


if __name__ == "__main__":
    sys.exit(main())
