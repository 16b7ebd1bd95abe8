"""Defines the base of every agent: its parts, its life within Faust, and the first error, which ends the process."""

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
    """The parts of an agent. ``group`` is its consumer group."""

    app: faust.App
    group: str
    settings: Settings
    telemetry: Telemetry
    output: Output


class Agent(ABC):
    """An agent within Faust. ``failed`` gets the error that ends the process, for example when a broker takes no records."""

    def __init__(self, parts: AgentParts) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._app = parts.app
        self._telemetry = parts.telemetry
        self._output = parts.output
        self._taken = 0

    @property
    def ready(self) -> bool:
        """Whether the agent would work on an input now. Always true for an agent that needs the broker only."""
        return True

    @abstractmethod
    def standing(self, places: dict[TP, Offsets]) -> Standing:
        """The agent's progress, at these places of its inputs."""

    async def start(self) -> None:
        """Connect the producer. Call it before the app starts."""
        await self._output.start()

    @abstractmethod
    async def stop(self) -> None:
        """Finish the records that were read. Call it before the app stops."""

    async def close(self) -> None:
        """Close the producer. Call it after the app has stopped."""
        await self._output.stop()

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


async def run(process: Process, app: faust.App, agent: Agent) -> None:
    """Start ``agent``, watch it, and stop it in order when the process must stop. Raises the error that ended it."""
    settings = process.settings
    await agent.start()
    # The group would wait for a member that was killed on this machine, and on the embedded broker without end.
    await remove_dead(settings, process.group)
    await app.start()
    process.started.set()
    # A crash within Faust (its consumer's thread, a commit) ends only Faust's services, so check for it.
    stopping = asyncio.create_task(process.stop.wait())
    watching = asyncio.create_task(_watch(app, agent, settings.hang_seconds))
    ends = (stopping, agent.failed, watching)
    while not (any(end.done() for end in ends) or app.crashed):
        # A member without partitions is ready, too: it waits to replace another.
        member = bool(app.consumer.assignment()) or (app.rebalancing_count > 0 and not app.rebalancing)
        process.health.ready = agent.ready and member
        await asyncio.wait(ends, timeout=_WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    process.health.ready = False
    # After a failure the process ends without a drain: Faust would wait without end. Unacknowledged records come again.
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
    """Check that the agent makes progress. Raises ``StuckError``."""
    watchdog, every = Watchdog(limit), limit / 10
    known: dict[TP, Offsets] = {}
    while True:
        await asyncio.sleep(every)
        # A consumer that does not answer counts as unmoved.
        with suppress(TimeoutError):
            known = await asyncio.wait_for(places(app.consumer), every)
        watchdog.look(time.monotonic(), {"agent": agent.standing(known).mark})
