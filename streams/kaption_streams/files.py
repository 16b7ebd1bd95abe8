"""The file agent: objects in, batch records and dead letters out. One object at a time; a film takes minutes.

An input is acknowledged once all that it made is delivered. A process that ends before leaves it to the next one, which
makes the same run, the same object and the same records again.
"""

import asyncio
import contextlib
import logging
import threading
from datetime import UTC, datetime
from typing import Any

import faust
from faust.types import TP

from kaption.adapters.media import MediaDecoder
from kaption.adapters.presidio import PresidioRedactor
from kaption.adapters.s3 import ObjectStore, StoreError
from kaption.adapters.settings import Settings
from kaption.adapters.telemetry import DEAD_LETTERS, RECORDS, Telemetry
from kaption.domain.batch import Normalised, batch_records
from kaption.domain.events import Origin, Refusal, RefusedError, dead_letter
from kaption.domain.objects import ObjectRun, place_of, read_objects
from kaption.domain.pcm import FrameFormat
from kaption.domain.stages import Tools, redact_options
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import BATCH, DLQ, OBJECTS, Type, topic_name
from kaption_streams.app import Output, input_topic, now_ms, origin_of
from kaption_streams.normalise import Normaliser, StoppedError
from kaption_streams.progress import Place, Standing

log = logging.getLogger(__name__)

#: Seconds before each further try when the store is away; after them the process ends, and is started again.
_PAUSES = (0.5, 2.0, 5.0, 10.0)
#: How long an agent may take over what it has read before the broker thinks it dead: many long files in a row.
_POLL_SECONDS = 6 * 3600
_SWEEP_SECONDS = 3600
_STAGE = "files"


class FileDoor:
    """The file agent behind Faust. ``failed`` gets the error that ends the process."""

    def __init__(self, app: faust.App, settings: Settings, telemetry: Telemetry) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._telemetry = telemetry
        self._group = f"{settings.group}.files"
        self._output = Output(settings)
        self._store = ObjectStore(settings)
        self._stopping = threading.Event()
        self._decoder = MediaDecoder(settings)
        self._normalise = Normaliser(settings, self._store, self._decoder, self._stopping)
        self._tools = Tools(PresidioRedactor(), settings.redaction, _no_frames)
        self._busy = asyncio.Lock()
        self._taken = 0
        self._sweeper: asyncio.Task[None] | None = None
        app.conf.broker_max_poll_interval = float(_POLL_SECONDS)
        app.agent(input_topic(app, settings, OBJECTS), name="file-door", concurrency=1)(self._work)

    def standing(self, places: dict[TP, Place]) -> Standing:
        """Where the agent stands; one that works on an object, which may take long, has its own limits there."""
        return Standing({} if self._busy.locked() else places, 0, self._taken)

    async def start(self) -> None:
        """Connect, and see that the work bucket is there; before the app starts. Raises ``StoreError``."""
        await self._patiently(self._store.prepare_work)
        await self._output.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="sweep orphans")

    async def stop(self) -> None:
        """Leave the object in work to the next process; before the app stops."""
        self._stopping.set()
        async with self._busy:
            pass

    async def close(self) -> None:
        """Let go of producer and store; after the app stopped."""
        self._stopping.set()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._output.stop()
        await asyncio.to_thread(self._decoder.close)
        self._store.close()

    async def _work(self, stream: Any) -> None:  # Faust ships no types
        async for event in stream.noack().events():
            try:
                async with self._busy:
                    self._taken += 1
                    await self._one(origin_of(event, OBJECTS))
            except StoppedError:
                return
            except Exception as error:  # noqa: BLE001  # the process's edge: Faust would ack the event and go on
                self._fail(error)
                return
            event.ack()

    async def _one(self, origin: Origin) -> None:
        place = place_of(origin.tenant, self._settings.media_bucket, self._settings.media_prefix)
        try:
            wanted = read_objects(origin, place)
        except RefusedError as error:
            wanted = [error.reason]
        for want in wanted:
            try:
                if isinstance(want, Reason):
                    raise RefusedError(want)
                with self._telemetry.span(
                    "process", origin.topic, parent=origin.headers, partition=origin.partition, group=self._group
                ):
                    await self._transcribe(want)
            except RefusedError as error:
                await self._dead_letter(origin, error.reason)

    async def _transcribe(self, run: ObjectRun) -> None:
        options = redact_options(run.media.options, self._tools)
        audio: Normalised = await self._patiently(self._normalise, run)
        key = f"{run.tenant}/{run.stream}".encode()
        records = batch_records(run, options, audio)
        self._telemetry.record(RECORDS, len(records), topic=BATCH.name, type=Type.CHUNK.value)
        await asyncio.gather(*[await self._output.send(BATCH.name, key, body, list(head)) for body, head in records])
        log.info("normalised", extra={"run": run.run, "seconds": audio.samples // audio.rate})

    async def _patiently(self, work: Any, *arguments: Any) -> Any:  # whatever the work returns
        """Run ``work`` in a thread, again while the store is away. Raises its last ``StoreError``."""
        for pause in _PAUSES:
            try:
                return await asyncio.to_thread(work, *arguments)
            except StoreError as error:
                if self._stopping.is_set():
                    raise StoppedError from None
                log.warning("the object store failed", extra={"error": str(error), "again_in_seconds": pause})
                await asyncio.sleep(pause)
        return await asyncio.to_thread(work, *arguments)

    async def _dead_letter(self, origin: Origin, reason: Reason) -> None:
        self._telemetry.record(DEAD_LETTERS, reason=reason.value)
        letter = dead_letter(origin, Refusal(reason, _STAGE), now_ms())
        log.info("refused", extra={"reason": str(reason), "topic": origin.topic, "offset": origin.offset})
        await (await self._output.send(topic_name(DLQ, origin.tenant), letter.key, letter.value, letter.headers))

    async def _sweep(self) -> None:
        """Remove orphans now and then, for stores that do not expire them by themselves."""
        while True:
            with contextlib.suppress(StoreError):  # the next round will do
                await asyncio.to_thread(self._store.sweep, datetime.now(UTC))
            await asyncio.sleep(_SWEEP_SECONDS)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


def _no_frames(_: bytes, __: FrameFormat, ___: str) -> bytes:
    """Objects have no frames to decode."""
    raise RefusedError(Reason.UNDECODABLE)
