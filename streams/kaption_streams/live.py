"""The live agents: media events in, audio records and dead letters out, each input acknowledged once both are delivered.

``fused`` runs the three stages in one agent, ``staged`` each on a topic of its own; the stages are the same functions.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import faust
from faust.types import TP

from kaption.adapters.media.frames import FrameDecoder
from kaption.adapters.presidio import PresidioRedactor
from kaption.adapters.settings import Settings
from kaption.adapters.telemetry import DEAD_LETTERS, RECORDS, STAGE_DURATION, Telemetry
from kaption.domain.intake.events import Event, Origin, Refusal, dead_letter
from kaption.domain.intake.relay import event_of, is_relayed, original, relayed
from kaption.domain.intake.stages import Tools, accept, check, chunk, clear
from kaption_schemas.headers import TRACE
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import ACCEPTED, DLQ, EVENTS, LIVE, REDACTED, Topic, topic_name
from kaption_streams.acks import Window
from kaption_streams.app import Output, input_topic, now_ms, origin_of
from kaption_streams.judging import ATTEMPTS, judge
from kaption_streams.progress import Place, Standing

log = logging.getLogger(__name__)

Deliveries = list[Awaitable[Any]]


class Door:
    """What agents share: a producer, dead letters, and the order of acknowledgements. ``failed`` ends the process."""

    #: Nothing but the broker is needed.
    ready = True

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._telemetry = telemetry
        self._group = f"{settings.group}.streams"
        self._output = Output(settings)
        self._decoder = FrameDecoder()
        self._tools = Tools(PresidioRedactor(), settings.redaction, self._decoder)
        self._windows: list[Window] = []
        self._taken = 0

    def standing(self, places: dict[TP, Place]) -> Standing:
        """Where the agents stand, at these places of their inputs."""
        return Standing(places, sum(map(len, self._windows)), self._taken)

    async def start(self) -> None:
        """Connect the producer; before the app starts."""
        await self._output.start()

    async def stop(self) -> None:
        """Deliver and acknowledge what was read; before the app stops."""
        for window in self._windows:
            await window.settle()

    async def close(self) -> None:
        """Let go of producer and child; after the app stopped."""
        await self._output.stop()
        self._decoder.close()

    def _agent(self, source: Any, topic: Topic, stage: str, work: Callable[[Origin], Awaitable[Deliveries]]) -> None:
        """Attach one agent to ``source``; ``work`` sends what an input makes and returns the deliveries."""
        app, channel = source
        window = Window(self._fail)
        self._windows.append(window)

        async def agent(stream: Any) -> None:  # Faust ships no types
            async for event in stream.noack().events():
                try:
                    origin = origin_of(event, topic)
                    await window.add(await self._measured(origin, stage, work), event.ack, len(origin.value or b""))
                except Exception as error:  # noqa: BLE001  # the process's edge: Faust would ack the event and go on
                    self._fail(error)
                    return

        app.agent(channel, name=topic.name, concurrency=1)(agent)

    async def _measured(
        self, origin: Origin, stage: str, work: Callable[[Origin], Awaitable[Deliveries]]
    ) -> Deliveries:
        """Do ``work``, with its time taken, and within the publisher's trace if it has one."""
        begin = time.perf_counter()
        self._taken += 1
        if any(name == TRACE[0] for name, _ in origin.headers):
            place = {"partition": origin.partition, "group": self._group}
            with self._telemetry.span("process", origin.topic, parent=origin.headers, **place):  # type: ignore[arg-type]
                deliveries = await work(origin)
        else:
            deliveries = await work(origin)
        self._telemetry.record(STAGE_DURATION, time.perf_counter() - begin, stage=stage)
        return deliveries

    async def _forward(self, topic: Topic, events: list[Event]) -> Deliveries:
        for event in events:
            self._telemetry.record(RECORDS, topic=topic.name, type=event.kind.value)
        return [await self._output.send(topic.name, e.key, e.body, list(e.headers())) for e in events]

    async def _refuse(self, origin: Origin, refusal: Refusal, topic: Topic) -> Deliveries:
        """Dead-letter ``origin``, and put what it leaves in its run on ``topic``."""
        self._telemetry.record(DEAD_LETTERS, reason=refusal.reason.value)
        log.info(
            "record_refused", extra={"reason": str(refusal.reason), "topic": origin.topic, "offset": origin.offset}
        )
        attempts = ATTEMPTS if refusal.reason is Reason.INTERNAL_ERROR else 1
        letter = dead_letter(origin, refusal, now_ms(), attempts)
        delivery = await self._output.send(topic_name(DLQ, origin.tenant), letter.key, letter.value, letter.headers)
        return [delivery, *await self._forward(topic, [refusal.mark] if refusal.mark else [])]

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


class FrontDoor(Door):
    """The three stages in one agent (``fused``): one hop, one copy of the audio."""

    def __init__(self, app: faust.App, settings: Settings, telemetry: Telemetry) -> None:
        super().__init__(settings, telemetry)
        self._agent((app, input_topic(app, settings, EVENTS)), EVENTS, "fused", self._accept)

    async def _accept(self, origin: Origin) -> Deliveries:
        result = await judge(origin, "fused", partial(accept, tools=self._tools))
        if isinstance(result, Refusal):
            return await self._refuse(origin, result, LIVE)
        return await self._forward(LIVE, result)


class StagedDoor(Door):
    """Each stage an agent on a topic of its own (``staged``)."""

    def __init__(self, app: faust.App, settings: Settings, telemetry: Telemetry) -> None:
        super().__init__(settings, telemetry)
        for topic, stage, work in (
            (EVENTS, "validate", self._validate),
            (ACCEPTED, "redact", self._redact),
            (REDACTED, "chunk", self._chunk),
        ):
            self._agent((app, input_topic(app, settings, topic)), topic, stage, work)

    async def _validate(self, origin: Origin) -> Deliveries:
        result = await judge(origin, "validate", lambda record: check(record) or [])
        if isinstance(result, Refusal):
            return await self._refuse(origin, result, ACCEPTED)
        key = b"/".join([origin.tenant.encode(), origin.key or b""])
        return [await self._output.send(ACCEPTED.name, key, origin.value, relayed(origin))]

    async def _redact(self, record: Origin) -> Deliveries:
        relay = is_relayed(record)
        origin = original(record) if relay else record
        stage = partial(clear, tools=self._tools) if relay else _events
        result = await judge(origin, "redact", stage)
        if isinstance(result, Refusal):
            return await self._refuse(origin, result, REDACTED)
        return await self._forward(REDACTED, result)

    async def _chunk(self, record: Origin) -> Deliveries:
        result = await judge(record, "chunk", lambda one: chunk(event_of(one)))
        if isinstance(result, Refusal):
            return await self._refuse(record, result, LIVE)
        return await self._forward(LIVE, result)


def _events(record: Origin) -> list[Event]:
    return [event_of(record)]
