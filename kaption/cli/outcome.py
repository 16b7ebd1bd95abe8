"""How runs that a command publishes end: ``kaption.stream.completed`` tells it to whoever publishes and waits."""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from aiokafka.errors import KafkaError

from kaption.adapters.settings import Settings
from kaption.client.transcripts import Transcripts
from kaption.domain.reading.reader import RunFailedError, failed
from kaption_schemas.records import StreamCompleted


class Outcomes:
    """Listens, while it is entered, for the ends of runs of ``streams``. Who may only publish hears of none."""

    def __init__(self, settings: Settings, tenant: str, streams: Iterable[str], *, needed: bool) -> None:
        """``needed``: not being able to listen is an error, which entering raises as ``Transcripts`` does."""
        self._transcripts = Transcripts(set(streams), tenant=tenant, partials=False, settings=settings)
        self._needed = needed
        self._ends: dict[str, StreamCompleted] = {}
        self._heard = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Listen from now on."""
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
        """Listen no more."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            await self._transcripts.__aexit__(kind, error, trace)

    def check(self, run: str) -> None:
        """Raise ``RunFailedError`` where ``run``, which is being published, is over: nothing more of it is taken."""
        if run in self._ends:
            raise RunFailedError([self._ends[run]])

    async def of(self, run: str) -> StreamCompleted:
        """How ``run`` ended, once it has.

        Raises:
            RunFailedError: It was refused, or given up.
            aiokafka.errors.KafkaError: The brokers refuse to go on.
        """
        assert self._listening is not None  # noqa: S101  # who waits asked for it
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
