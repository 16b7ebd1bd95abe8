"""The live agent: media events in, audio records and dead letters out, each input acknowledged once both are delivered."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import faust

from kaption.adapters.frames import FrameDecoder
from kaption.adapters.presidio import PresidioRedactor
from kaption.adapters.settings import Settings
from kaption.domain.events import Event, Origin, Refusal, dead_letter_headers
from kaption.domain.stages import Tools, accept
from kaption_schemas.topics import DLQ, EVENTS, LIVE, topic_name
from kaption_streams.app import Output, input_topic, origin_of
from kaption_streams.window import Window

log = logging.getLogger(__name__)


class FrontDoor:
    """The three stages behind one Faust agent (``fused``). ``failed`` gets the error that ends the process."""

    def __init__(self, app: faust.App, settings: Settings) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refused = 0
        self.accepted = 0
        self._output = Output(settings)
        self._decoder = FrameDecoder()
        self._tools = Tools(PresidioRedactor(), settings.redaction, self._decoder)
        self._window = Window(self._fail)
        app.agent(input_topic(app, settings, EVENTS), name="front-door", concurrency=1)(self._work)

    async def start(self) -> None:
        """Connect the producer; before the app starts."""
        await self._output.start()

    async def stop(self) -> None:
        """Deliver and acknowledge what was read; before the app stops."""
        await self._window.settle()

    async def close(self) -> None:
        """Let go of producer and child; after the app stopped."""
        await self._output.stop()
        self._decoder.close()

    async def _work(self, stream: Any) -> None:  # Faust ships no types
        async for event in stream.noack().events():
            try:
                await self._one(event)
            except Exception as error:  # noqa: BLE001  # the process's edge: Faust would ack the event and go on
                self._fail(error)
                return

    async def _one(self, event: Any) -> None:  # Faust ships no types
        origin = origin_of(event, EVENTS)
        result = accept(origin, self._tools)
        if isinstance(result, Refusal):
            self.refused += 1
            deliveries = [await self._dead_letter(origin, result)]
            if result.gap:
                deliveries.append(await self._forward(result.gap))
        else:
            self.accepted += 1
            deliveries = [await self._forward(one) for one in result]
        await self._window.add(deliveries, event.ack)

    async def _forward(self, event: Event) -> Awaitable[Any]:
        return await self._output.send(LIVE.name, event.key, event.body, list(event.headers()))

    async def _dead_letter(self, origin: Origin, refusal: Refusal) -> Awaitable[Any]:
        headers = dead_letter_headers(origin, refusal, origin.timestamp_ms)
        log.info("refused", extra={"reason": str(refusal.reason), "topic": origin.topic, "offset": origin.offset})
        return await self._output.send(topic_name(DLQ, origin.tenant), origin.key, origin.value, headers)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
