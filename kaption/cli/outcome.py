"""Waits for the ends of runs that a command publishes, as ``kaption.stream.completed`` reports them."""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from aiokafka.errors import KafkaError

from kaption.adapters.settings import Settings
from kaption.client.transcripts import Transcripts
from kaption.domain.reading.reader import failed
from kaption_schemas.errors import RunFailedError
from kaption_schemas.records import StreamCompleted


class Outcomes:
    """Listens, while it is entered, for the ends of runs of ``streams``. A user with write access only receives none."""

    def __init__(self, settings: Settings, tenant: str, streams: Iterable[str], *, needed: bool) -> None:
        """``needed``: entering raises, as ``Transcripts`` does, if it cannot listen."""
        self._transcripts = Transcripts(set(streams), tenant=tenant, partials=False, settings=settings)
        self._needed = needed
        self._ends: dict[str, StreamCompleted] = {}
        self._heard = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to listen."""
        try:
            await self._transcripts.__aenter__()
        except (LookupError, KafkaError):
            if self._needed:
                raise
            return self
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            await self._transcripts.__aexit__(kind, error, trace)

    def check(self, run: str) -> None:
        """Raise ``RunFailedError`` if ``run`` has ended while it is published: the service accepts no more of it."""
        if run in self._ends:
            raise RunFailedError([self._ends[run]])

    async def of(self, run: str) -> StreamCompleted:
        """Wait until ``run`` ends, and return how.

        Raises:
            RunFailedError: The run was refused or abandoned.
            aiokafka.errors.KafkaError: The brokers refuse the reader.
        """
        assert self._listening is not None  # noqa: S101  # only a caller that entered waits
        while run not in self._ends:
            self._heard.clear()
            heard = asyncio.ensure_future(self._heard.wait())
            await asyncio.wait((heard, self._listening), return_when=asyncio.FIRST_COMPLETED)
            heard.cancel()
            if self._listening.done():
                self._listening.result()
        end = self._ends[run]
        if failed(end):
            raise RunFailedError([end])
        return end

    async def _listen(self) -> None:
        async for record in self._transcripts:
            if isinstance(record, StreamCompleted):
                self._ends[record.run] = record
                self._heard.set()
