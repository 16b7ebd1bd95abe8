"""Watches what ``kaption up`` needs and does not run: the disk, and a broker or object store that the user runs.

A failed check prints one line with a remedy, and one more when the dependency is back. No process is stopped, since agents
and pool wait and continue by themselves.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final as Const

from aiokafka.errors import KafkaError

from kaption.adapters.kafka.embedded import answers
from kaption.adapters.settings import Settings
from kaption.adapters.store import embedded as embedded_s3
from kaption.service.aggregate import Status

_LOW_FREE_BYTES: Const = 128 << 20
_SECONDS: Const = 5.0
#: Failed checks in a row before a line is printed: one lost packet is not worth one.
_MISSES: Const = 2


async def disk(data: Path, say: Callable[[str], None]) -> None:
    """Without end: report when the disk of ``data`` fills up and when it has room again. A broker that can't write exits."""
    low = False
    while True:
        free = shutil.disk_usage(data).free
        if not low and free < _LOW_FREE_BYTES:
            low = True
            say(f"the disk of {data} has {free >> 20} MiB left; nothing is accepted once it is full: free some room")
        elif low and free > 2 * _LOW_FREE_BYTES:
            low = False
            say(f"the disk of {data} has room again")
        await asyncio.sleep(_SECONDS)


class Brought:
    """A broker or a store that the user runs, and its readiness. ``here`` checks whether it answers."""

    def __init__(self, what: str, here: Callable[[], Awaitable[bool]]) -> None:
        self._what = what
        self._here = here
        self._misses = 0

    @property
    def status(self) -> Status:
        """Ready, until too many checks in a row failed."""
        here = self._misses < _MISSES
        return Status(running=here, ready=here, restarts=0, url=None)

    async def watch(self, say: Callable[[str], None]) -> None:
        """Without end: check, and report changes."""
        while True:
            await asyncio.sleep(_SECONDS)
            if await self._here():
                if self._misses >= _MISSES:
                    say(f"{self._what} answers again")
                self._misses = 0
            else:
                self._misses += 1
                if self._misses == _MISSES:
                    say(f"{self._what} does not answer; what was accepted waits for it: start it again")


def broker(settings: Settings) -> Brought:
    """The user's Kafka."""

    async def here() -> bool:
        try:
            return await answers(settings)
        except KafkaError:
            return False

    return Brought(f"the broker at {settings.kafka}", here)


def store(settings: Settings) -> Brought:
    """The user's object store."""

    async def here() -> bool:
        return await embedded_s3.answers(settings)

    return Brought(f"the object store at {settings.s3}", here)
