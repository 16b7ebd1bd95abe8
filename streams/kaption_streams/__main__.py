"""``python -m kaption_streams live|files``: one agent process, until SIGTERM or until something fails."""

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

from kaption.adapters.kafka.members import remove_dead
from kaption.adapters.kafka.topics import TopicsError, ensure
from kaption.adapters.logs import configure
from kaption.adapters.processes.confinement import filters, hide
from kaption.adapters.processes.ending import end, end_soon
from kaption.adapters.processes.health import Health
from kaption.adapters.settings import Settings, service_settings
from kaption.adapters.store.s3 import StoreError
from kaption.adapters.telemetry import Telemetry
from kaption_schemas.topics import ACCEPTED, BATCH, DLQ, EVENTS, LIVE, OBJECTS, REDACTED
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
#: The topics that each must find as the map says.
_TOPICS = {"live": (EVENTS, DLQ, ACCEPTED, REDACTED, LIVE), "files": (OBJECTS, DLQ, BATCH)}
_WATCH_SECONDS = 0.5


async def run(settings: Settings, name: str) -> int:
    """Run agent ``name`` until SIGTERM; 0 then, 1 when a delivery failed (the supervisor starts the process again).

    From either the process has ``ending.END_SECONDS`` left, whatever is waited for.
    """
    stop = asyncio.Event()

    def stopping() -> None:
        end_soon()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping)
    telemetry = Telemetry(settings, name)
    health = Health(telemetry.prometheus)
    await health.start(settings, name)
    try:
        started = asyncio.Event()
        agent = asyncio.create_task(_agent(settings, name, telemetry, health, started, stop), name=name)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((agent, stopped), return_when=asyncio.FIRST_COMPLETED)
        # One that still starts has nothing to hand over, and Faust may swallow its cancellation.
        if stop.is_set() and not started.is_set():
            end(0)
        return await agent
    finally:
        end_soon()
        await health.stop()
        await asyncio.to_thread(telemetry.shutdown)


async def _agent(
    settings: Settings, name: str, telemetry: Telemetry, health: Health, started: asyncio.Event, stop: asyncio.Event
) -> int:
    """Start agent ``name`` and set ``started``, watch it, and stop it once ``stop`` is set."""
    group, make_door = _DOORS[name]
    if name == "live" and settings.stages == "staged":
        make_door = StagedDoor
    await ensure(settings, *_TOPICS[name])
    app = make_app(settings, group)
    door = make_door(app, settings, telemetry)
    await door.start()
    # What was killed here before would be waited for; on the embedded broker for ever.
    await remove_dead(settings, f"{settings.group}.{group}")
    await app.start()
    started.set()
    # A crash of Faust's own (its consumer's thread, a commit) ends its services and nothing else: it must be looked for.
    stopping = asyncio.create_task(stop.wait())
    watching = asyncio.create_task(_watch(app, door, Progress(settings.hang_seconds), settings.hang_seconds / 10))
    ends = (stopping, door.failed, watching)
    while not (any(end.done() for end in ends) or app.crashed):
        # A member that has no partition is as ready: it waits for another's end.
        member = bool(app.consumer.assignment()) or (app.rebalancing_count > 0 and not app.rebalancing)
        health.ready = door.ready and member
        await asyncio.wait(ends, timeout=_WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    health.ready = False
    failures = [end.exception() for end in (door.failed, watching) if end.done()]
    if failures or app.crashed:
        error = failures[0] if failures else app.crash_reason
        log.error("process_failed", extra={"error": type(error).__name__})
        # What is not acknowledged comes again. Faust's own end would wait for it, and for ever.
        return 1
    watching.cancel()
    await door.stop()
    await app.stop()
    await door.close()
    return 0


async def _watch(app: Any, door: FrontDoor | StagedDoor | FileDoor, progress: Progress, every: float) -> None:
    """Look whether the agent gets on. Raises ``StuckError``."""
    known: dict[TP, Place] = {}
    while True:
        await asyncio.sleep(every)
        # A consumer that does not even answer stands where it stood.
        with suppress(TimeoutError):
            known = await asyncio.wait_for(places(app.consumer), every)
        progress.look(door.standing(known))


def main() -> None:
    """Entry point; ends the process."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in _DOORS:
        sys.exit(f"usage: python -m kaption_streams {'|'.join(_DOORS)}")
    hide()
    settings = service_settings(name)
    configure(settings, name)
    if not filters():
        log.warning("seccomp_unavailable")
    status = 1
    try:
        status = asyncio.run(run(settings, name))
    except (StoreError, KafkaError, TopicsError) as error:
        log.error("start_failed", extra={"error": f"{type(error).__name__}: {error}"})
    end(status)


if __name__ == "__main__":
    main()
