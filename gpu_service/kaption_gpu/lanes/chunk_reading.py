"""Reads a file's audio from the object store. It waits for a store that is away, but abandons an object that the store cannot give."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final as Const

from kaption.domain.pool.ports import Objects
from kaption_schemas.errors import RefusedError, StoreError
from kaption_schemas.records import DataRef

log = logging.getLogger(__name__)

#: After this number of failures, over about three minutes, an object is abandoned if the store works for another object.
MOST_TRIES: Const = 20
#: Seconds between two tries, from the first to the longest.
_BACKOFF_SECONDS: Const = (0.2, 15.0)
#: Number of abandoned objects that are remembered: each of their further chunks is tried once.
_REMEMBERED: Const = 100


@dataclass(frozen=True, slots=True)
class Read:
    """The bytes that were read, None if they are unavailable, and the number of tries."""

    body: bytes | None
    tries: int


class ChunkReader:
    """Reads for every lane of a worker. ``backoff`` gives the first and the longest pause between tries, in seconds."""

    def __init__(self, objects: Objects, backoff: tuple[float, float] = _BACKOFF_SECONDS) -> None:
        self._objects = objects
        self._backoff = backoff
        self._given_up: dict[str, None] = {}

    async def read(self, ref: DataRef, lane: str, done: Callable[[], None]) -> Read:
        """Read the bytes that ``ref`` names. ``done`` is called when they have come, or will not come."""
        delay, longest = self._backoff
        tries, blamed = 0, False
        while True:
            tries += 1
            try:
                body = await asyncio.to_thread(self._objects.read, ref)
            except RefusedError:
                done()
                return Read(None, tries)
            except StoreError as error:
                log.warning(
                    "file_audio_retried",
                    extra={"lane": lane, "cause": str(error) or type(error).__name__, "tries": tries},
                )
            else:
                self._given_up.pop(ref.key, None)
                done()
                return Read(body if len(body) == ref.length else None, tries)
            if await self._hopeless(ref.key, tries):
                if not blamed:  # the store may have recovered between the read and the probe
                    blamed = True
                    continue
                self._remember(ref.key)
                log.error("file_audio_abandoned", extra={"lane": lane, "tries": tries})
                done()
                return Read(None, tries)
            blamed = False
            await asyncio.sleep(delay)
            delay = min(2 * delay, longest)

    async def _hopeless(self, key: str, tries: int) -> bool:
        if tries < MOST_TRIES and key not in self._given_up:
            return False
        return await asyncio.to_thread(self._objects.works)

    def _remember(self, key: str) -> None:
        self._given_up.pop(key, None)
        self._given_up[key] = None
        while len(self._given_up) > _REMEMBERED:
            del self._given_up[next(iter(self._given_up))]
