"""What every agent shares: its parts, its life behind Faust, and the first error, which ends the process."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass

import faust
from faust.types import TP

from kaption.adapters.kafka.members import remove_dead
from kaption.adapters.settings import Settings
from kaption.adapters.telemetry import Telemetry
from kaption.service.run import Process
from kaption.service.watchdog import Watchdog
from kaption_streams.app import Output
from kaption_streams.standing import Offsets, Standing, places

log = logging.getLogger(__name__)

_WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What an agent is wired from; ``group`` is its consumer group."""

    app: faust.App
    group: str
    settings: Settings
    telemetry: Telemetry
    output: Output


class Agent(ABC):
    """An agent behind Faust. ``failed`` gets the error that ends the process, for example a broker that takes nothing."""

    def __init__(self, parts: AgentParts) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._app = parts.app
        self._telemetry = parts.telemetry
        self._output = parts.output
        self._taken = 0

    @property
    def ready(self) -> bool:
        """Whether an input that came now would be worked on; with nothing but the broker, yes."""
        return True

    @abstractmethod
    def standing(self, places: dict[TP, Offsets]) -> Standing:
        """Where the agent stands, at these places of its inputs."""

    async def start(self) -> None:
        """Connect the producer; before the app starts."""
        await self._output.start()

    @abstractmethod
    async def stop(self) -> None:
        """Hand over what was read; before the app stops."""

    async def close(self) -> None:
        """Close the producer; after the app stopped."""
        await self._output.stop()

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


async def run(process: Process, app: faust.App, agent: Agent) -> None:
    """Start ``agent``, watch it, and stop it in order once the process is to stop. Raises what ended it."""
    settings = process.settings
    await agent.start()
    # The group would wait for a member that was killed here; on the embedded broker without end.
    await remove_dead(settings, process.group)
    await app.start()
    process.started.set()
    # A crash of Faust's own (its consumer's thread, a commit) ends its services and nothing else: it must be looked for.
    stopping = asyncio.create_task(process.stop.wait())
    watching = asyncio.create_task(_watch(app, agent, settings.hang_seconds))
    ends = (stopping, agent.failed, watching)
    while not (any(end.done() for end in ends) or app.crashed):
        # A member that has no partition is as ready: it waits for another's end.
        member = bool(app.consumer.assignment()) or (app.rebalancing_count > 0 and not app.rebalancing)
        process.health.ready = agent.ready and member
        await asyncio.wait(ends, timeout=_WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    process.health.ready = False
    # On a failure the process just ends: what is not acknowledged comes again, and Faust would wait for it without end.
    for end in (agent.failed, watching):
        if end.done():
            end.result()
    if app.crashed:
        raise app.crash_reason or RuntimeError("Faust has crashed")
    watching.cancel()
    await agent.stop()
    await app.stop()
    await agent.close()


async def _watch(app: faust.App, agent: Agent, limit: float) -> None:
    """Look whether the agent gets on. Raises ``StuckError``."""
    watchdog, every = Watchdog(limit), limit / 10
    known: dict[TP, Offsets] = {}
    while True:
        await asyncio.sleep(every)
        # A consumer that does not even answer stands where it stood.
        with suppress(TimeoutError):
            known = await asyncio.wait_for(places(app.consumer), every)
        watchdog.look(time.monotonic(), {"agent": agent.standing(known).mark})
