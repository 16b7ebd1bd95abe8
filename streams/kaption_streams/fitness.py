"""Checks that a file agent can work at all: the store takes an object, and a child decodes one.

It distinguishes a store that is away, and a machine that can start no child, from an object that fails. The agent waits
without a limit for the store and the machine. An object's tries are counted.
"""

import asyncio
import logging
import os
import wave
from collections.abc import Callable
from typing import Final as Const

from kaption.adapters.media.files import MediaDecoder
from kaption.adapters.store.s3 import ObjectStore
from kaption_schemas.errors import ProcessError, RefusedError

log = logging.getLogger(__name__)

_FIRST_SECONDS: Const = 0.5
_MOST_SECONDS: Const = 15.0


def pause(tries: int) -> float:
    """Seconds before the next try, after ``tries``."""
    return min(_MOST_SECONDS, _FIRST_SECONDS * 2.0 ** min(tries - 1, 16))


class Fitness:
    """Unfit until the work bucket exists, and whenever store or children fail. ``again`` is called whenever it becomes fit."""

    def __init__(self, store: ObjectStore, decoder: MediaDecoder, again: Callable[[], None]) -> None:
        self.fit = False
        self._store, self._decoder, self._again = store, decoder, again
        self._prepared = False
        self._waiting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to check."""
        self._waiting = asyncio.create_task(self._wait(), name="wait until files can be decoded")

    async def stop(self) -> None:
        """Stop checking."""
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)

    async def blames(self, error: Exception) -> bool:
        """Whether ``error`` is the object's fault. If it is not, the agent becomes unfit."""
        if self.fit and await self._look() is None:
            return True
        if self.fit:
            self.fit = False
            log.warning("decoding_paused", extra={"error": str(error)})
            self.start()
        return False

    async def _wait(self) -> None:
        tries = 0
        while (error := await self._look()) is not None:
            tries += 1
            log.warning("decoding_failed", extra={"error": str(error), "again_in_seconds": pause(tries)})
            await asyncio.sleep(pause(tries))
        self.fit = True
        log.info("decoding_resumed")
        self._again()

    async def _look(self) -> Exception | None:
        """Check store and children. Returns the error, None if both work."""
        try:
            if not self._prepared:
                await asyncio.to_thread(self._store.prepare_work)
                self._prepared = True
            await asyncio.to_thread(self._store.probe)
            await asyncio.to_thread(self._decode)
        except Exception as error:  # noqa: BLE001  # with any error no file can be decoded, and the agent must keep checking
            return error
        return None

    def _decode(self) -> None:
        """Decode a tenth of a second of silence. Raises ``ProcessError`` or ``OSError``."""
        with os.fdopen(os.memfd_create("probe"), "w+b") as file:
            with wave.open(file, "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(16_000)
                sound.writeframes(bytes(3200))
            try:
                with self._decoder.decode(file, mix=True) as decoding:
                    while decoding.read(1 << 16):
                        pass
                    decoding.finish()
            except RefusedError as error:
                raise ProcessError(f"a decoding child refuses plain sound: {error.reason}") from error
