"""Runs the file agent's stages: a record to objects, an object to records of audio.batch.v1 or to a dead letter.

It does not know turns or retries.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final as Const

from kaption.adapters.settings import Settings
from kaption.adapters.telemetry import DEAD_LETTERS, FILE_AUDIO_SECONDS, RECORDS, Telemetry
from kaption.domain.intake.bucket_events import ObjectRun, RefusedObject, mark_of, place_of, read_objects
from kaption.domain.intake.file_chunks import Normalised, batch_records
from kaption.domain.intake.stages import Tools, redact_options
from kaption.domain.redaction.matches import TextRedactor, mask
from kaption_schemas.codec import Event, Origin, encode_dead_letter, encode_event, is_undecodable
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import RunOptions
from kaption_schemas.topics import BATCH, DEFAULT_TENANT, Type
from kaption_streams.app import Output, now_ms

log = logging.getLogger(__name__)

_STAGE: Const = "files"
#: Characters of a decoder's message that are kept.
_MOST_DETAIL: Const = 300


class FileStage:
    """Runs one record or object through the stages, and sends the results to the broker."""

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        output: Output,
        redactor: TextRedactor,
        normalise: Callable[[ObjectRun], Normalised],
    ) -> None:
        self._settings, self._telemetry, self._output, self._normalise = settings, telemetry, output, normalise
        self._sending = asyncio.Lock()
        self._tools = Tools(redactor, settings.redaction, _no_frames)

    async def wanted(self, origin: Origin) -> list[ObjectRun | RefusedObject]:
        """The objects that a record names."""
        if is_undecodable(origin.headers):
            return [RefusedObject(Reason.UNDECODABLE_BATCH)]
        place = place_of(origin.tenant, self._settings.media_bucket, self._settings.media_prefix)
        try:
            return await asyncio.to_thread(read_objects, origin, place, self._is_secret)
        except RefusedError as error:
            return [RefusedObject(error.reason)]
        except Exception:
            log.exception("record_failed", extra={"topic": origin.topic, "offset": origin.offset})
            return [RefusedObject(Reason.INTERNAL_ERROR)]

    async def transcribe(self, origin: Origin, run: ObjectRun) -> None:
        """Normalise an object and publish its records to the pool. Raises as ``Normaliser`` does, and ``KafkaError``."""
        group = f"{self._settings.group}.files"
        with self._telemetry.span(
            "process", origin.topic, parent=origin.headers, partition=origin.partition, group=group
        ):
            options, audio = await asyncio.to_thread(self._prepare, run)
            await self._deliver(batch_records(run, options, audio), Type.CHUNK)
        seconds = audio.samples / audio.rate
        self._telemetry.record(FILE_AUDIO_SECONDS, seconds, tenant_class=tenant_class(run.tenant))
        log.info("object_normalised", extra={"run": run.run, "seconds": round(seconds)})

    async def refuse(self, origin: Origin, error: RefusedError, run: ObjectRun | None, attempts: int = 1) -> None:
        """Dead-letter the object that ``origin`` names, and report it in the run for its readers. Raises ``KafkaError``."""
        self._telemetry.record(DEAD_LETTERS, reason=error.reason.value)
        log.info("object_refused", extra={"reason": str(error.reason), "topic": origin.topic, "offset": origin.offset})
        detail = self._clear(error.detail)
        letter = encode_dead_letter(origin, error.reason, _STAGE, now_ms(), detail=detail, attempts=attempts)
        await (await self._output.send(letter))
        if mark := mark_of(origin, error.reason, run):
            await self._deliver([mark], Type.REFUSED)

    async def _deliver(self, events: list[Event], kind: Type) -> None:
        self._telemetry.record(RECORDS, len(events), topic=BATCH.name, type=kind.value)
        async with self._sending:  # another run of the stream between these records would supersede this one
            deliveries = [await self._output.send(encode_event(event, BATCH)) for event in events]
        await asyncio.gather(*deliveries)

    def _prepare(self, run: ObjectRun) -> tuple[RunOptions, Normalised]:
        return redact_options(run.media.options, self._tools), self._normalise(run)

    def _is_secret(self, name: str) -> bool:
        return bool(self._tools.redactor.find(name, self._tools.redaction))

    def _clear(self, detail: str) -> str:
        """``detail`` with everything masked that a policy could name."""
        text = "".join(char for char in detail[:_MOST_DETAIL] if char.isprintable())
        return mask(text, self._tools.redactor.find(text, tuple(sorted(self._tools.entities)))).text


def tenant_class(tenant: str) -> str:
    """The metrics' label for a tenant. Names of thousands of tenants would be too many labels."""
    return DEFAULT_TENANT if tenant == DEFAULT_TENANT else "other"


def _no_frames(*_: object) -> bytes:
    """Stand in for the frame decoder: objects have no frames."""
    raise RefusedError(Reason.UNDECODABLE)
