"""Runs the live agents: media events in, audio records and dead letters out.

An input is acknowledged once its records are delivered. One agent runs all three stages (``fused``), or each stage has an
agent in a process of its own, with a topic to read and one to write (``staged``). The stages are the same functions.
"""

import logging
import time
from abc import abstractmethod
from collections.abc import Awaitable
from functools import partial
from typing import Any, ClassVar

from faust.types import TP

from kaption.adapters.telemetry import DEAD_LETTERS, RECORDS, STAGE_DURATION
from kaption.domain.intake.refusal import Refusal
from kaption.domain.intake.stages import Tools, accept, check, chunk, clear
from kaption_schemas.codec import (
    Event,
    Origin,
    encode_dead_letter,
    encode_event,
    encode_relayed,
    is_relayed,
    is_traced,
    read_event,
    read_relayed,
)
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import ACCEPTED, EVENTS, LIVE, REDACTED, Topic
from kaption_streams.acks import Window
from kaption_streams.agent import Agent, AgentParts
from kaption_streams.app import input_topic, now_ms, origin_of
from kaption_streams.judging import ATTEMPTS, judge
from kaption_streams.standing import Offsets, Standing

log = logging.getLogger(__name__)

Deliveries = list[Awaitable[Any]]


class LiveAgent(Agent):
    """The base of the live agents: dead letters, and acknowledgements in order."""

    #: The agent's name in metrics and dead letters, and the topic that it reads.
    stage: ClassVar[str]
    reads: ClassVar[Topic]

    def __init__(self, parts: AgentParts) -> None:
        super().__init__(parts)
        self._group = parts.group
        self._window = Window(self._fail)
        channel = input_topic(parts.app, parts.settings, self.reads)
        parts.app.agent(channel, name=self.reads.name, concurrency=1)(self._read)

    @abstractmethod
    async def work(self, origin: Origin) -> Deliveries:
        """Send the records that an input makes, and return the deliveries."""

    def standing(self, places: dict[TP, Offsets]) -> Standing:
        """The agent's progress, at these places of its input."""
        return Standing(places, len(self._window), self._taken)

    async def stop(self) -> None:
        """Deliver and acknowledge all read events. Call it before the app stops."""
        await self._window.settle()

    async def _read(self, stream: Any) -> None:  # Faust ships no types
        async for event in stream.noack().events():
            try:
                origin = origin_of(event, self.reads)
                await self._window.add(await self._measured(origin), event.ack, len(origin.value or b""))
            except Exception as error:  # noqa: BLE001  # the process's boundary: Faust would acknowledge the event and go on
                self._fail(error)
                return

    async def _measured(self, origin: Origin) -> Deliveries:
        """Do the work, measure its time, and continue the publisher's trace if there is one."""
        begin = time.perf_counter()
        self._taken += 1
        if is_traced(origin.headers):
            place = {"partition": origin.partition, "group": self._group}
            with self._telemetry.span("process", origin.topic, parent=origin.headers, **place):  # type: ignore[arg-type]
                deliveries = await self.work(origin)
        else:
            deliveries = await self.work(origin)
        self._telemetry.record(STAGE_DURATION, time.perf_counter() - begin, stage=self.stage)
        return deliveries

    async def _forward(self, topic: Topic, events: list[Event]) -> Deliveries:
        for event in events:
            self._telemetry.record(RECORDS, topic=topic.name, type=event.kind.value)
        return [await self._output.send(encode_event(event, topic)) for event in events]

    async def _refuse(self, origin: Origin, refusal: Refusal, topic: Topic) -> Deliveries:
        """Dead-letter ``origin``, and send the event that it leaves in its run to ``topic``."""
        self._telemetry.record(DEAD_LETTERS, reason=refusal.reason.value)
        log.info(
            "record_refused", extra={"reason": str(refusal.reason), "topic": origin.topic, "offset": origin.offset}
        )
        attempts = ATTEMPTS if refusal.reason is Reason.INTERNAL_ERROR else 1
        letter = encode_dead_letter(
            origin, refusal.reason, refusal.stage, now_ms(), detail=refusal.detail, attempts=attempts
        )
        delivery = await self._output.send(letter)
        return [delivery, *await self._forward(topic, [refusal.mark] if refusal.mark else [])]


class FusedAgent(LiveAgent):
    """Runs the three stages in one agent: one hop, one copy of the audio."""

    stage = "fused"
    reads = EVENTS

    def __init__(self, parts: AgentParts, tools: Tools) -> None:
        super().__init__(parts)
        self._tools = tools

    async def work(self, origin: Origin) -> Deliveries:
        """Run all stages."""
        result = await judge(origin, "fused", partial(accept, tools=self._tools))
        if isinstance(result, Refusal):
            return await self._refuse(origin, result, LIVE)
        return await self._forward(LIVE, result)


class ValidateAgent(LiveAgent):
    """Runs the first stage, which needs neither decoder nor recognisers."""

    stage = "validate"
    reads = EVENTS

    async def work(self, origin: Origin) -> Deliveries:
        """Pass a valid event on unchanged."""
        result = await judge(origin, "validate", lambda record: check(record) or [])
        if isinstance(result, Refusal):
            return await self._refuse(origin, result, ACCEPTED)
        return [await self._output.send(encode_relayed(origin, ACCEPTED))]


class RedactAgent(LiveAgent):
    """Runs the second stage, the only one that reads audio and text."""

    stage = "redact"
    reads = ACCEPTED

    def __init__(self, parts: AgentParts, tools: Tools) -> None:
        super().__init__(parts)
        self._tools = tools

    async def work(self, record: Origin) -> Deliveries:
        """Decode, mute and redact."""
        relay = is_relayed(record)
        origin = read_relayed(record) if relay else record
        stage = partial(clear, tools=self._tools) if relay else _events
        result = await judge(origin, "redact", stage)
        if isinstance(result, Refusal):
            return await self._refuse(origin, result, REDACTED)
        return await self._forward(REDACTED, result)


class ChunkAgent(LiveAgent):
    """Runs the third stage, which turns frames into chunks."""

    stage = "chunk"
    reads = REDACTED

    async def work(self, record: Origin) -> Deliveries:
        """Make chunks."""
        result = await judge(record, "chunk", lambda one: chunk(_event(one)))
        if isinstance(result, Refusal):
            return await self._refuse(record, result, LIVE)
        return await self._forward(LIVE, result)


def _event(record: Origin) -> Event:
    return read_event(record, record.timestamp_ms)


def _events(record: Origin) -> list[Event]:
    return [_event(record)]
